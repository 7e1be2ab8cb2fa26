"""Property: a row of any shape is kept, dropped or refused by its line, with each family of chat templates."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.runtime.data.families import FAMILIES
from tests.unit.runtime.data.loading import ALL_RECORDS, given_files, read, with_template
from tunesmith_api.datasets import RowFormat
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.formats import FORMATS
from tunesmith_runtime.data.records import Record
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import Work

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", " ", "<|im_end|>", "a?b", "<think>x</think>y", "{}"]
)


nonempty = words.filter(str.strip)


wrong = st.sampled_from([None, 5, True, [], {}, "x", ["x"], {"a": 1}, 0.5])


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of the right type, and now and then of a wrong type."""
    return st.integers(0, 19).flatmap(lambda number: right if number else wrong)


calls = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {"name": mostly(nonempty), "arguments": mostly(st.sampled_from(["{}", '{"city": "Oslo"}', "", {"a": [1]}]))}
        )
    },
    optional={"id": mostly(words), "type": mostly(st.just("function"))},
)


questions = st.fixed_dictionaries(
    {"role": st.just("user"), "content": mostly(nonempty)}, optional={"name": mostly(nonempty)}
)


answers = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": mostly(words)},
    optional={
        "tool_calls": mostly(st.lists(calls, max_size=2)),
        "reasoning_content": mostly(words),
        "weight": mostly(st.sampled_from([0, 1, 0.5])),
        "extra": wrong,
    },
)


tool_results = st.fixed_dictionaries(
    {"role": st.just("tool"), "content": mostly(words), "tool_call_id": mostly(words), "name": mostly(words)}
)


instructions = st.fixed_dictionaries({"role": st.sampled_from(["system", "developer"]), "content": mostly(words)})


exchanges = st.tuples(questions, st.builds(lambda text: {"role": "assistant", "content": text}, nonempty)).map(list)


message_lists = st.lists(
    exchanges | st.lists(questions | answers | tool_results | instructions, max_size=2), max_size=3
).map(lambda parts: [turn for part in parts for turn in part])


sharegpt_pairs = st.tuples(nonempty, nonempty).map(lambda texts: [("human", texts[0]), ("gpt", texts[1])])


sharegpt_calls = st.just([("function_call", '{"name": "f"}'), ("observation", "4")]) | st.just(
    [("system", "Be brief.")]
)


sharegpt_turns = st.lists(sharegpt_pairs | sharegpt_calls, max_size=3).map(
    lambda parts: [{"from": source, "value": value} for part in parts for source, value in part]
) | st.lists(st.fixed_dictionaries({"from": mostly(st.just("human")), "value": mostly(words)}), max_size=2)


schemas = mostly(st.lists(st.fixed_dictionaries({"name": mostly(nonempty)}), max_size=2))


shapes = {
    "messages": st.fixed_dictionaries(
        {"messages": mostly(message_lists)}, optional={"tools": schemas, "system": mostly(words)}
    ),
    "sharegpt": st.fixed_dictionaries(
        {"conversations": mostly(sharegpt_turns)}, optional={"tools": schemas, "system": mostly(words)}
    ),
    "promptCompletion": st.fixed_dictionaries({"prompt": mostly(words), "completion": mostly(words)})
    | st.fixed_dictionaries(
        {"prompt": mostly(message_lists), "completion": mostly(st.lists(answers, min_size=1, max_size=1))},
        optional={"system": mostly(words), "label": mostly(st.just(3))},
    ),
    "alpaca": st.fixed_dictionaries(
        {"instruction": mostly(words), "output": mostly(words)},
        optional={
            "input": mostly(words),
            "system": mostly(words),
            "history": mostly(st.lists(st.lists(words, min_size=2, max_size=2), max_size=2)),
        },
    ),
    "queryResponse": st.fixed_dictionaries(
        {"question": mostly(words), "answer": mostly(words)},
        optional={"context": mostly(words), "system": mostly(words)},
    ),
    "text": st.fixed_dictionaries({"text": mostly(words)}, optional={"source": wrong}),
}


verdicts = st.sampled_from([True, False, 1, 0, "true", 0.5, [0, 2], "spam"])


