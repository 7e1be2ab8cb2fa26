"""Start lean: what the image holds for other verbs stays unimported, and idle threads leave the cores alone.

transformers, accelerate and peft import whatever optional package they can find. Of those, SFT uses none; together
they cost as much time as torch itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

UNUSED = ("bitsandbytes", "deepspeed", "llmcompressor", "scipy", "sklearn", "torchao", "torchvision", "wandb")


@contextmanager
def hidden(packages: Iterable[str] = UNUSED) -> Iterator[None]:
    """Within, packages that are not imported yet look as if they were not installed (import system, "None in sys.modules")."""
    modules: dict[str, Any] = sys.modules
    names = [name for name in packages if name not in modules]
    modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            modules.pop(name, None)


def sleep_when_idle() -> None:
    """Let threads of libgomp that wait for others sleep soon instead of spinning. Call it before torch is imported.

    On shared cores the spinning takes the time that the others need: it doubled the CPU time of a matrix product on two.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
