"""The commands in pages of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PROGRAMS = (
    "kubectl",
    "helm",
    "make",
    "curl",
    "eval",
    "export",
    "kind",
    "docker",
    "buildah",
    "velero",
    "oc",
    "python3?",
)
COMMAND = re.compile(rf"\s*({'|'.join(PROGRAMS)}) ")


@dataclass(frozen=True)
class Command:
    """A line of shell, with its position in the page."""

    place: str
    text: str


def commands(page: str, text: str) -> list[Command]:
    """All commands of a page in Markdown, in its order: of blocks `sh` and `console`, and in running text.

    In running text two words such as `helm upgrade` are the name of a command; more are a command to type.
    Raises ValueError for a command in a block of another kind, as it would go untested.
    """
    found = [*_in_blocks(text), *_in_spans(text)]
    found.sort(key=lambda match: match[0])
    return [Command(f"{page}:{text.count(chr(10), 0, at) + 1}", command) for at, command in found]


def _in_blocks(text: str) -> Iterator[tuple[int, str]]:
    for block in FENCE.finditer(text):
        _, language, content = block.groups()
        lines = [line.strip() for line in re.sub(r"\\\n\s*", "", content).splitlines()]
        if language == "sh":
            yield from ((block.start(), line) for line in lines if line and not line.startswith("#"))
        elif language == "console":
            yield from ((block.start(), line.removeprefix("$ ")) for line in lines if line.startswith("$ "))
        elif astray := [line for line in lines if COMMAND.match(line)]:
            raise ValueError(f"a command in a block that is not sh or console: {astray[0]}")
    if astray := re.search(rf"^ {{4,}}({'|'.join(PROGRAMS)}) .*$", FENCE.sub("", text), re.MULTILINE):
        raise ValueError(f"a command in a block without a fence: {astray[0].strip()}")


def _in_spans(text: str) -> Iterator[tuple[int, str]]:
    blank = FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    for span in SPAN.finditer(blank):
        command = " ".join(span[1].split())
        if COMMAND.match(command) and len(command.split()) > 2:
            yield span.start(), command
