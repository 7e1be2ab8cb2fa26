"""Incremental decoding of tokens to text, without incomplete characters and without stop strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
PENDING = 8
"""Maximum number of tokens that form a character of up to 4 bytes, with special tokens between. Longer runs are not text."""
UNFINISHED = 3
"""Maximum number of bytes that can begin a character."""
WINDOW, CONTEXT = 32, 16
"""Number of tokens without text after which the window is cut, and how many tokens are kept then."""
FIRST_MARK, LAST_MARK = 0xD800, 0xDFFF
"""Surrogates, which no decoded text contains: each represents a special token during the search for stop strings."""


class Detokenizer:
    """Text of a growing token sequence, piece by piece; the pieces joined are the text of the whole.

    A token's text can depend on its predecessor (spaces, byte pairs). Each piece is therefore the difference of two decodings
    of a short window. Bytes that do not form a character yet are held back.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._complete = 0
        """Number of tokens of the window whose text has been returned."""
        self._returned = 0
        """Number of characters of the window's text that have been returned."""
        self.length = 0
        """Number of characters that have been returned in total."""

    def push(self, token: int) -> str:
        """Return the text that `token` adds; empty while a character is incomplete."""
        self._tokens.append(token)
        return self._advance(whole=False)

    def finish(self) -> str:
        """Return the text that is still held back."""
        return self._advance(whole=True)

    def _advance(self, whole: bool) -> str:
        text = self._decode(self._tokens)
        held = 0 if whole else self._unfinished(text)
        piece = text[self._returned : len(text) - held]
        self.length += len(piece)
        if piece and not held:
            self._move(self._tokens[self._complete :], held)
            self._complete = len(self._tokens)
        elif len(self._tokens) - self._complete > WINDOW:
            self._move(self._tokens[: self._complete] + self._tokens[-CONTEXT:], held)
        else:
            self._returned += len(piece)
        return piece

    def _unfinished(self, text: str) -> int:
        """Return how many characters at the end of the text the next tokens may change."""
        open_end = len(text) - len(text.rstrip(REPLACEMENT))
        return open_end if len(self._tokens) - self._complete <= PENDING else min(open_end, UNFINISHED)

    def _move(self, window: list[int], held: int) -> None:
        self._tokens = window
        self._returned = max(len(self._decode(window)) - held, 0)


class StopStrings:
    """Cuts a stream of text before the first stop string, and holds back text that may begin a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Append `text` and return the text that is released by it; set `stopped` if a stop string was found."""
        if self.stopped:
            return ""
        self._held += text
        found = [position for stop in self._stops if (position := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            released, self._held = self._held[: min(found)], ""
            return released
        keep = self._possible_beginning()
        released, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return released

    def finish(self) -> str:
        """Return the held text, which did not become a stop string."""
        released, self._held = self._held, ""
        return released

    def _possible_beginning(self) -> int:
        """Return the length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0


class StopMatcher:
    """Ends an answer before the first stop string. Stop strings may contain special tokens, which the text leaves out.

    Stop strings with special tokens are searched in the text with a mark for each special token, and all stop strings in the
    text itself.
    """

    def __init__(self, stops: Sequence[str], specials: Mapping[str, int]) -> None:
        names = sorted((name for name in specials if any(name in stop for stop in stops)), key=len, reverse=True)
        marks = {name: chr(FIRST_MARK + index) for index, name in enumerate(names[: LAST_MARK - FIRST_MARK + 1])}
        self._marks = {specials[name]: mark for name, mark in marks.items()}
        self._without_marks = dict.fromkeys(map(ord, marks.values()))
        pattern = re.compile("|".join(map(re.escape, marks))) if marks else None
        marked = [pattern.sub(lambda found: marks[found[0]], stop) for stop in stops] if pattern else []
        self._marked = StopStrings([stop for stop in marked if stop not in stops])
        self._plain = StopStrings(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been found."""
        return self._marked.stopped or self._plain.stopped

    def push(self, text: str, token: int) -> str:
        """Append `token`, which adds `text`, and return the text that is released by it."""
        passed = self._plain.push(self._unmarked(self._marked.push(text + self._marks.get(token, ""))))
        return passed + self._plain.finish() if self._marked.stopped else passed

    def finish(self, text: str) -> str:
        """Append the last `text` of the answer and return all text that is still held."""
        return self._plain.push(self._unmarked(self._marked.push(text) + self._marked.finish())) + self._plain.finish()

    def _unmarked(self, text: str) -> str:
        return text.translate(self._without_marks)
