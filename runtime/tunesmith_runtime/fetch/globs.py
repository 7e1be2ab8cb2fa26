"""Wildcards in paths: `*` matches characters of a name, `**` also folders."""

from __future__ import annotations

import re

STARS = r"(?:^|(?<=/))\*\*/|\*\*|\*"
BRACKETS = r"|\?|\[!?[^]/]+\]"


def has_wildcard(uri: str) -> bool:
    """Whether a URI names files by a wildcard."""
    return "*" in uri


def parent_of(uri: str) -> tuple[str, str]:
    """The folder above the first wildcard of a URI, and the pattern of the paths below it."""
    folder, _, _ = uri.partition("*")
    folder = folder.rpartition("/")[0]
    return folder, uri[len(folder) + 1 :]


def pattern(glob: str, brackets: bool = False) -> re.Pattern[str]:
    """The pattern of whole paths that `glob` matches. With `brackets`, `?` and `[...]` are wildcards too, as in a hub's data card.

    The first place where the text behind a star fits is as good as any other if a star of equal reach follows. Such places are
    final (atomic groups), so that the time is at most quadratic in the length of the path, whatever the pattern.
    """
    blocks, last = [["", ""]], 0  # pairs of a star and the text behind it
    for token in re.finditer(STARS + (BRACKETS if brackets else ""), glob):
        blocks[-1][1] += re.escape(glob[last : token.start()])
        if token[0].startswith("*"):
            blocks.append([token[0], ""])
        else:
            blocks[-1][1] += "[^/]" if token[0] == "?" else _class(token[0])
        last = token.end()
    blocks[-1][1] += re.escape(glob[last:])
    return re.compile(_join(blocks), re.DOTALL)


def _join(blocks: list[list[str]]) -> str:
    """The expression of stars, each with the text behind it; the last one extends to the end of the path."""
    known = {"": "", "*": "[^/]*?", "**": ".*?", "**/": "(?:[^/]+/)*?"}
    groups = list[str]()  # each begins the path or has a star that crosses folders, and then stars that do not
    for number, (star, text) in enumerate(blocks):
        is_last = number == len(blocks) - 1
        if star == "*":
            groups[-1] += f"{known[star]}{text}" if is_last else f"(?>{known[star]}{text})"
        else:
            groups.append(known[star] + text)
    *most, end = groups
    return "".join(f"(?>{group})" for group in most) + end


def _class(text: str) -> str:
    """The expression of `[...]`; the text itself if it is no set of characters, such as [z-a]."""
    content = text[1:-1].replace("\\", r"\\").replace("[", r"\[")
    if content.startswith("!"):
        content = f"^{content[1:]}"
    try:
        re.compile(f"[{content}]")
    except re.error:
        return re.escape(text)
    return f"[{content}]"
