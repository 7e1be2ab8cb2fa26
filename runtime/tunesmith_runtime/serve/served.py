"""What is to be served: the one description that every engine starts from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith_api.common import Accelerator
from tunesmith_api.engines import resolve_engine
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.run import ENGINE_PORT, READY_PORT, ModelRole, RunSpec
from tunesmith_runtime.serve.keys import api_key
from tunesmith_runtime.workdir import Work

PORT_VARIABLE = "TUNESMITH_PORT"
"""Environment variable with another port than the pod's, for servers that run beside each other on one machine."""
OWN_ADAPTER = "tunesmith-own"
"""The name under which an engine knows the adapter that is the model itself."""
LINGER_SECONDS = 5.0
"""A service that is asked to stop takes requests for so long, until the cluster's proxies know that it leaves."""


@dataclass(frozen=True)
class Served:
    """A model, its adapters, and how they are reached."""

    model: Path
    names: Mapping[str, str | None]
    """Model name of requests -> adapter, None for the base weights. The first is the resource's own."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    max_length: int | None = None
    """Tokens of prompt and answer together at most; None: the model's own."""
    accelerator: Accelerator = Accelerator.CPU
    devices: int = 1
    trust_remote_code: bool = False
    host: str = "0.0.0.0"
    port: int = ENGINE_PORT
    api_key: str | None = None
    linger: float = 0.0

    @property
    def name(self) -> str:
        """The resource's own model name."""
        return next(iter(self.names))

    @property
    def base_name(self) -> str:
        """A name for the base weights, for engines that must have one even where the served model is an adapter."""
        return self.name if self.names[self.name] is None else f"{self.name}-base"

    @property
    def ready_port(self) -> int:
        """The port that answers /ready whatever the engine."""
        return self.port + READY_PORT - ENGINE_PORT

    @property
    def adapter_rank(self) -> int:
        """The highest rank of the adapters; 0 without any."""
        configs = (json.loads((path / "adapter_config.json").read_text()) for path in self.adapters.values())
        return max(
            (max(config.get("r", 0), *config.get("rank_pattern", {}).values(), 0) for config in configs), default=0
        )

    @property
    def named_adapters(self) -> dict[str, Path]:
        """Model name of requests -> adapter folder."""
        return {name: self.adapters[adapter] for name, adapter in self.names.items() if adapter is not None}


def served(spec: RunSpec, work: Work) -> Served:
    """What the run's spec asks to serve, with the files where fetch left them. Raises RunFailure (BadSpec) for an unusable API key."""
    service = spec.inference_service() if spec.kind == "InferenceService" else None
    resources = service.resources if service else spec.eval_job().resources
    own = OWN_ADAPTER if ModelRole.ADAPTER in spec.models else None
    adapters = {own: work.model(ModelRole.ADAPTER)} if own else {}
    adapters |= {adapter.name: work.adapters / adapter.name for adapter in spec.adapters}
    names: dict[str, str | None] = {spec.name: own}
    names |= {adapter.name: adapter.name for adapter in spec.adapters}
    return Served(
        model=work.model(),
        names=names,
        adapters=adapters,
        max_length=service.max_model_length if service else None,
        accelerator=resources.accelerator,
        devices=resources.processes,
        trust_remote_code=spec.base.trust_remote_code,
        port=int(os.environ.get(PORT_VARIABLE) or ENGINE_PORT),
        api_key=api_key(),
        linger=LINGER_SECONDS if service else 0.0,
    )


def engine_of(spec: RunSpec) -> Engine:
    """Return the engine that the operator has chosen; transformers, which every image has, where the spec is still `auto`."""
    wanted = spec.inference_service() if spec.kind == "InferenceService" else spec.eval_job()
    return resolve_engine(wanted.engine, wanted.resources.accelerator, (Engine.TRANSFORMERS,))
