from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.tinymodel import make_tokenizer
from tunesmith_runtime.serve.generation.text import Detokenizer, StopStrings

TOKENIZER = make_tokenizer()


def decode(tokens: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pieces(tokens: Sequence[int]) -> list[str]:
    stream = Detokenizer(decode)
    return [*(stream.push(token) for token in tokens), stream.finish()]


@given(st.text(max_size=40))
def test_the_pieces_of_a_text_make_the_text(text: str) -> None:
    assert "".join(pieces(TOKENIZER(text)["input_ids"])) == text


@given(st.lists(st.integers(3, 511), max_size=30))
def test_the_pieces_of_any_tokens_make_their_text(tokens: list[int]) -> None:
    assert "".join(pieces(tokens)) == decode(tokens)


def test_no_piece_holds_half_a_character() -> None:
    told = pieces(TOKENIZER("ein Öl für 3 €, 你好, 🦦!")["input_ids"])
    assert not [piece for piece in told if "\N{REPLACEMENT CHARACTER}" in piece]
    assert len([piece for piece in told if piece]) > 5


CHUNKS = st.lists(st.text("abc", max_size=3), max_size=12)


@given(CHUNKS, st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3))
def test_no_stop_string_is_ever_told(chunks: list[str], stops: list[str]) -> None:
    cut = StopStrings(stops)
    told = "".join([*(cut.push(chunk) for chunk in chunks), cut.finish()])
    text = "".join(chunks)
    assert text.startswith(told)
    assert not [stop for stop in stops if stop in told]
    assert cut.stopped == any(stop in text for stop in stops)
    if not cut.stopped:
        assert told == text


@given(CHUNKS, st.text("abc", min_size=1, max_size=3))
def test_a_stop_string_cuts_the_text_right_before_it(chunks: list[str], stop: str) -> None:
    cut = StopStrings([stop])
    told = "".join([*(cut.push(chunk) for chunk in chunks), cut.finish()])
    assert told == "".join(chunks).split(stop)[0]


def test_text_that_begins_no_stop_string_is_told_at_once() -> None:
    cut = StopStrings(["\n\n"])
    assert cut.push("one") == "one"
    assert cut.push("\n") == ""
    assert cut.push("two") == "\ntwo"
