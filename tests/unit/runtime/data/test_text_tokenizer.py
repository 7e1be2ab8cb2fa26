"""Texts in parts have the tokens of whole texts; a tokenizer of which this is not certain gets whole texts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tunesmith_runtime.data.text_tokenizer import TextTokenizer, part_starts, rust_tokenizer

pieces = st.lists(
    st.text(max_size=6)
    | st.sampled_from(["<|im_start|>", "<|im_end|>", "<|im_", "\n", " ", "user\n", "▁", "kiwi", "<a>", "<a>b"]),
    max_size=10,
).map("".join)


def sentencepiece(scheme: str) -> Tokenizer:
    """Tokens of characters with Metaspace, as in models made of SentencePiece files."""
    vocabulary = {character: at for at, character in enumerate("▁abcdefghijklmnopqrstuvwxyz\n<|_>?")}
    made = Tokenizer(models.BPE({**vocabulary, "<unk>": 99, "▁k": 100, "ki": 101, "▁ki": 102}, [("▁", "k"), ("k", "i"), ("▁k", "i")], unk_token="<unk>"))  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.add_special_tokens([AddedToken("<|im_start|>", normalized=False), AddedToken("<|im_end|>", normalized=False, rstrip=True)])  # fmt: skip
    made.add_tokens([AddedToken("<a>", normalized=True), AddedToken("<a>b", normalized=False)])
    return made


@given(texts=st.lists(pieces, min_size=1, max_size=5))
def test_texts_have_the_tokens_that_calls_of_the_tokenizer_return(tokenizer: Any, texts: list[str]) -> None:
    made = TextTokenizer(tokenizer)
    assert made._begins_part is not None
    assert made(texts, {}) == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


@given(texts=st.lists(pieces, min_size=1, max_size=5))
@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_parts_keep_what_depends_on_the_start_of_a_text(tokenizer: Any, scheme: str, texts: list[str]) -> None:
    rust = sentencepiece(scheme)
    made = TextTokenizer(tokenizer)
    made._rust, made._begins_part = rust, part_starts(rust)
    assert made._begins_part is not None
    assert made(texts, {}) == [rust.encode(text, add_special_tokens=False).ids for text in texts]


@pytest.mark.parametrize("option", ["lstrip", "single_word"])
def test_tokens_that_depend_on_the_text_before_them_begin_no_part(option: str) -> None:
    rust = sentencepiece("always")
    rust.add_special_tokens([AddedToken("<mask>", normalized=False, **{option: True})])
    assert part_starts(rust) is None


def test_a_tokenizer_with_a_way_of_its_own_is_called_text_by_text(tokenizer: Any) -> None:
    class Upper(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, text: str, **options: Any) -> Any:
            return super().__call__(text.upper(), **options)

    own = copy.deepcopy(tokenizer)
    own.__class__ = Upper
    assert rust_tokenizer(tokenizer) is not None
    assert rust_tokenizer(own) is None
    assert TextTokenizer(own)(["kiwi"], {}) == [tokenizer("KIWI", add_special_tokens=False)["input_ids"]]


def test_truncation_and_padding_of_the_file_are_not_applied(tokenizer: Any) -> None:
    limited = copy.deepcopy(tokenizer)
    limited.backend_tokenizer.enable_truncation(2)
    limited.backend_tokenizer.enable_padding(length=64)
    assert TextTokenizer(limited)(["kiwi fruit apple"], {}) == [
        tokenizer("kiwi fruit apple", add_special_tokens=False)["input_ids"]
    ]
