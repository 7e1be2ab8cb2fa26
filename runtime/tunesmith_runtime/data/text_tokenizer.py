"""Tokenizes many texts at once. What texts have in common between special tokens, such as the messages of a prompt, is tokenized once.

A tokenizer first finds the added tokens of a text, such as <|im_start|>, and then tokenizes what is between them by itself. So
the tokens of a text are those of its parts, if each part but the first begins with an added token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from tunesmith_runtime.data.encoding import Known, Tokens
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.data.tokenizer_file import TokenizerFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


class TextTokenizer:
    """The tokens of texts, without special tokens at their start or end, as calls of the tokenizer return them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, quotes: Mapping[str, str] | None = None) -> None:
        """`quotes`: characters that stand for added tokens which are plain text where they were typed."""
        self._tokenizer = tokenizer
        self._rust = rust_tokenizer(tokenizer)
        self._begins_part = part_starts(self._rust) if self._rust else None
        self._quotes = quotes or {}
        self._quote = re.compile(f"([{''.join(self._quotes)}])") if self._quotes else None

    def __call__(self, texts: Sequence[str], known: Known) -> Sequence[Tokens | RowError]:
        """The tokens of each text, or why the tokenizer refuses it. Adds the tokens of their parts to `known`."""
        try:
            return self._tokens(texts, known)
        except RowError as error:
            return [error] if len(texts) == 1 else [self([text], known)[0] for text in texts]

    def _tokens(self, texts: Sequence[str], known: Known) -> list[Tokens]:
        known.update(self._typed)
        parts = [self._parts(text) for text in texts]
        new = [part for part in dict.fromkeys(chain.from_iterable(parts)) if part not in known]
        if new:
            known.update(zip(new, self._tokenized(new), strict=True))
        return [list(chain.from_iterable(map(known.__getitem__, each))) for each in parts]

    @cached_property
    def _typed(self) -> Known:
        """The tokens of added tokens as plain text, by the characters that stand for them."""
        return {character: self._as_text(token) for character, token in self._quotes.items()}

    def _as_text(self, token: str) -> Tokens:
        """The tokens of an added token as plain text."""
        if self._rust is None:
            return list(self._tokenizer(token, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        self._rust.encode_special_tokens = True  # a state of the tokenizer, which its calls set too
        try:
            return list(self._rust.encode(token, add_special_tokens=False).ids)
        finally:
            self._rust.encode_special_tokens = False

    def _parts(self, text: str) -> list[str]:
        """The text in parts that the tokenizer tokenizes by themselves, and the characters of typed tokens."""
        if self._quote is None:
            return self._between(text)
        segments = filter(None, self._quote.split(text))
        return [part for each in segments for part in ([each] if each in self._quotes else self._between(each))]

    def _between(self, text: str) -> list[str]:
        """The text in parts that the tokenizer tokenizes by themselves."""
        if self._begins_part is None:
            return [text]
        starts = [match.start() for match in self._begins_part.finditer(text)]
        bounds = [0, *(start for start in starts if start), len(text)]
        return [text[start:end] for start, end in pairwise(bounds)]

    def _tokenized(self, texts: list[str]) -> list[Tokens]:
        with row_errors("is refused by the model's tokenizer"):
            if self._rust is None:
                return [
                    list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts
                ]
            return [encoded.ids for encoded in self._rust.encode_batch_fast(texts, add_special_tokens=False)]


def rust_tokenizer(tokenizer: Any) -> Tokenizer | None:
    """The Rust tokenizer whose tokens a tokenizer returns unchanged, without truncation and padding; None if there is none."""
    if not isinstance(tokenizer, TokenizerFile) and not _is_plain(tokenizer):
        return None
    rust: Tokenizer = tokenizer.backend_tokenizer
    if rust.truncation is not None:
        rust.no_truncation()
    if rust.padding is not None:
        rust.no_padding()
    return None if rust.encode_special_tokens else rust


def _is_plain(tokenizer: Any) -> bool:
    """Whether a tokenizer of transformers adds nothing of its own to the tokens of the Rust tokenizer."""
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    kind = type(tokenizer)
    return (
        issubclass(kind, PreTrainedTokenizerFast)
        and kind.__call__ is PreTrainedTokenizerBase.__call__
        and kind._encode_plus is PreTrainedTokenizerFast._encode_plus
        and not tokenizer.split_special_tokens
    )


def part_starts(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """A pattern of the added tokens with which parts of a text begin; None if the tokens of a text may not be those of its parts.

    Those that are found in the normalized text do not begin a part. The tokenizer takes the first and longest match, and with
    `lstrip` or `single_word` the text before the token decides.
    """
    added = [token for token in tokenizer.get_added_tokens_decoder().values() if not token.normalized]
    if not added or any(token.lstrip or token.single_word or token.content[:1].isspace() for token in added):
        return None
    longest_first = sorted((token.content for token in added), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))
