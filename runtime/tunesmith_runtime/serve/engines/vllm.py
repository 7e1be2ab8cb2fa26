"""Engine vLLM."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_runtime.serve.engines.process import supervise
from tunesmith_runtime.serve.served import Served

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that --max-lora-rank takes."""


def argv(served: Served) -> list[str]:
    """The command line of `vllm serve`."""
    command = ["vllm", "serve", str(served.model), "--served-model-name", served.base_name]
    command += ["--host", served.host, "--port", str(served.port), "--tensor-parallel-size", str(served.devices)]
    command += ["--max-model-len", str(served.max_length)] if served.max_length else []
    command += ["--trust-remote-code"] if served.trust_remote_code else []
    if served.adapters:
        rank = next((rank for rank in RANKS if rank >= served.adapter_rank), served.adapter_rank)
        command += ["--enable-lora", "--max-loras", str(len(served.adapters)), "--max-lora-rank", str(rank)]
        command += ["--lora-modules", *(f"{name}={path}" for name, path in served.named_adapters.items())]
    return command


def environment(served: Served) -> Mapping[str, str]:
    """The key, which other users of the node could read in a command line; and no statistics to anybody."""
    key = {"VLLM_API_KEY": served.api_key} if served.api_key else {}
    return {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", **key}


def serve(served: Served) -> None:
    """Answer requests until SIGTERM."""
    supervise(served, argv(served), environment(served))
