"""Wildcards in paths: `*` matches characters of a name, `**` also folders."""

from __future__ import annotations

import re


def has_wildcard(uri: str) -> bool:
    """Whether a URI names files by a wildcard."""
    return "*" in uri


def parent_of(uri: str) -> tuple[str, str]:
    """The folder above the first wildcard of a URI, and the pattern of the paths below it."""
    folder, _, _ = uri.partition("*")
    folder = folder.rpartition("/")[0]
    return folder, uri[len(folder) + 1 :]


def pattern(glob: str, brackets: bool = False) -> re.Pattern[str]:
    """The pattern of whole paths that `glob` matches. With `brackets`, `?` and `[...]` are wildcards too, as in a hub's data card."""
    tokens = r"\*\*/|\*\*|\*" + (r"|\?|\[!?[^]/]+\]" if brackets else "")
    known = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts, last = [], 0
    for token in re.finditer(tokens, glob):
        parts.append(re.escape(glob[last : token.start()]))
        parts.append(known.get(token[0]) or "[" + token[0][1:-1].replace("\\", r"\\").replace("!", "^", 1) + "]")
        last = token.end()
    parts.append(re.escape(glob[last:]))
    return re.compile("".join(parts), re.DOTALL)
