"""Engine LMDeploy: TurboMind, or its PyTorch engine where adapters or an Ascend NPU ask for it. Its adapters are fixed at start."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tunesmith_api.common import Accelerator
from tunesmith_runtime.serve.engines.process import supervise
from tunesmith_runtime.serve.served import Served


def argv(served: Served) -> list[str]:
    """The command line of `lmdeploy serve api_server` (0.18)."""
    pytorch = bool(served.adapters) or served.accelerator is Accelerator.ASCEND
    command = [sys.executable, "-m", "lmdeploy", "serve", "api_server", str(served.model)]
    command += ["--model-name", served.base_name, "--server-name", served.host, "--server-port", str(served.port)]
    command += ["--backend", "pytorch" if pytorch else "turbomind", "--tp", str(served.devices)]
    command += ["--device", "ascend"] if served.accelerator is Accelerator.ASCEND else []
    command += ["--session-len", str(served.max_length)] if served.max_length else []
    command += ["--trust-remote-code"] if served.trust_remote_code else []
    command += (
        ["--adapters", *(f"{name}={path}" for name, path in served.named_adapters.items())] if served.adapters else []
    )
    # it takes keys in no other way; in one word with the option, as a key may begin with a dash
    command += [f"--api-keys={served.api_key}"] if served.api_key else []
    return command


def environment(served: Served) -> Mapping[str, str]:
    """Nothing but what the pod has."""
    return {}


def serve(served: Served) -> None:
    """Answer requests until SIGTERM."""
    supervise(served, argv(served), environment(served))
