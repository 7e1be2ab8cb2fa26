"""Encodings that are completed together have the results of each on its own, in their order."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.runtime.data.families import FAMILIES
from tests.unit.runtime.data.loading import chat, dropped, given_files, read, with_template
from tests.unit.runtime.data.test_every_row import shapes
from tunesmith_api.training import LossOn, Truncation
from tunesmith_runtime.data import encoding as module
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.encoding import Encoding, Known, complete_all
from tunesmith_runtime.data.records import Continuation, Conversation, Preference, Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import Work


class OneByOne:
    """A tokenizer of which neither the Rust part is called nor the template traced."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, **options: Any) -> Any:
        return self._tokenizer(text, **options)

    def apply_chat_template(self, *arguments: Any, **options: Any) -> Any:
        return self._tokenizer.apply_chat_template(*arguments, **options)


def outcome(encoder: Encoder, result: Any) -> Any:
    """The examples of a record, why it is dropped, or its error."""
    try:
        made = result()
        return made if isinstance(made, DropReason) else encoder.fit(made)
    except (RowError, RunFailure) as error:
        return f"{type(error).__name__}: {error}"


def records_of(rows: Sequence[dict[str, Any]]) -> list[Record]:
    """The records of rows that their format keeps."""
    found: list[Record] = []
    for row in rows:
        try:
            record = formats.read(row, formats.detect(row))
        except (RowError, RunFailure):
            continue
        if not isinstance(record, DropReason):
            found.append(record)
    return found


answers = st.sampled_from(["fruit", "a metal", "tin<|im_end|>"])
preferences = st.builds(lambda a, b: Preference(Continuation("kiwi? ", a), Continuation("kiwi? ", b)), answers, answers)
SETTINGS = [
    {"truncation": truncation, "max_length": length, "loss_on": loss_on}
    for truncation in Truncation
    for length, loss_on in ((4096, LossOn.ANSWER), (24, LossOn.ANSWER), (24, LossOn.ALL))
]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rows_encoded_together_are_those_encoded_one_by_one(
    tokenizer: Any, family: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ENCODINGS", 3)
    changed = with_template(tokenizer, FAMILIES[family])
    chosen = data.draw(st.sampled_from(SETTINGS))
    rows = data.draw(st.lists(shapes["messages"] | shapes["promptCompletion"] | shapes["text"], min_size=1, max_size=8))
    records = [*records_of(rows), *data.draw(st.lists(preferences, max_size=2))]
    stops = frozenset([tokenizer.eos_token_id])
    together, alone = (Encoder(each, stops, **chosen) for each in (changed, OneByOne(changed)))
    made = complete_all(((record, 1, together.examples(record)) for record in records), together.tokenize)
    found = [(record, outcome(together, begun.result)) for record, begun in made]
    assert [record for record, _ in found] == records
    for record, result in found:
        single = module.Begun(alone.examples(record))
        while single.texts is not None:
            single.proceed(alone.tokenize(single.texts, {}))
        assert result == outcome(alone, single.result)


def test_the_size_of_a_batch_changes_nothing(work: Work, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [
        chat(("user", "kiwi?"), ("assistant", "fruit")),
        chat(("user", "kiwi?"), ("assistant", " ")),
        chat(("user", "a" * 300), ("assistant", "fruit")),
        chat(("user", "kiwi?"), ("assistant", "metal"), ("user", "no?"), ("assistant", "fruit")),
        b"{",
        chat(("user", "kiwi?")),
        chat(("assistant", "fruit")),
        {"messages": 5},
        chat(("user", "tin?"), ("assistant", "metal")),
    ]
    found = []
    for size in (1, 2, 256):
        monkeypatch.setattr(module, "BATCH_ENCODINGS", size)
        given_files(work, (0, rows))
        data = read(work, tokenizer, onBadRow="Drop", maxBadShare=1, training={"maxLength": 64})
        found.append((data.rows, dropped(work), data.train[:]))
    assert found[0] == found[1] == found[2]
    assert found[0][0].kept == 3
    assert {each.reason: each.count for each in found[0][0].dropped} == {
        "BadRow": 2, "EmptyAnswer": 1, "NoAnswer": 1, "NoPrompt": 1, "TooLong": 1,
    }  # fmt: skip


def waits(text: str) -> Encoding[list[int]]:
    """An encoding of two steps."""
    [first] = yield [text]
    [second] = yield [text * 2]
    return first + second


def lengths(texts: Sequence[str], known: Known) -> list[list[int] | RowError]:
    return [RowError("refused") if "!" in text else [len(text)] for text in texts]


def test_an_error_of_the_rows_is_raised_after_the_rows_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_ENCODINGS", 2)

    def rows() -> Iterator[tuple[int, int, Encoding[list[int]]]]:
        for number in range(5):
            yield number, 1, waits("a" * number)
        raise ValueError("the file ends here")

    completed = complete_all(rows(), lengths)
    found = [(number, begun.result()) for number, begun in islice(completed, 5)]
    with pytest.raises(ValueError, match="ends here"):
        next(completed)
    assert found == [(number, [number, 2 * number]) for number in range(5)]


def test_a_text_that_the_tokenizer_refuses_fails_its_own_row_only() -> None:
    made = list(complete_all([(text, 1, waits(text)) for text in ("a", "b!", "cc")], lengths))
    assert [begun.result() for text, begun in made if text != "b!"] == [[1, 2], [2, 4]]
    with pytest.raises(RowError, match="refused"):
        made[1][1].result()


def test_a_batch_ends_with_its_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 100)
    begun: list[int] = []

    def rows() -> Iterator[tuple[int, int, Encoding[list[int]]]]:
        for number in range(9):
            begun.append(number)
            yield number, 60, waits("a")

    next(complete_all(rows(), lengths))
    assert begun == [0, 1, 2, 3]


def test_rows_are_tokenized_in_a_thread_that_ends_with_them() -> None:
    threads = set()

    def tokenize(texts: Sequence[str], known: Known) -> list[list[int] | RowError]:
        threads.add(threading.current_thread().name)
        return lengths(texts, known)

    before = threading.active_count()
    completed = complete_all(((number, 1, waits("a")) for number in range(1000)), tokenize)
    next(completed)
    completed.close()
    assert threading.active_count() == before
    assert any(name.startswith("tokens") for name in threads)


def test_a_conversation_is_tokenized_once(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = copy.deepcopy(tokenizer)
    encoder = Encoder(changed, frozenset([tokenizer.eos_token_id]), 4096)
    seen: list[str] = []
    tokenized = encoder.tokenize._tokenized

    def recorded(texts: list[str]) -> list[list[int]]:
        seen.extend(texts)
        return tokenized(texts)

    monkeypatch.setattr(encoder.tokenize, "_tokenized", recorded)
    turns = [{"role": ("user", "assistant")[at % 2], "content": f"text {at}"} for at in range(20)]
    encoder.encode(Conversation(turns))
    assert sorted(text for text in seen if "text" in text) == sorted(
        f"<|im_start|>{turn['role']}\n{turn['content']}" for turn in turns
    )
