"""Bytes and texts of single tokens, by the two ways in which tokenizers write bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tinymodel import make_tokenizer
from tunesmith_runtime.serve.generation.text import REPLACEMENT, WINDOW, Detokenizer
from tunesmith_runtime.serve.generation.tokens import Tokens, byte_alphabet

MULTI_BYTE = "ein Öl für 3 €, 你好, 🦦! \N{REPLACEMENT CHARACTER} \x00\n"


def make_fallback_tokenizer() -> Any:
    """A tokenizer as SentencePiece makes them: a few pieces, and a token of each byte for all else."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["\u2581", "h", "i", "e", "n", "\u2581h", "\u2581hi", "\u00e9"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    merges = [("\u2581", "h"), ("\u2581h", "i")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


TOKENIZERS = {"byte-level": make_tokenizer(), "byte fallback": make_fallback_tokenizer()}
tokenizers = pytest.mark.parametrize("kind", TOKENIZERS)


def encoded(kind: str, text: str) -> list[int]:
    return list(TOKENIZERS[kind](text, add_special_tokens=False)["input_ids"])


def pieces(kind: str, tokens: Sequence[int]) -> list[str]:
    stream = Detokenizer(lambda ids: str(TOKENIZERS[kind].decode(list(ids), skip_special_tokens=True)))
    return [*(stream.push(token) for token in tokens), stream.finish()]


def test_the_byte_alphabet_equals_gpt2s() -> None:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    assert byte_alphabet() == {character: byte for byte, character in bytes_to_unicode().items()}


@given(st.text(max_size=40) | st.just(MULTI_BYTE))
@tokenizers
def test_the_bytes_of_the_tokens_of_a_text_are_its_bytes(kind: str, text: str) -> None:
    tokens = Tokens(TOKENIZERS[kind])
    raw = b"".join(tokens.bytes_of(token) or b"?" for token in encoded(kind, text))
    assert raw.decode() == (f" {text}" if kind == "byte fallback" and text else text)


@tokenizers
def test_part_of_a_character_is_written_as_bytes(kind: str) -> None:
    tokens = Tokens(TOKENIZERS[kind])
    own = encoded(kind, "好")[-3:]
    assert [tokens.bytes_of(token) for token in own] == [b"\xe5", b"\xa5", b"\xbd"]
    assert [tokens.text_of(token) for token in own] == ["\\xe5", "\\xa5", "\\xbd"]


@tokenizers
def test_no_token_is_written_as_a_replacement_character(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = Tokens(tokenizer)
    assert not [token for token in range(len(tokenizer)) if REPLACEMENT in tokens.text_of(token)]


@tokenizers
def test_every_special_token_has_its_text_and_is_left_out_of_answers(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = Tokens(tokenizer)
    assert set(tokens.specials.values()) == set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    for text, token in tokens.specials.items():
        assert tokens.text_of(token) == text
        assert tokens.bytes_of(token) == text.encode()
        assert encoded(kind, text)[-1] == token
        assert "".join(pieces(kind, [*encoded(kind, "hi"), token, *encoded(kind, "é")])) == "".join(
            pieces(kind, [*encoded(kind, "hi"), *encoded(kind, "é")])
        )


def test_an_id_without_a_token_has_no_bytes() -> None:
    tokens = Tokens(TOKENIZERS["byte-level"])
    assert tokens.bytes_of(600) is None
    assert tokens.text_of(600) == "token_id:600"


@given(st.text(max_size=60) | st.just(MULTI_BYTE))
@tokenizers
def test_pieces_join_to_the_text_without_partial_characters(kind: str, text: str) -> None:
    decoded = pieces(kind, encoded(kind, text))
    assert "".join(decoded) == text


@given(st.lists(st.integers(3, 265), max_size=120))
@tokenizers
def test_bytes_that_are_not_text_are_decoded_in_short_windows(kind: str, tokens: list[int]) -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return str(TOKENIZERS[kind].decode(list(ids), skip_special_tokens=True))

    stream = Detokenizer(decode)
    decoded = "".join([*(stream.push(token) for token in tokens), stream.finish()])
    assert stream.length == len(decoded)
    assert longest <= 2 * WINDOW + 2
    if kind == "byte-level":
        assert decoded == TOKENIZERS[kind].decode(tokens)
