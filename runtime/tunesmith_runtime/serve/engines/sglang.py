"""SGLang."""

from __future__ import annotations

import json
import sys

from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator
from tunesmith_runtime.serve.config import MAX_IMAGES, ServeConfig
from tunesmith_runtime.serve.engines.process import EngineProcess


def command(config: ServeConfig) -> list[str]:
    """Return the command line of `sglang.launch_server`."""
    words = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(config.model)]
    words += ["--served-model-name", config.base_name, "--host", config.host, "--port", str(config.port)]
    words += ["--tp-size", str(config.devices)]
    words += ["--device", "npu"] if config.accelerator is Accelerator.ASCEND else []
    words += ["--context-length", str(config.max_length)] if config.max_length else []
    words += ["--trust-remote-code"] if config.trust_remote_code else []
    if config.adapters:
        slots = max(2, len(config.adapters) + 1)  # the base weights take a slot
        words += ["--enable-lora", "--max-loras-per-batch", str(slots)]
        words += ["--lora-paths", *(f"{name}={path}" for name, path in config.named_adapters.items())]
    words += ["--limit-mm-data-per-request", json.dumps({"image": MAX_IMAGES})] if config.reads_images else []
    # SGLang reads the key from the command line only; `=`, because a key may begin with a dash
    words += [f"--api-key={config.api_key}"] if config.api_key else []
    return words


SGLANG = EngineProcess(Engine.SGLANG, command)
