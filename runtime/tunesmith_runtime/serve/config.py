"""Configuration of a model server, from which every engine starts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith_api.engines import resolve_engine
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator
from tunesmith_api.run import ENGINE_PORT, READY_PORT, ModelRole, RunSpec
from tunesmith_runtime.modelcheck.adapters import ADAPTER_CONFIG
from tunesmith_runtime.multimodal.processor import reads_images
from tunesmith_runtime.serve.keys import api_key
from tunesmith_runtime.workdir import Work

PORT_VARIABLE = "TUNESMITH_PORT"
"""Environment variable that overrides the pod's port, for several servers on one machine."""
OWN_ADAPTER = "tunesmith-own"
"""Engine-side name of the adapter of a model that is itself an adapter."""
MAX_IMAGES = 16
"""Maximum number of images in a request."""
LINGER_SECONDS = 5.0
"""How long a stopping service still accepts requests: until the cluster's proxies have removed its endpoint."""


@dataclass(frozen=True)
class ServeConfig:
    """A model, its adapters, and the address and key under which they are served."""

    model: Path
    names: Mapping[str, str | None]
    """Model name in requests -> adapter, or None for the base weights. The first is the resource's own name."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    max_length: int | None = None
    """Maximum number of tokens of prompt and answer together; None: the model's own limit."""
    accelerator: Accelerator = Accelerator.CPU
    devices: int = 1
    trust_remote_code: bool = False
    host: str = "0.0.0.0"
    port: int = ENGINE_PORT
    api_key: str | None = None
    allowed_hosts: frozenset[str] = frozenset()
    """Hosts from whose https URLs images are read."""
    linger_seconds: float = 0.0

    @property
    def name(self) -> str:
        """The resource's own model name."""
        return next(iter(self.names))

    @property
    def base_name(self) -> str:
        """Name of the base weights. Engines require it even if the served model is an adapter."""
        return self.name if self.names[self.name] is None else f"{self.name}-base"

    @property
    def ready_port(self) -> int:
        """Port that answers /ready, whatever the engine."""
        return self.port + READY_PORT - ENGINE_PORT

    @property
    def reads_images(self) -> bool:
        """Whether the model reads images."""
        return reads_images(self.model)

    @property
    def adapter_rank(self) -> int:
        """Highest rank of the adapters; 0 without adapters."""
        configs = (json.loads((path / ADAPTER_CONFIG).read_text()) for path in self.adapters.values())
        return max(
            (max(config.get("r", 0), *config.get("rank_pattern", {}).values(), 0) for config in configs), default=0
        )

    @property
    def named_adapters(self) -> dict[str, Path]:
        """Model name in requests -> adapter folder."""
        return {name: self.adapters[adapter] for name, adapter in self.names.items() if adapter is not None}


def serve_config(spec: RunSpec, work: Work) -> ServeConfig:
    """Return the configuration of the server that `spec` describes, with the files that fetch left in `work`.

    Raises RunFailure (BadSpec) for an unusable API key.
    """
    service = spec.inference_service() if spec.kind == "InferenceService" else None
    resources = service.resources if service else spec.eval_job().resources
    own = OWN_ADAPTER if ModelRole.ADAPTER in spec.models else None
    adapters = {own: work.model(ModelRole.ADAPTER)} if own else {}
    adapters |= {adapter.name: work.adapters / adapter.name for adapter in spec.adapters}
    names: dict[str, str | None] = {spec.name: own}
    names |= {adapter.name: adapter.name for adapter in spec.adapters}
    return ServeConfig(
        model=work.model(),
        names=names,
        adapters=adapters,
        max_length=service.max_model_length if service else None,
        accelerator=resources.accelerator,
        devices=resources.processes,
        trust_remote_code=spec.base.trust_remote_code,
        port=int(os.environ.get(PORT_VARIABLE) or ENGINE_PORT),
        api_key=api_key(),
        allowed_hosts=frozenset((service and service.media and service.media.allowed_hosts) or ()),
        linger_seconds=LINGER_SECONDS if service else 0.0,
    )


def engine_of(spec: RunSpec) -> Engine:
    """Return the engine that the operator has chosen; transformers, which every image has, if the spec says `auto`."""
    resource = spec.inference_service() if spec.kind == "InferenceService" else spec.eval_job()
    return resolve_engine(resource.engine, resource.resources.accelerator, (Engine.TRANSFORMERS,))
