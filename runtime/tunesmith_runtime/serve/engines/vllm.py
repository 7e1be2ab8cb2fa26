"""vLLM."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tunesmith_api.inferenceservice import Engine
from tunesmith_runtime.serve.config import MAX_IMAGES, ServeConfig
from tunesmith_runtime.serve.engines.process import EngineProcess

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that --max-lora-rank accepts."""
NO_HOST = "none.invalid"
"""A name that no host has (RFC 2606): without names in --allowed-media-domains, vLLM fetches every URL that a request holds."""


def command(config: ServeConfig) -> list[str]:
    """Return the command line of `vllm serve`."""
    words = ["vllm", "serve", str(config.model), "--served-model-name", config.base_name]
    words += ["--host", config.host, "--port", str(config.port), "--tensor-parallel-size", str(config.devices)]
    words += ["--max-model-len", str(config.max_length)] if config.max_length else []
    words += ["--trust-remote-code"] if config.trust_remote_code else []
    if config.adapters:
        rank = next((rank for rank in RANKS if rank >= config.adapter_rank), config.adapter_rank)
        words += ["--enable-lora", "--max-loras", str(len(config.adapters)), "--max-lora-rank", str(rank)]
        words += ["--lora-modules", *(f"{name}={path}" for name, path in config.named_adapters.items())]
    if config.reads_images:
        words += ["--limit-mm-per-prompt", json.dumps({"image": MAX_IMAGES})]
        words += ["--allowed-media-domains", *(sorted(config.allowed_hosts) or [NO_HOST])]
    return words


def environment(config: ServeConfig) -> Mapping[str, str]:
    """Pass the key, which other users of the node could read in a command line, and turn usage statistics and redirects of images off."""
    key = {"VLLM_API_KEY": config.api_key} if config.api_key else {}
    return {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0", **key}


VLLM = EngineProcess(Engine.VLLM, command, environment)
