"""Hide optional packages that a run does not use, and keep idle threads off shared cores.

transformers, accelerate and peft import every optional package that is installed. Together these take as long to import as
torch itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

OPTIONAL = frozenset(
    {"bitsandbytes", "deepspeed", "llmcompressor", "scipy", "sklearn", "swanlab", "torchao", "torchvision", "wandb"}
)


@contextmanager
def hidden(needed: Collection[str] = (), optional: Collection[str] = OPTIONAL) -> Iterator[None]:
    """Within the block, optional packages that are neither needed nor imported appear not to be installed.

    A None in sys.modules makes an import fail (Python's import system, "The module cache").
    """
    modules: dict[str, Any] = sys.modules
    names = [name for name in optional if name not in needed and name not in modules]
    modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            modules.pop(name, None)


def sleep_when_idle() -> None:
    """Let idle threads of libgomp sleep soon instead of spinning. Call it before torch is imported.

    On shared cores, spinning takes time from other processes: it doubled the CPU time of a matrix product on two cores.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
