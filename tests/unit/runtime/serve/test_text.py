from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tinymodel import make_tokenizer
from tunesmith_runtime.serve.generation.text import Detokenizer, StopMatcher, StopStrings
from tunesmith_runtime.serve.generation.tokens import Tokens

TOKENIZER = make_tokenizer()


def decode(tokens: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pieces(tokens: Sequence[int]) -> list[str]:
    stream = Detokenizer(decode)
    return [*(stream.push(token) for token in tokens), stream.finish()]


@given(st.text(max_size=40))
def test_pieces_of_a_text_join_to_the_text(text: str) -> None:
    assert "".join(pieces(TOKENIZER(text)["input_ids"])) == text


@given(st.lists(st.integers(3, 511), max_size=30))
def test_pieces_of_any_tokens_join_to_their_text(tokens: list[int]) -> None:
    assert "".join(pieces(tokens)) == decode(tokens)


def test_no_piece_contains_part_of_a_character() -> None:
    released = pieces(TOKENIZER("ein Öl für 3 €, 你好, 🦦!")["input_ids"])
    assert not [piece for piece in released if "\N{REPLACEMENT CHARACTER}" in piece]
    assert len([piece for piece in released if piece]) > 5


CHUNKS = st.lists(st.text("abc", max_size=3), max_size=12)


@given(CHUNKS, st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_stop_string_is_never_released(chunks: list[str], stops: list[str]) -> None:
    cut = StopStrings(stops)
    released = "".join([*(cut.push(chunk) for chunk in chunks), cut.finish()])
    text = "".join(chunks)
    assert text.startswith(released)
    assert not [stop for stop in stops if stop in released]
    assert cut.stopped == any(stop in text for stop in stops)
    if not cut.stopped:
        assert released == text


@given(CHUNKS, st.text("abc", min_size=1, max_size=3))
def test_a_stop_string_cuts_the_text_right_before_it(chunks: list[str], stop: str) -> None:
    cut = StopStrings([stop])
    released = "".join([*(cut.push(chunk) for chunk in chunks), cut.finish()])
    assert released == "".join(chunks).split(stop)[0]


def test_text_that_begins_no_stop_string_is_released_immediately() -> None:
    cut = StopStrings(["\n\n"])
    assert cut.push("one") == "one"
    assert cut.push("\n") == ""
    assert cut.push("two") == "\ntwo"


SPECIALS = Tokens(TOKENIZER).specials
START = SPECIALS["<|im_start|>"]
END = SPECIALS["<|endoftext|>"]


def ended(stops: Sequence[str], tokens: Sequence[int]) -> tuple[str, bool]:
    """The text of an answer of these tokens, and whether a stop string ended it."""
    stream, matcher, released = Detokenizer(decode), StopMatcher(stops, SPECIALS), []
    for token in tokens:
        released.append(matcher.push(stream.push(token), token))
        if matcher.stopped:
            return "".join(released), True
    return "".join([*released, matcher.finish(stream.finish())]), matcher.stopped


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text)["input_ids"])


STOPPED = {
    "a special token": (["<|im_start|>"], "one<|im_start|>two", "one"),
    "a special token at the beginning": (["<|im_start|>"], "<|im_start|>two", ""),
    "a special token behind text": (["!<|im_start|>"], "one!<|im_start|>two", "one"),
    "a special token before text": (["<|im_start|>user"], "one<|im_start|>user two", "one"),
    "two special tokens": (["<|im_start|><|endoftext|>"], "one<|im_start|><|endoftext|>", "one"),
    "text that begins a special stop string and a plain one": (["b<|im_start|>", "bc"], "abc<|im_start|>", "a"),
    "the first of several": (["two", "<|im_start|>"], "one<|im_start|>two", "one"),
    "plain text with a special token inside": (["wo"], "tw<|im_start|>o", "t"),
    "characters of several bytes": (["你好"], "ein 你好, 你", "ein "),
    "a stop string that begins inside a token": (["kiw"], "a kiwi", "a "),
    "a character of four bytes": (["🦦"], "an 🦦 otter", "an "),
    "a NUL": (["\x00"], "a\x00b", "a"),
}


@pytest.mark.parametrize("case", STOPPED)
def test_an_answer_ends_before_a_stop_string_of_any_tokens(case: str) -> None:
    stops, text, expected = STOPPED[case]
    assert ended(stops, ids(text)) == (expected, True)


NOT_STOPPED = {
    "another special token": (["<|im_start|>"], "one<|endoftext|>two", "onetwo"),
    "a special token without the text before it": (["!<|im_start|>"], "one<|im_start|>!", "one!"),
    "a special token and other text": (["<|im_start|>user"], "<|im_start|>us", "us"),
    "half of a character": (["你"], "\u4f61", "\u4f61"),
}


@pytest.mark.parametrize("case", NOT_STOPPED)
def test_an_answer_continues_after_a_partial_stop_string(case: str) -> None:
    stops, text, expected = NOT_STOPPED[case]
    assert ended(stops, ids(text)) == (expected, False)


def test_the_name_of_a_special_token_in_plain_text_is_a_stop_string_too() -> None:
    spelled = [token for character in "a<|im_start|>b" for token in ids(character)]
    assert START not in spelled
    assert ended(["<|im_start|>"], spelled) == ("a", True)


@given(
    st.lists(st.sampled_from([*SPECIALS.values(), *ids("QZ")]), max_size=12),
    st.lists(st.sampled_from(["Q", "ZQ", *SPECIALS, "Q<|im_start|>", "<|endoftext|>Z"]), min_size=1, max_size=3),
)
def test_no_answer_has_a_stop_string(tokens: list[int], stops: list[str]) -> None:
    whole = TOKENIZER.decode(tokens)
    released, stopped = ended(stops, tokens)
    assert not [stop for stop in stops if stop in released]
    assert stopped or not [stop for stop in stops if stop in whole]
    assert stopped or released == decode(tokens)
