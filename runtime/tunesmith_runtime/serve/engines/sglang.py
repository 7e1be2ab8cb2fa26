"""Engine SGLang."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tunesmith_api.common import Accelerator
from tunesmith_runtime.serve.engines.process import supervise
from tunesmith_runtime.serve.served import Served


def argv(served: Served) -> list[str]:
    """The command line of `sglang.launch_server`."""
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(served.model)]
    command += ["--served-model-name", served.base_name, "--host", served.host, "--port", str(served.port)]
    command += ["--tp-size", str(served.devices)]
    command += ["--device", "npu"] if served.accelerator is Accelerator.ASCEND else []
    command += ["--context-length", str(served.max_length)] if served.max_length else []
    command += ["--trust-remote-code"] if served.trust_remote_code else []
    if served.adapters:
        command += [
            "--enable-lora",
            "--max-loras-per-batch",
            str(max(2, len(served.adapters) + 1)),
        ]  # the base takes a place
        command += ["--lora-paths", *(f"{name}={path}" for name, path in served.named_adapters.items())]
    # it takes the key in no other way; in one word with the option, as a key may begin with a dash
    command += [f"--api-key={served.api_key}"] if served.api_key else []
    return command


def environment(served: Served) -> Mapping[str, str]:
    """Nothing but what the pod has."""
    return {}


def serve(served: Served) -> None:
    """Answer requests until SIGTERM."""
    supervise(served, argv(served), environment(served))
