"""Text and bytes of single tokens. Decoded text does not show them, because a token may be part of a character."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from tunesmith_runtime.serve.generation.text import REPLACEMENT

FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
"""Spelling of a byte token in tokenizers with byte fallback (SentencePiece)."""


def byte_alphabet() -> dict[str, int]:
    """Return character -> byte of byte-level BPE, the inverse of GPT-2's `bytes_to_unicode`.

    Printable Latin-1 characters represent themselves; the characters from 256 on represent the other bytes.
    """
    own = [byte for byte in range(256) if chr(byte).isprintable() and byte != ord(" ")]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + index): byte for index, byte in enumerate(others)}


class Tokens:
    """The tokens of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        kinds = _decoders(tokenizer)
        self._alphabet = byte_alphabet() if "ByteLevel" in kinds else {}
        self._fallback = "ByteFallback" in kinds
        self._known: dict[int, bytes | None] = {}

    @cached_property
    def specials(self) -> dict[str, int]:
        """Special tokens, which the text of an answer leaves out: text -> id."""
        added = {token.content: number for number, token in self._added.items() if token.special}
        named = zip(self._tokenizer.all_special_tokens, self._tokenizer.all_special_ids, strict=True)
        return {**dict(named), **added}

    @cached_property
    def longest(self) -> int:
        """Number of characters of the longest token; a lower bound for the tokens of a text follows from it."""
        return max(map(len, self._tokenizer.get_vocab()))

    def bytes_of(self, token: int) -> bytes | None:
        """Return the bytes of a token; None for a token that the tokenizer does not have."""
        if token not in self._known:
            self._known[token] = self._bytes_of(token)
        return self._known[token]

    def _bytes_of(self, token: int) -> bytes | None:
        if token in self._added:
            return str(self._added[token].content).encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return None
        if isinstance(piece, bytes):
            return piece
        if self._fallback and (byte := FALLBACK.fullmatch(piece)):
            return bytes.fromhex(byte[1])
        if self._alphabet and all(character in self._alphabet for character in piece):
            return bytes(self._alphabet[character] for character in piece)
        text = self._decoded(self._before, token)[len(self._decoded(self._before)) :]
        return None if REPLACEMENT in text and REPLACEMENT not in piece else text.encode()

    def text_of(self, token: int) -> str:
        """Return the text of a token; for a part of a character `\\\\xe4\\\\xbd`, as the OpenAI API does."""
        raw = self.bytes_of(token)
        if raw is None:
            return f"token_id:{token}"
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "".join(f"\\x{byte:02x}" for byte in raw)

    @cached_property
    def _before(self) -> int:
        """A token that precedes others when they are decoded: alone they may lose a space."""
        return int(self._tokenizer("a", add_special_tokens=False)["input_ids"][-1])

    def _decoded(self, *tokens: int) -> str:
        return str(self._tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))


def _decoders(tokenizer: Any) -> set[str]:
    """Return the types of the decoder's steps of a fast tokenizer."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return set()
    described = json.loads(decoder.__getstate__())
    return {step["type"] for step in (described, *described.get("decoders", ()))}
