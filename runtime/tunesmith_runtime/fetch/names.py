"""What the names of a folder's files say about the model in it, before a byte of it is downloaded."""

from __future__ import annotations

from pathlib import PurePosixPath

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Weights that run code when they are loaded."""
CODE = (".py", ".pyc", ".pyd", ".so", ".sh")
"""Programs: brought only with a model whose code is trusted."""
SAFE, GGUF, ADAPTER_CONFIG = ".safetensors", ".gguf", "adapter_config.json"


def check_names(uri: str, names: list[str], adapter: bool) -> None:
    """Refuse a folder, by the names in it, that holds no model we load. Raises RunFailure (ModelNotFound, UnsafeWeights)."""
    found = f"it has {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "nothing is there"
    tops = [name for name in names if "/" not in name]
    weights = [name for name in tops if name.endswith(SAFE)]
    ggufs = [name for name in names if name.endswith(GGUF)]
    config = ADAPTER_CONFIG if adapter else "config.json"
    if not adapter and ADAPTER_CONFIG in tops and config not in tops:
        message = f"model {uri}: the folder holds an adapter"
        raise RunFailure(
            FailureClass.MODEL_NOT_FOUND, message, "name the FineTuneJob that made it, or its merged model"
        )
    if not weights and any(PurePosixPath(name).suffix in PICKLES for name in names):
        raise RunFailure(
            FailureClass.UNSAFE_WEIGHTS, f"model {uri}: its weights are pickle files, which can run code: {found}"
        )
    if not weights and len(ggufs) > 1:
        message = f"model {uri}: the folder has {len(ggufs)} GGUF files: {', '.join(ggufs[:8])}"
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, message, "name one of them in the URI")
    if not weights and (adapter or not ggufs):
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"model {uri}: no safetensors weights: {found}")
    if weights and config not in tops:
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"model {uri}: no {config}: {found}")


def is_wanted(path: str, trusted: bool) -> bool:
    """Pickles beside safetensors stay where they are; so do GGUF files, hidden ones, and code that is not trusted."""
    name = PurePosixPath(path)
    left = (*PICKLES, GGUF) if trusted else (*PICKLES, GGUF, *CODE)
    return name.suffix not in left and not any(part.startswith(".") for part in name.parts)
