"""Duplicates: equal texts but for white space, found in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.data.duplicates import SLOTS, Digests, digest_of
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText, Preference, Record


def chat(question: str, answer: str = "4") -> Conversation:
    return Conversation([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (PlainText("a b"), PlainText(" a\n\tb ")),
        (PlainText("caf\u00e9"), PlainText("cafe\u0301")),
        (chat("2 + 2?"), chat("2 +  2?\n")),
    ],
)
def test_white_space_and_composition_make_no_difference(ours: Record, theirs: Record) -> None:
    assert digest_of(ours) == digest_of(theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (PlainText("a b"), PlainText("ab")),
        (PlainText("a"), PlainText("A")),
        (Continuation("a b", "c"), Continuation("a", "b c")),
        (PlainText("a"), Continuation("a", "")),
        (chat("a", "b"), chat("b", "a")),
        (Conversation(chat("a").messages, learn_from=1), Conversation(chat("a").messages)),
        (Preference(chat("a", "b"), chat("a", "c")), Preference(chat("a", "c"), chat("a", "b"))),
    ],
)
def test_another_text_or_another_place_of_it_is_another_row(ours: Record, theirs: Record) -> None:
    assert digest_of(ours) != digest_of(theirs)


@given(added=st.lists(st.binary(min_size=16, max_size=16) | st.just(bytes(16)), max_size=50))
def test_a_digest_is_new_once(added: list[bytes]) -> None:
    digests, seen = Digests(), set[bytes]()
    for digest in added:
        assert digests.add(digest) == (digest not in seen)
        seen.add(digest)
    assert len(digests) == len(seen)


def test_the_table_takes_at_most_48_bytes_for_each_row() -> None:
    digests = Digests()
    count = 2 * SLOTS
    for number in range(count):
        assert digests.add(digest_of(PlainText(str(number))))
    assert not any(digests.add(digest_of(PlainText(str(number)))) for number in range(count))
    assert digests.size_bytes <= 48 * count
