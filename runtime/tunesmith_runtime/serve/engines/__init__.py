"""The serving engines: one module for each, which defines its `ENGINE`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tunesmith_api.inferenceservice import Engine
from tunesmith_runtime.serve.config import ServeConfig
from tunesmith_runtime.serve.engines import lmdeploy, sglang, transformers, vllm


class ServingEngine(Protocol):
    """Serves the OpenAI API for a model. Implementations import their libraries only in `serve`."""

    def serve(self, config: ServeConfig) -> None:
        """Answer requests until SIGTERM. Raises RunFailure if the model cannot be served."""


ENGINES: Mapping[Engine, ServingEngine] = {
    Engine.LMDEPLOY: lmdeploy.ENGINE,
    Engine.VLLM: vllm.ENGINE,
    Engine.SGLANG: sglang.ENGINE,
    Engine.TRANSFORMERS: transformers.ENGINE,
}
"""By the API's enum; `auto` is resolved before (tunesmith_api.engines)."""
