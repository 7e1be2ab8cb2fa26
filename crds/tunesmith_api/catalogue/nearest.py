"""Names like an unknown one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

_VERSION = re.compile(r"(?<![.\d])(\d)_(\d)(?!\d)")
_PART = re.compile(r"[a-z]+|[0-9]+(?:\.[0-9]+)?")
NEAREST = 3


def nearest(name: str, names: Iterable[str], count: int = NEAREST) -> list[str]:
    """Return the `count` names most like `name`, the best first.

    Names of models are made of parts (family, version, size, kind), so shared parts count beside shared letters: qwen3-8b-chat is
    nearer to qwen3-8b than to qwen-7b-chat. Of equals, the shorter name is first.
    """
    wanted = _normal(name)
    parts = set(_PART.findall(wanted))
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)

    def likeness(candidate: str) -> float:
        spelled = _normal(candidate)
        theirs = set(_PART.findall(spelled))
        shared = 2 * len(parts & theirs) / max(1, len(parts) + len(theirs))
        matcher.set_seq1(spelled)
        return matcher.ratio() + shared

    return sorted(set(names), key=lambda each: (-likeness(each), len(each), each))[:count]


def _normal(name: str) -> str:
    """`name` in the spelling of the catalogue: without an organization, in lower case, with - and versions such as 2.5."""
    spelled = _VERSION.sub(r"\1.\2", name.strip().rpartition("/")[2].lower())
    return spelled.replace("_", "-").replace(" ", "-")[:100]
