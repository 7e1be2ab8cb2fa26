"""From tokens to text as they come: never half a character, never a part of a stop string."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
PENDING = 8
"""Tokens that may make one character: it has 4 bytes at most, and special tokens may come between. After more, bytes are no text."""
UNFINISHED = 3
"""Bytes that can be the beginning of a character."""
WINDOW, CONTEXT = 32, 16
"""Tokens without text that are decoded again with each new one, and how many of them are kept when there are more."""
FIRST_MARK, LAST_MARK = 0xD800, 0xDFFF
"""Surrogates, which no decoded text has: each stands for one special token while stop strings are looked for."""


class Detokenizer:
    """Text of a growing token sequence, piece by piece; the pieces joined are the text of the whole.

    A token's text can depend on the one before (spaces, byte pairs), so that each piece is the difference of two decodings of a
    short window; bytes that do not make a character yet are held back.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._complete = 0
        """Tokens of the window that are its context: their text has been returned."""
        self._returned = 0
        """Characters of the window's text that have been returned."""
        self.length = 0
        """Characters that have been returned in all."""

    def push(self, token: int) -> str:
        """The text that `token` adds; empty while a character is incomplete."""
        self._tokens.append(token)
        return self._advance(whole=False)

    def finish(self) -> str:
        """What is still held back."""
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
        """Characters at the end of the text that the next tokens may change."""
        open_end = len(text) - len(text.rstrip(REPLACEMENT))
        return open_end if len(self._tokens) - self._complete <= PENDING else min(open_end, UNFINISHED)

    def _move(self, window: list[int], held: int) -> None:
        self._tokens = window
        self._returned = max(len(self._decode(window)) - held, 0)


class StopStrings:
    """Cuts a stream of text before the first of the stop strings, holding back what could be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of the stream that can be told after `text` came; sets `stopped` where a stop string was found."""
        if self.stopped:
            return ""
        self._held += text
        found = [position for stop in self._stops if (position := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            told, self._held = self._held[: min(found)], ""
            return told
        keep = self._possible_beginning()
        told, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return told

    def finish(self) -> str:
        """What was held back and did not become a stop string."""
        told, self._held = self._held, ""
        return told

    def _possible_beginning(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0


class StopMatcher:
    """Ends the text of an answer before the first stop string. A stop string may contain special tokens, which the text leaves out.

    Stop strings with special tokens are looked for in the text with marks in place of those tokens, all of them in the
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
        """Whether a stop string was found."""
        return self._marked.stopped or self._plain.stopped

    def push(self, text: str, token: int) -> str:
        """The text that can be returned after `token` came, which added `text`."""
        passed = self._plain.push(self._unmarked(self._marked.push(text + self._marks.get(token, ""))))
        return passed + self._plain.finish() if self._marked.stopped else passed

    def finish(self, text: str) -> str:
        """What was held back and did not become a stop string, with the last `text` of the answer."""
        return self._plain.push(self._unmarked(self._marked.push(text) + self._marked.finish())) + self._plain.finish()

    def _unmarked(self, text: str) -> str:
        return text.translate(self._without_marks)
