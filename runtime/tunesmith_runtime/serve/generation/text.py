"""From tokens to text as they come: never half a character, never a part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Text of a growing token sequence, piece by piece; the pieces joined are the text of the whole.

    A token's text can depend on the one before (spaces, byte pairs), so that each piece is the difference of two decodings of a
    short window; bytes that do not make a character yet are held back.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._start = 0
        self._told = 0

    def push(self, token: int) -> str:
        """The text that `token` adds; empty while a character is incomplete."""
        self._tokens.append(token)
        return self._advance(whole=False)

    def finish(self) -> str:
        """What is still held back."""
        return self._advance(whole=True)

    def _advance(self, whole: bool) -> str:
        before = self._decode(self._tokens[self._start : self._told])
        now = self._decode(self._tokens[self._start :])
        if len(now) <= len(before) or (now.endswith(REPLACEMENT) and not whole):
            return ""
        self._start, self._told = self._told, len(self._tokens)
        return now[len(before) :]


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