pictures = st.sampled_from(["a.jpg", "b/c.png", "https://host/a.jpg", "../a.jpg", ""])


further_shapes = {
    "preference": st.fixed_dictionaries(
        {"chosen": mostly(words), "rejected": mostly(words)}, optional={"prompt": mostly(words), "margin": verdicts}
    )
    | st.fixed_dictionaries(
        {"prompt": mostly(message_lists), "chosen": mostly(exchanges), "rejected": mostly(exchanges)}
    )
    | st.fixed_dictionaries({"messages": mostly(message_lists), "rejected_response": mostly(words)}),
    "feedback": st.fixed_dictionaries({"messages": mostly(message_lists), "label": mostly(verdicts)})
    | st.fixed_dictionaries({"prompt": mostly(words), "completion": mostly(words), "kto_tag": mostly(verdicts)}),
    "prompt": st.fixed_dictionaries({"prompt": mostly(words) | mostly(message_lists)}, optional={"answer": wrong}),
    "classification": st.fixed_dictionaries(
        {"text": mostly(words), "label": mostly(verdicts)},
    )
    | st.fixed_dictionaries({"messages": mostly(message_lists), "label": mostly(verdicts)}),
    "embedding": st.fixed_dictionaries(
        {"anchor": mostly(words), "positive": mostly(words)}, optional={"negative": mostly(words), "score": verdicts}
    )
    | st.fixed_dictionaries(
        {"messages": mostly(message_lists), "positive_messages": mostly(st.lists(message_lists, max_size=2))},
        optional={"label": verdicts},
    ),
    "vqa": st.fixed_dictionaries(
        {"image_path": mostly(pictures), "text": mostly(words), "answer": mostly(words)},
    )
    | st.fixed_dictionaries({"messages": mostly(message_lists), "images": mostly(st.lists(pictures, max_size=2))}),
    "caption": st.fixed_dictionaries({"image": mostly(pictures), "caption": mostly(words)}),
    "transcription": st.fixed_dictionaries({"audio": mostly(pictures), "text": mostly(words)}),
}
"""Those of other methods than sft."""


WITH_MEDIA = ("vqa", "caption", "transcription")


def test_every_format_has_rows() -> None:
    assert shapes.keys() | further_shapes.keys() == FORMATS.keys()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("form", sorted(shapes))
def test_every_row_is_kept_dropped_or_refused_by_its_line(
    work: Work, tokenizer: Any, family: str, form: str, data: st.DataObject
) -> None:
    check(work, with_template(tokenizer, FAMILIES[family]), form, shapes[form], ALL_RECORDS, data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("form", sorted(further_shapes))
def test_so_is_every_row_of_other_methods(work: Work, tokenizer: Any, form: str, data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(sorted(FAMILIES)))
    records = FORMATS[RowFormat(form)].records
    check(work, with_template(tokenizer, FAMILIES[family]), form, further_shapes[form], records, data)


def check(
    work: Work,
    tokenizer: Any,
    form: str,
    shape: st.SearchStrategy[dict[str, Any]],
    records: frozenset[type[Record]],
    data: st.DataObject,
) -> None:
    """Read some rows, and check that each is accounted for."""
    rows = data.draw(st.lists(shape, min_size=1, max_size=3))
    handling = data.draw(st.sampled_from(({}, {"onBadRow": "Drop", "maxBadShare": 1})))
    given_files(work, (0, rows))
    dataset = {"uri": "s3://data/part-0/train.jsonl", "format": form}
    refused: RunFailure | None = None
    counted = 0
    try:
        summary = read(work, tokenizer, records, datasets=[dataset], **handling).rows
        counted = summary.kept + sum(entry.count for entry in summary.dropped or [])
    except RunFailure as failure:
        refused = failure
    if refused is None:
        assert counted == len(rows)
    elif refused.failure is FailureClass.BAD_SPEC:
        assert form in WITH_MEDIA  # the model of these tests reads text alone
    elif refused.failure is not FailureClass.EMPTY_DATASET:
        assert not handling or refused.failure is FailureClass.CHAT_TEMPLATE_MISSING
        assert refused.failure in (FailureClass.BAD_ROW, FailureClass.CHAT_TEMPLATE_MISSING)
        assert refused.message.startswith("train.jsonl line ")
