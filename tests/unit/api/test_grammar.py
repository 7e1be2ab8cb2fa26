"""Texts that a spec accepts, and the refusals of others."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tests.apiserver.sentences import PLACES, REFUSED, Place, followed
from tunesmith_api.base import DataUri, ModelUri, StoreUri
from tunesmith_api.grammar import CONTROL, SPACES, Grammar, Slip, cel, found

ROWS = [(text, value) for text, rows in REFUSED.items() for value in rows]


@pytest.mark.parametrize(("text", "value"), ROWS)
def test_the_text_that_a_refusal_proposes_is_accepted(text: str, value: str) -> None:
    place, sentence = PLACES[text], REFUSED[text][value]
    assert not place.grammar.admits(value)
    assert place.grammar.sentence(value) == sentence
    assert place.grammar.admits(followed(place, value, sentence))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@given(value=st.text(max_size=60))
def test_every_text_that_a_refusal_proposes_is_accepted(place: Place, value: str) -> None:
    grammar = place.grammar
    if not grammar.admits(value):
        guess = grammar._guess(value)
        assert grammar.sentence(value).endswith(f": write {guess}") == grammar.admits(guess)


@pytest.mark.parametrize(
    ("kind", "uri"),
    [
        (ModelUri, "hf://openai/gpt-oss-20b@refs/pr/1"),
        (ModelUri, "hf://01-ai/Yi-1.5-9B"),
        (ModelUri, "ms://AI-ModelScope/Qwen_2.5@v1.0.0"),
        (ModelUri, "s3://my-models.v2/team/a"),
        (ModelUri, "https://models.example.com/v1/qwen3-8b-q4.gguf"),
        (ModelUri, "https://10.0.0.7:8443/a/b/model.tar.zst"),
        (ModelUri, "https://example.com/model.safetensors"),
        (DataUri, "s3://bucket/数据/训练集.jsonl"),
        (DataUri, "s3://bucket/données/é.jsonl"),
        (DataUri, "s3://bucket/date=2026-01-01/part-0000.jsonl"),
        (DataUri, "s3://bucket/a+b/c@d/e~f/(g)/[h]/i'j/$k/l!m&n;o:p,q"),
        (DataUri, "s3://bucket/.hidden/..data/...jsonl/a..b"),
        (DataUri, "s3://bucket/50%/100%-of-it.jsonl"),
        (DataUri, "file:///data/my%20train.jsonl"),
        (StoreUri, "s3://bucket"),
        (StoreUri, "s3://bucket/"),
        (StoreUri, "s3://abc/x"),
        (StoreUri, "s3://1.2.3.bucket/x"),
    ],
)
def test_every_uri_that_a_store_or_hub_can_have_is_accepted(kind: object, uri: str) -> None:
    assert TypeAdapter(kind).validate_python(uri) == uri


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20))
def test_a_key_may_have_letters_of_every_script(name: str) -> None:
    name = "".join(each for each in name if each not in "\u115f\u1160\u3164\uffa0") + "x"
    assert PLACES["data"].grammar.admits(f"s3://bucket/{name}")


@given(st.characters(categories=["Cc", "Cf", "Co", "Zs", "Zl", "Zp"]), st.integers(0, 5))
def test_an_invisible_character_in_a_uri_is_refused(character: str, place: int) -> None:
    uri = "s3://bucket/folder/train.jsonl"
    uri = uri[: place * 6] + character + uri[place * 6 :]
    for text in ("data", "model", "output"):
        assert not PLACES[text].grammar.admits(uri)


def test_a_refusal_does_not_quote_credentials() -> None:
    for text, value in (
        ("data", "s3://key:word@bucket/x"),
        ("endpoint", "https://key:word@minio"),
        ("model", "s3://word@b"),
    ):
        with pytest.raises(ValidationError) as refusal:
            TypeAdapter(DataUri if text == "data" else ModelUri).validate_python(value)
        assert "word" not in refusal.value.errors()[0]["msg"]
        assert "word" not in PLACES[text].grammar.sentence(value)


def test_the_character_classes_are_those_of_unicode() -> None:
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category not in ("Cn", "Cs"):
            assert (re.match(f"[{CONTROL}]", chr(code)) is not None) == category.startswith("C"), hex(code)
            assert (re.match(f"[{SPACES}]", chr(code)) is not None) == category.startswith("Z"), hex(code)


def test_a_pattern_does_not_end_before_a_final_line_feed() -> None:
    assert found("a$", "a")
    assert not found("a$", "a\n")
    assert found(r"a\$", "a$")


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ('"a"', """'"a"'"""),
        ("it's", '"it\'s"'),
        (r"a\.b", r"r'a\.b'"),
        (r"it\'s", 'r"it\\\'s"'),
        ("\\'\"", r'''"\\'\""'''),
        ("\\\u200b\n", r"'\\\u200b\u000a'"),
    ],
)
def test_a_literal_of_cel_is_ascii_and_raw_if_it_has_backslashes(text: str, literal: str) -> None:
    assert cel(text) == literal


def test_the_first_slip_explains_and_the_grammar_advises_by_default() -> None:
    grammar = Grammar(
        "^a+$", "is no a", "write a", slips=(Slip("b", "has a b"), Slip("b|c", "has a b or c", "drop it"))
    )
    assert grammar.sentence("b") == '"b" has a b: write a'
    assert grammar.sentence("c") == '"c" has a b or c: drop it'
    assert grammar.sentence("d") == '"d" is no a: write a'
