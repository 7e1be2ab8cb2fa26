"""LMDeploy: TurboMind, or its PyTorch engine for adapters and Ascend NPUs. Adapters are fixed at start."""

from __future__ import annotations

import sys

from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator
from tunesmith_runtime.serve.config import ServeConfig
from tunesmith_runtime.serve.engines.process import EngineProcess


def command(config: ServeConfig) -> list[str]:
    """Return the command line of `lmdeploy serve api_server` (0.18)."""
    pytorch = bool(config.adapters) or config.accelerator is Accelerator.ASCEND
    words = [sys.executable, "-m", "lmdeploy", "serve", "api_server", str(config.model)]
    words += ["--model-name", config.base_name, "--server-name", config.host, "--server-port", str(config.port)]
    words += ["--backend", "pytorch" if pytorch else "turbomind", "--tp", str(config.devices)]
    words += ["--device", "ascend"] if config.accelerator is Accelerator.ASCEND else []
    words += ["--session-len", str(config.max_length)] if config.max_length else []
    words += ["--trust-remote-code"] if config.trust_remote_code else []
    if config.adapters:
        words += ["--adapters", *(f"{name}={path}" for name, path in config.named_adapters.items())]
    # LMDeploy reads keys from the command line only; `=`, because a key may begin with a dash
    words += [f"--api-keys={config.api_key}"] if config.api_key else []
    return words


LMDEPLOY = EngineProcess(Engine.LMDEPLOY, command)
