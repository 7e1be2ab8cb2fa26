"""Checks of a model by the names of its files, before the download."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.adapters import ADAPTER_CONFIG

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Weights whose loading can run code."""
CODE = (".py", ".pyc", ".pyd", ".so", ".sh")
"""Programs: downloaded only with a model whose code is trusted."""
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
"""The end of the file names that gguf-split writes: part and number of parts."""
SAFE, GGUF = ".safetensors", ".gguf"


def check_names(uri: str, names: list[str], adapter: bool) -> None:
    """Refuse a folder without a loadable model, by the names of its files. Raises RunFailure (ModelNotFound, UnsafeWeights, BadModel)."""
    found = f"it has {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "the folder is empty"
    tops = [name for name in names if "/" not in name]
    weights = [name for name in tops if name.endswith(SAFE)]
    ggufs = [name for name in names if name.endswith(GGUF)]
    config = ADAPTER_CONFIG if adapter else "config.json"
    if not adapter and ADAPTER_CONFIG in tops and config not in tops:
        message = f"model {uri}: the folder holds an adapter"
        raise RunFailure(
            FailureClass.MODEL_NOT_FOUND, message, "name the FineTuneJob that trained it, or its merged model"
        )
    if not weights and any(PurePosixPath(name).suffix in PICKLES for name in names):
        raise RunFailure(
            FailureClass.UNSAFE_WEIGHTS, f"model {uri}: its weights are pickle files, which can run code: {found}"
        )
    parts = [part for name in ggufs if (part := part_by_name(name))]
    if not weights and parts and len(parts) == len(ggufs):
        raise part_of(uri, *parts[0])
    if not weights and len(ggufs) > 1:
        message = f"model {uri}: the folder has {len(ggufs)} GGUF files: {', '.join(ggufs[:8])}"
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, message, "name a single file in the URI")
    if not weights and (adapter or not ggufs):
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"model {uri}: no safetensors weights: {found}")
    if weights and config not in tops:
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"model {uri}: no {config}: {found}")


def part_of(uri: str, part: int, parts: int) -> RunFailure:
    """The failure of a GGUF file that holds a part of a model, which transformers would load as the whole."""
    return RunFailure(
        FailureClass.BAD_MODEL,
        f"{uri}: part {part} of {parts} of a split GGUF model",
        "join the parts with gguf-split --merge (llama.cpp), upload the joined file and name it in the URI",
    )


def check_gguf_name(uri: str) -> None:
    """Raise RunFailure (BadModel) for the URI of a part of a split GGUF model."""
    if part := part_by_name(uri):
        raise part_of(uri, *part)


def part_by_name(name: str) -> tuple[int, int] | None:
    """Part and number of parts, if the name is that of a part of a split GGUF model. Part 1 of 1 is the whole model."""
    match = PART.search(name)
    return (int(match[1]), int(match[2])) if match and int(match[2]) > 1 else None


def is_wanted(path: str, trusted: bool) -> bool:
    """Whether to download a file: neither pickles nor GGUF beside safetensors, nor hidden files, nor code that is not trusted."""
    name = PurePosixPath(path)
    left = (*PICKLES, GGUF) if trusted else (*PICKLES, GGUF, *CODE)
    return name.suffix not in left and not any(part.startswith(".") for part in name.parts)
