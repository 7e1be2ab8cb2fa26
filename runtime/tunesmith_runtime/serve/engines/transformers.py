"""transformers: our own OpenAI server over the model's forward pass. For CPUs, and for any model that transformers loads."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith_api.inferenceservice import Engine
from tunesmith_runtime.serve.config import ServeConfig


@dataclass(frozen=True)
class InProcess:
    """Serves in this process."""

    name: Engine

    def serve(self, config: ServeConfig) -> None:
        """Answer requests until SIGTERM. Raises RunFailure if the model cannot be served."""
        from tunesmith_runtime.serve.openai.server import serve  # imports torch

        serve(config)


TRANSFORMERS = InProcess(Engine.TRANSFORMERS)
