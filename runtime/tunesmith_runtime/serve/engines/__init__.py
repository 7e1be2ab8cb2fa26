"""The serving engines: one module for each, which defines one `ServingEngine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tunesmith_api.inferenceservice import Engine
from tunesmith_runtime.serve.config import ServeConfig
from tunesmith_runtime.serve.engines.lmdeploy import LMDEPLOY
from tunesmith_runtime.serve.engines.sglang import SGLANG
from tunesmith_runtime.serve.engines.transformers import TRANSFORMERS
from tunesmith_runtime.serve.engines.vllm import VLLM


class ServingEngine(Protocol):
    """Serves the OpenAI API for a model. Implementations import their libraries only in `serve`."""

    @property
    def name(self) -> Engine:
        """The engine in the API."""

    def serve(self, config: ServeConfig) -> None:
        """Answer requests until SIGTERM. Raises RunFailure if the model cannot be served."""


ENGINES: Mapping[Engine, ServingEngine] = {engine.name: engine for engine in (LMDEPLOY, VLLM, SGLANG, TRANSFORMERS)}
"""By the API's enum; `auto` is resolved before (tunesmith_api.engines)."""
