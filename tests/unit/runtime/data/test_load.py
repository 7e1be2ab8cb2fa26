"""Reading data files: every row is used, counted as dropped, or refused with its file and line."""

from __future__ import annotations

import copy
import errno
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import tinymodel
from tests.unit.runtime.data.families import CHATML, FAMILIES, GEMMA, MISTRAL, QWEN3, TOOLS
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.data.dropped_rows import FILE
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.load import Data, load, load_stream, open_data
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText, Record
from tunesmith_runtime.data.row_counts import MAX_KEYS, OTHER_KEYS
from tunesmith_runtime.data.stream import Place
from tunesmith_runtime.data.text_encoder import PIECE
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import DataFile, Work

SOUND = {"prompt": "2 + 2 =", "completion": " 4"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tinymodel.make_tokenizer()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def given_files(work: Work, *files: tuple[int | None, list[Any]]) -> None:
    """Files as fetch leaves them: (index of the data set, rows or raw lines)."""
    entries = []
    for number, (dataset, rows) in enumerate(files):
        entries.append(DataFile(path=f"{number:02}.jsonl", uri=f"s3://data/part-{number}/train.jsonl", dataset=dataset))
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        work.data.mkdir(exist_ok=True)
        (work.data / entries[-1].path).write_bytes(b"\n".join(lines) + b"\n")
    work.write_data_files(entries)


ALL_RECORDS: frozenset[type[Record]] = frozenset({Conversation, Continuation, PlainText})


def read(work: Work, tokenizer: Any, learns_from: frozenset[type[Record]] = ALL_RECORDS, **spec: Any) -> Data:
    made = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/part-0/train.jsonl"}], **spec}
    job = FineTuneJobSpec.model_validate(made)
    return load(work, job, Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training), learns_from)


def with_template(tokenizer: Any, template: str) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def texts(tokenizer: Any, data: Data) -> list[str]:
    return [tokenizer.decode(example["input_ids"]) for example in data.train]


def learned(tokenizer: Any, data: Data) -> list[str]:
    """The text of the labels of each example."""
    return [tokenizer.decode([label for label in example["labels"] if label != IGNORED]) for example in data.train]


def chat(*turns: tuple[str, Any] | dict[str, Any], **row: Any) -> dict[str, Any]:
    """A row of messages from (role, content) or whole messages."""
    messages = [turn if isinstance(turn, dict) else {"role": turn[0], "content": turn[1]} for turn in turns]
    return {"messages": messages, **row}


ASKED, ANSWERED = ("user", "What is a kiwi?"), ("assistant", "fruit")
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"prompt": "2"', r"column \d+ is not JSON"),
        (b"[1, 2]", r"is a list; expected one JSON object"),
        (b'{"prompt": "\xff"}', r"byte \d+ is not UTF-8"),
        (b'{"prompt": "2"}', r"has no 'completion'"),
        (b'{"prompt": 2, "completion": "4"}', r"'prompt' is a number"),
    ],
)
def test_a_broken_row_in_line_17_is_named_by_file_and_line(
    work: Work, tokenizer: Any, line: bytes, sentence: str
) -> None:
    given_files(work, (0, [*[SOUND] * 15, b"", line, SOUND]))
    with pytest.raises(
        RunFailure, match=rf"^BadRow: train\.jsonl line 17: .*{sentence}.*s3://data/part-0/train\.jsonl"
    ) as failure:
        read(work, tokenizer)
    assert failure.value.failure is FailureClass.BAD_ROW


def test_dropped_rows_are_counted_by_reason(work: Work, tokenizer: Any) -> None:
    long = {"prompt": "2 " * 50, "completion": "4"}
    empty = {"prompt": "2", "completion": ""}
    given_files(work, (0, [SOUND, long, empty, SOUND, long]))
    rows = read(work, tokenizer, training={"maxLength": 32}).rows
    assert rows.to_dict() == {
        "kept": 2, "dropped": [{"reason": "EmptyAnswer", "count": 1}, {"reason": "TooLong", "count": 2}],
    }  # fmt: skip


def test_an_empty_file_is_an_empty_dataset(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, []))
    with pytest.raises(
        RunFailure, match=r"no row of s3://data/part-0/train\.jsonl can be used: there are none"
    ) as failure:
        read(work, tokenizer)
    assert failure.value.failure is FailureClass.EMPTY_DATASET


def test_a_data_set_of_dropped_rows_is_refused_with_their_reasons(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"prompt": "2", "completion": ""}] * 3))
    with pytest.raises(RunFailure, match="dropped 3 EmptyAnswer"):
        read(work, tokenizer)


def test_data_sets_are_read_in_order_each_in_its_own_format(work: Work, tokenizer: Any) -> None:
    given_files(work, (1, [{"text": "c"}]), (0, [{"prompt": "a", "completion": "b"}]))
    data = read(
        work, tokenizer, datasets=[{"uri": "s3://data/part-1/train.jsonl"}, {"uri": "s3://data/part-0/train.jsonl"}]
    )
    assert [tokenizer.decode(example["input_ids"]) for example in data.train] == ["ab<|im_end|>", "c<|im_end|>"]


def test_max_rows_takes_the_first_rows_of_a_data_set(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"text": "a"}, {"text": "b"}]), (0, [{"text": "c"}, b"not read"]))
    data = read(work, tokenizer, datasets=[{"uri": "s3://data/part-0/train.jsonl", "maxRows": 3}])
    assert data.rows.kept == 3


def test_columns_are_renamed(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"q": "2 + 2 =", "a": " 4"}]))
    dataset = {"uri": "s3://data/part-0/train.jsonl", "columns": {"q": "prompt", "a": "completion"}}
    assert read(work, tokenizer, datasets=[dataset]).rows.kept == 1


def test_a_format_that_sft_does_not_learn_from_is_refused(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND]))
    with pytest.raises(RunFailure, match=r"format preference: method sft learns from messages") as failure:
        read(work, tokenizer, datasets=[{"uri": "s3://data/part-0/train.jsonl", "format": "preference"}])
    assert failure.value.failure is FailureClass.BAD_SPEC


@pytest.mark.parametrize(
    ("form", "row", "refused"),
    [
        ("messages", chat(ASKED, ANSWERED), "datasets[].format messages"),
        ("auto", chat(ASKED, ANSWERED), "the row is of format messages"),
        ("auto", SOUND, "the row is of format promptCompletion"),
        ("preference", {"chosen": "a", "rejected": "b"}, "datasets[].format preference"),
        ("auto", {"prompt": "a", "chosen": "a", "rejected": "b"}, "the row is of format preference"),
        ("auto", {"anchor": "a", "positive": "b"}, "the row is of format embedding"),
    ],
)
def test_rows_of_a_record_that_the_method_does_not_learn_from_are_refused(
    work: Work, tokenizer: Any, form: str, row: dict[str, Any], refused: str
) -> None:
    given_files(work, (0, [row]))
    dataset = {"uri": "s3://data/part-0/train.jsonl", "format": form}
    with pytest.raises(RunFailure) as failure:
        read(work, tokenizer, learns_from=frozenset({PlainText}), datasets=[dataset])
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert f"{refused}: method sft learns from text" in failure.value.message
    assert (failure.value.hint or "").endswith("to its name or to auto: text")


def test_a_record_that_the_method_does_not_learn_from_is_refused_by_its_line(work: Work, tokenizer: Any) -> None:
    turns = {"prompt": [{"role": "user", "content": "2?"}], "completion": [{"role": "assistant", "content": "4"}]}
    given_files(work, (0, [SOUND, turns]))
    words = r"^BadSpec: train\.jsonl line 2: the row is a Conversation of format promptCompletion"
    with pytest.raises(RunFailure, match=words):
        read(work, tokenizer, learns_from=frozenset({Continuation}))


def test_a_method_reads_the_rows_that_yield_its_records(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"text": "a"}]))
    assert read(work, tokenizer, learns_from=frozenset({PlainText})).rows.kept == 1


def test_validation_rows_may_come_from_a_file_of_their_own(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, [{"text": "held out"}]))
    data = read(work, tokenizer, validation={"uri": "s3://data/part-1/train.jsonl"})
    assert (data.rows.kept, data.rows.validation, len(data.validation or [])) == (3, 1, 1)


@pytest.mark.parametrize("validation", [None, {"fraction": 0.5}])
def test_another_process_of_the_pod_opens_the_same_data(
    work: Work, tokenizer: Any, validation: dict[str, Any] | None
) -> None:
    given_files(work, (0, [{"text": str(number)} for number in range(8)]))
    data = read(work, tokenizer, validation=validation)
    opened = open_data(work)
    assert opened.rows == data.rows
    assert opened.train.to_list() == data.train.to_list()
    assert (opened.validation and opened.validation.to_list()) == (data.validation and data.validation.to_list())


def test_validation_rows_may_come_from_several_data_sets(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, [{"text": "a"}]), (None, [{"frage": "b", "antwort": "c"}] * 2))
    entries = work.data_files()
    work.write_data_files([*entries[:2], entries[2].model_copy(update={"validation": 1})])
    columns = {"frage": "query", "antwort": "response"}
    datasets = [{"uri": "s3://data/part-1/train.jsonl"}, {"uri": "s3://data/part-2/train.jsonl", "columns": columns}]
    data = read(work, tokenizer, validation={"datasets": datasets})
    assert (data.rows.kept, data.rows.validation, len(data.validation or [])) == (3, 3, 3)
    assert [len(part) for part in data.validation_sets] == [1, 2]
    assert [row for part in data.validation_sets for row in part.to_list()] == (data.validation or data.train).to_list()


def test_a_validation_data_set_without_a_row_has_no_loss_and_is_named(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, [{"text": "a"}]), (None, [{"text": ""}]))
    entries = work.data_files()
    work.write_data_files([*entries[:2], entries[2].model_copy(update={"validation": 1})])
    datasets = [{"uri": f"s3://data/part-{number}/train.jsonl"} for number in (1, 2)]
    with pytest.raises(RunFailure, match=r"^EmptyDataset: no row of s3://data/part-2/train\.jsonl can be validated on"):
        read(work, tokenizer, validation={"datasets": datasets})


def test_an_empty_validation_file_is_an_empty_dataset(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, []))
    with pytest.raises(RunFailure, match=r"part-1/train\.jsonl can be used"):
        read(work, tokenizer, validation={"uri": "s3://data/part-1/train.jsonl"})


def test_a_fraction_of_the_rows_is_held_out(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"text": str(number)} for number in range(40)]))
    data = read(work, tokenizer, validation={"fraction": 0.1})
    assert (data.rows.kept, data.rows.validation) == (36, 4)
    held_out = {tokenizer.decode(example["input_ids"]) for example in data.validation or ()}
    assert not held_out & {tokenizer.decode(example["input_ids"]) for example in data.train}


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_a_fraction_holds_at_least_one_row_out_or_is_refused(work: Work, tokenizer: Any, fraction: float) -> None:
    given_files(work, (0, [SOUND]))
    with pytest.raises(RunFailure, match=r"1 row of .* can be used, and validation\.fraction needs 2") as failure:
        read(work, tokenizer, validation={"fraction": fraction})
    assert failure.value.failure is FailureClass.EMPTY_DATASET
    assert len(read(work, tokenizer).train) == 1
    given_files(work, (0, [SOUND] * 2))
    data = read(work, tokenizer, validation={"fraction": fraction})
    assert (data.rows.kept, data.rows.validation) == (1, 1)


def test_null_keys_and_empty_tool_calls_are_absent_for_the_template(work: Work, tokenizer: Any) -> None:
    nulls = {"tool_calls": None, "name": None, "tool_call_id": None}
    exported = chat(
        {"role": "user", "content": "kiwi?", **nulls}, {"role": "assistant", "content": "fruit", **nulls}, tools=None
    )
    listed = chat(("user", "kiwi?"), {"role": "assistant", "content": "fruit", "tool_calls": []})
    given_files(work, (0, [exported, listed, {**exported, "prompt": None, "text": None}]))
    asking = with_template(tokenizer, TOOLS)
    data = read(work, asking)
    assert set(texts(asking, data)) == {"<|im_start|>user\nkiwi?<|im_end|>\n<|im_start|>assistant\nfruit<|im_end|>\n"}
    assert data.rows.to_dict() == {"kept": 3}


def test_arguments_of_calls_are_not_quoted_twice(work: Work, tokenizer: Any) -> None:
    row = chat(("user", "Weather in Oslo?"), {"role": "assistant", "content": None, "tool_calls": [CALL]})
    given_files(work, (0, [row]))
    calling = with_template(tokenizer, QWEN3)
    (text,) = learned(calling, read(work, calling))
    assert '{"name": "weather", "arguments": {"city": "Oslo"}}' in text
    assert "\\" not in text


def test_a_developer_is_written_as_the_system(work: Work, tokenizer: Any) -> None:
    rows = [chat((role, "One word."), ASKED, ANSWERED) for role in ("system", "developer")]
    given_files(work, (0, [*rows, chat(ASKED, ANSWERED, system="One word.")]))
    assert len(set(texts(tokenizer, read(work, tokenizer)))) == 1


def test_an_answer_of_weight_zero_is_context(work: Work, tokenizer: Any) -> None:
    bad = {"role": "assistant", "content": "a metal", "weight": 0}
    row = chat(
        ("user", "kiwi?"), bad, ("user", "Are you sure?"), {"role": "assistant", "content": "a fruit", "weight": 1}
    )
    given_files(work, (0, [row]))
    data = read(work, tokenizer)
    assert learned(tokenizer, data) == ["a fruit<|im_end|>"]
    assert "assistant\na metal<|im_end|>" in texts(tokenizer, data)[0]
    assert "weight" not in texts(tokenizer, data)[0]


def test_a_row_whose_answers_all_have_weight_zero_is_dropped(work: Work, tokenizer: Any) -> None:
    given_files(
        work, (0, [chat(ASKED, {"role": "assistant", "content": "a metal", "loss": False}), chat(ASKED, ANSWERED)])
    )
    assert read(work, tokenizer).rows.to_dict() == {"kept": 1, "dropped": [{"reason": "NotLearned", "count": 1}]}


def test_a_weight_is_refused_where_every_token_is_learned(work: Work, tokenizer: Any) -> None:
    row = chat(ASKED, {"role": "assistant", "content": "a metal", "weight": 0}, ASKED, ANSWERED)
    given_files(work, (0, [row]))
    with pytest.raises(RunFailure, match=r"line 1: has messages of weight 0, and training\.lossOn: all"):
        read(work, tokenizer, training={"lossOn": "all"})


def test_sharegpt_is_the_same_conversation(work: Work, tokenizer: Any) -> None:
    spoken = {
        "conversations": [
            {"from": "human", "value": "What is a kiwi?"},
            {"from": "gpt", "value": "fruit", "weight": None},
        ],
        "system": "One word.",
    }
    roles = {"conversations": chat(("system", "One word."), ASKED, ANSWERED)["messages"]}
    given_files(work, (0, [spoken, roles]), (1, [chat(("system", "One word."), ASKED, ANSWERED)]))
    uris = ("s3://data/part-0/train.jsonl", "s3://data/part-1/train.jsonl")
    data = read(work, tokenizer, datasets=[{"uri": uri} for uri in uris])
    assert len(set(texts(tokenizer, data))) == 1
    assert data.rows.to_dict() == {"kept": 3}


def test_calls_in_sharegpt_are_calls_in_messages(work: Work, tokenizer: Any) -> None:
    spoken = [
        {"from": "human", "value": "Weather in Oslo?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": "4 degrees"},
        {"from": "gpt", "value": "cold"},
    ]
    bare = {key: CALL[key] for key in ("type", "function")}
    written = chat(
        ("user", "Weather in Oslo?"),
        {"role": "assistant", "tool_calls": [bare]},
        ("tool", "4 degrees"),
        ("assistant", "cold"),
    )
    schema = {"name": "weather", "parameters": {"type": "object"}}
    given_files(
        work,
        (0, [{"conversations": spoken, "tools": json.dumps([schema])}]),
        (1, [{**written, "tools": [{"type": "function", "function": schema}]}]),
    )
    uris = ("s3://data/part-0/train.jsonl", "s3://data/part-1/train.jsonl")
    calling = with_template(tokenizer, QWEN3)
    data = read(work, calling, datasets=[{"uri": uri} for uri in uris])
    assert data.rows.kept == 2
    half = len(data.train) // 2
    assert texts(calling, data)[:half] == texts(calling, data)[half:]


def test_an_answer_before_the_first_question_is_context(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [chat(("assistant", "Hello!"), ASKED, ANSWERED), chat(("system", "Be brief."), ANSWERED)]))
    data = read(work, tokenizer)
    assert learned(tokenizer, data) == ["fruit<|im_end|>"]
    assert texts(tokenizer, data)[0].startswith("<|im_start|>assistant\nHello!<|im_end|>")
    assert data.rows.to_dict() == {"kept": 1, "dropped": [{"reason": "NoPrompt", "count": 1}]}


@pytest.mark.parametrize("template", [MISTRAL, GEMMA])
def test_an_opening_answer_that_the_template_refuses_drops_the_row(work: Work, tokenizer: Any, template: str) -> None:
    given_files(work, (0, [chat(("assistant", "Hello!"), ASKED, ANSWERED), chat(ASKED, ANSWERED)]))
    rows = read(work, with_template(tokenizer, template)).rows
    assert rows.to_dict() == {"kept": 1, "dropped": [{"reason": "NoPrompt", "count": 1}]}


def test_keys_that_are_not_read_are_counted(work: Work, tokenizer: Any) -> None:
    row = chat({"role": "user", "content": "kiwi?", "stamp": 5}, ANSWERED, id=7, prompt="kiwi?", url=None)
    given_files(work, (0, [row, chat(ASKED, ANSWERED, id=8)]))
    assert read(work, tokenizer).rows.to_dict()["ignoredKeys"] == [
        {"key": "id", "count": 2},
        {"key": "messages[].stamp", "count": 1},
        {"key": "prompt", "count": 1},
    ]


def test_keys_beyond_the_limit_are_counted_together(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{**SOUND, **{f"key{number:02}": 1 for number in range(20)}, "x" * 10_000: 1}]))
    keys = read(work, tokenizer).rows.ignored_keys or []
    assert len(keys) == MAX_KEYS
    assert keys[-1].to_dict() == {"key": OTHER_KEYS, "count": 21 - (MAX_KEYS - 1)}
    assert max(len(entry.key) for entry in keys) <= 60


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (chat(ASKED, ANSWERED), SOUND, r"line 2: has no 'messages'; its keys are prompt, completion"),
        (SOUND, {"prompt": "2", "completion": None}, r"line 2: 'completion' is null"),
        ({"text": "a"}, {"conversations": []}, r"line 2: has no 'text'; its keys are conversations"),
        ({"text": "a"}, {}, r"line 2: has no 'text'; its keys are none"),
    ],
)
def test_a_row_of_another_format_than_the_first_is_named(
    work: Work, tokenizer: Any, first: dict[str, Any], second: dict[str, Any], words: str
) -> None:
    given_files(work, (0, [first, second]))
    with pytest.raises(RunFailure, match=words) as failure:
        read(work, tokenizer)
    assert failure.value.failure is FailureClass.BAD_ROW


def test_rows_that_are_all_too_long_are_refused_with_their_lengths(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"text": "2 " * 50}, {"text": "2 " * 100}]))
    with pytest.raises(
        RunFailure, match=r"2 TooLong; rows have (\d+) to (\d+) tokens, and training\.maxLength is 32"
    ) as failure:
        read(work, tokenizer, training={"maxLength": 32})
    hint = failure.value.hint or ""
    assert hint.startswith("set spec.training.maxLength to ")
    longest = int("".join(filter(str.isdigit, hint)))
    assert read(work, tokenizer, training={"maxLength": longest}).rows.kept == 2


def test_a_row_of_millions_of_tokens_is_dropped_by_its_beginning(work: Work, tokenizer: Any) -> None:
    longest = 0

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **options: Any) -> Any:
            nonlocal longest
            longest = max(longest, len(text))
            return tokenizer(text, **options)

    given_files(work, (0, [{"text": "2 " * (1 << 21)}, {"prompt": None, "text": "+ 2" * 400}]))
    with pytest.raises(RunFailure, match=r"2 TooLong; rows have \d{3,4} to more than 100000 tokens") as failure:
        read(work, Counting(), training={"maxLength": 32})
    assert longest <= 2 * PIECE
    assert (failure.value.hint or "").startswith("set spec.training.maxLength to ")


def test_a_long_row_is_cut_as_one_that_was_tokenized_whole(work: Work, tokenizer: Any) -> None:
    text = "What is a kiwi? (17) fruit\n" * (PIECE // 9)
    given_files(work, (0, [{"text": text}]))
    data = read(work, tokenizer, training={"maxLength": 64, "truncation": "truncate"})
    assert data.train[0]["input_ids"] == tokenizer(text[:1000], add_special_tokens=False)["input_ids"][:64]


@pytest.mark.parametrize("truncation", ["drop", "truncate"])
def test_a_conversation_of_thousands_of_turns_is_not_rendered_for_each(
    work: Work, tokenizer: Any, truncation: str
) -> None:
    counting = copy.deepcopy(tokenizer)
    rendered: list[int] = []

    def render(messages: list[Any], **options: Any) -> str:
        rendered.append(len(messages))
        return str(tokenizer.apply_chat_template(messages, **options))

    counting.apply_chat_template = render
    given_files(work, (0, [chat(*[ASKED, ANSWERED] * 1500), chat(ASKED, ANSWERED)]))
    rows = read(work, counting, training={"maxLength": 64, "truncation": truncation}).rows
    assert rows.kept == (1 if truncation == "drop" else 2)
    assert len(rendered) < 30


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.ENOSPC, "No space left on device"), ImportError("no jinja2"), KeyboardInterrupt()],
)
def test_a_fault_of_the_machine_is_no_bad_row(work: Work, tokenizer: Any, error: BaseException) -> None:
    broken = copy.deepcopy(tokenizer)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    broken.apply_chat_template = fail
    given_files(work, (0, [chat(ASKED, ANSWERED)]))
    with pytest.raises(type(error)):
        read(work, broken)


class PanicException(BaseException):
    """As tokenizers raises where its Rust code panics."""


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), IndexError(), RecursionError(), OverflowError(), ValueError("x"), TypeError(), PanicException("x")],
)
def test_whatever_a_library_raises_on_a_row_names_its_line(work: Work, tokenizer: Any, error: BaseException) -> None:
    broken = copy.deepcopy(tokenizer)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    broken.apply_chat_template = fail
    given_files(work, (0, [chat(ASKED), chat(ASKED, ANSWERED)]))
    words = rf"^BadRow: train\.jsonl line 2: is refused by the model's chat template: {type(error).__name__}"
    with pytest.raises(RunFailure, match=words):
        read(work, broken)


def test_a_template_with_a_syntax_error_is_a_bad_model(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [chat(ASKED, ANSWERED)]))
    with pytest.raises(RunFailure, match=r"chat template has an error in line 1") as failure:
        read(work, with_template(tokenizer, "{% for m in messages %}"))
    assert failure.value.failure is FailureClass.BAD_MODEL


def test_a_template_that_ignores_calls_teaches_no_empty_answer(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [chat(ASKED, {"role": "assistant", "tool_calls": [CALL]})]))
    with pytest.raises(RunFailure, match=r"line 1: the model's chat template does not write tool_calls: 'weather'"):
        read(work, with_template(tokenizer, CHATML))


def dropped(work: Work) -> list[dict[str, Any]]:
    """The rows of dropped.jsonl."""
    return [json.loads(line) for line in (work.examples / FILE).read_text().splitlines()]


NUMBER = {"prompt": 2, "completion": "4"}


def test_bad_rows_are_dropped_and_counted_with_on_bad_row_drop(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [b"{", {"id": 7}, *[SOUND] * 8, NUMBER]))
    rows = read(work, tokenizer, onBadRow="Drop", maxBadShare=0.3).rows
    assert rows.to_dict() == {"kept": 8, "dropped": [{"reason": "BadRow", "count": 3}]}
    first, second, third = dropped(work)
    assert (first["reason"], first["file"], first["place"]) == ("BadRow", "s3://data/part-0/train.jsonl", "line 1")
    assert "is not JSON" in first["sentence"]
    assert "is in no known format: its keys are id" in second["sentence"]
    assert (third["place"], third["sentence"]) == ("line 11", "'prompt' is a number; expected a string")
    assert third["row"] == '{"prompt": 2, "completion": "4"}'


@pytest.mark.parametrize(("share", "most"), [({}, "0.1"), ({"maxBadShare": 0.25}, "0.25")])
def test_too_many_bad_rows_fail_with_counts_and_the_first_ones(
    work: Work, tokenizer: Any, share: dict[str, float], most: str
) -> None:
    given_files(work, (0, [SOUND, NUMBER, SOUND, NUMBER]))
    words = rf"2 of 4 rows of s3://data/part-0/train\.jsonl are bad, and maxBadShare is {most}; the first: train\.jsonl line 2: "
    with pytest.raises(RunFailure, match=words) as failure:
        read(work, tokenizer, onBadRow="Drop", **share)
    assert failure.value.failure is FailureClass.BAD_ROW
    assert [example["place"] for example in dropped(work)] == ["line 2", "line 4"]


def test_the_share_of_bad_rows_counts_for_each_data_set(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 20), (1, [SOUND, NUMBER]))
    uris = ("s3://data/part-0/train.jsonl", "s3://data/part-1/train.jsonl")
    with pytest.raises(RunFailure, match=r"1 of 2 rows of s3://data/part-1/train\.jsonl"):
        read(work, tokenizer, onBadRow="Drop", datasets=[{"uri": uri} for uri in uris])


def test_the_first_rows_of_each_reason_are_kept_and_no_more(work: Work, tokenizer: Any) -> None:
    empty = {"prompt": "x" * 1000, "completion": ""}
    given_files(work, (0, [SOUND, {"prompt": "2 " * 50, "completion": "4"}, *[empty] * 40]))
    assert read(work, tokenizer, training={"maxLength": 32}).rows.kept == 1
    examples = dropped(work)
    assert [example["reason"] for example in examples] == ["TooLong", *["EmptyAnswer"] * 5]
    assert re.fullmatch(r"has \d+ tokens, and training\.maxLength is 32", examples[0]["sentence"])
    assert examples[1]["sentence"] == "an answer that would be learned has no text"
    assert max(len(example["row"]) for example in examples) < 400


def test_a_failure_of_another_class_is_no_bad_row(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND, chat(ASKED, ANSWERED)]), (1, [chat(ASKED, ANSWERED)]))
    uris = ("s3://data/part-0/train.jsonl", "s3://data/part-1/train.jsonl")
    with pytest.raises(RunFailure) as failure:
        read(
            work, with_template(tokenizer, ""), datasets=[{"uri": uri} for uri in uris], onBadRow="Drop", maxBadShare=1
        )
    assert failure.value.failure is FailureClass.CHAT_TEMPLATE_MISSING


def test_duplicates_are_dropped_where_drop_names_them(work: Work, tokenizer: Any) -> None:
    again = {"prompt": "2  +\n2 =", "completion": " 4 ", "id": 7}
    given_files(work, (0, [SOUND, again, {**SOUND, "completion": " 5"}]), (1, [SOUND, {"text": "c"}]), (None, [SOUND]))
    spec = {"datasets": [{"uri": f"s3://data/part-{part}/train.jsonl"} for part in (0, 1)]}
    assert read(work, tokenizer, **{**spec, "datasets": spec["datasets"][:1]}).rows.kept == 3
    given_files(work, (0, [SOUND, again, {**SOUND, "completion": " 5"}]), (1, [SOUND, SOUND]))
    rows = read(work, tokenizer, drop=["Duplicate"], **spec).rows
    assert rows.to_dict()["dropped"] == [{"reason": "Duplicate", "count": 3}]
    assert rows.kept == 2
    assert [example["place"] for example in dropped(work)] == ["line 2", "line 1", "line 2"]


def test_a_training_row_that_is_a_validation_row_is_the_duplicate(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND, {**SOUND, "completion": " 5"}]), (None, [SOUND]))
    rows = read(work, tokenizer, drop=["Duplicate"], validation={"uri": "s3://data/part-1/train.jsonl"}).rows
    assert (rows.kept, rows.validation) == (1, 1)


def test_training_rows_with_a_question_of_an_evaluation_are_dropped_and_shown(work: Work, tokenizer: Any) -> None:
    other = {**SOUND, "prompt": "2 + 3 ="}
    given_files(work, (0, [other, SOUND]), (None, [SOUND]), (None, [{"question": "2+2="}]))
    files = work.data_files()
    work.write_data_files([*files[:2], files[2].model_copy(update={"evaluation": 0})])
    spec = {"validation": {"uri": "s3://data/part-1/train.jsonl"}, "decontaminate": [{"uri": "s3://tests/qa.jsonl"}]}
    rows = read(work, tokenizer, **spec).rows
    assert (rows.kept, rows.validation) == (1, 1)
    assert rows.to_dict()["dropped"] == [{"reason": "Contaminated", "count": 1}]
    (shown,) = dropped(work)
    assert (shown["place"], shown["sentence"]) == ("line 2", "shares with a question: 2 + 2 =")


def test_a_stream_drops_rows_with_a_question_of_an_evaluation(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND, {**SOUND, "prompt": "2 + 3 ="}]), (None, [SOUND]))
    files = work.data_files()
    work.write_data_files([files[0], files[1].model_copy(update={"evaluation": 0})])
    job = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "s3://models/base"},
            "datasets": [{"uri": "s3://data/part-0/train.jsonl"}],
            "decontaminate": [{"uri": "s3://tests/qa.jsonl"}],
            "training": {"streaming": True, "maxSteps": 1},
        }
    )
    encoder = Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training)
    streamed = load_stream(
        work, job, encoder, ALL_RECORDS, lambda examples, _: [{"input_ids": []}] * len(examples), True
    )
    assert len(next(streamed.stream.windows(Place()))[1]) == 1
    assert streamed.rows.to_dict()["dropped"] == [{"reason": "Contaminated", "count": 1}]


def numbered(start: int, count: int) -> list[Any]:
    return [{"text": f"row {number}"} for number in range(start, start + count)]


PARTS = [{"uri": "s3://data/part-0/train.jsonl"}, {"uri": "s3://data/part-1/train.jsonl"}]


def weighted(*weights: float) -> list[dict[str, Any]]:
    return [{**part, "weight": weight} for part, weight in zip(PARTS, weights, strict=True)]


def test_without_weights_each_row_is_used_once(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 3)), (1, numbered(3, 300)))
    data = read(work, tokenizer, datasets=PARTS)
    assert data.rows.to_dict() == {"kept": 303}
    assert len(set(texts(tokenizer, data))) == len(data.train) == 303


def test_with_weights_a_pass_has_their_shares_and_status_has_the_counts(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 3)), (1, numbered(3, 300)))
    data = read(work, tokenizer, datasets=weighted(1, 1))
    assert data.rows.to_dict() == {
        "kept": 303,
        "datasets": [
            {"index": 0, "rows": 3, "used": 152, "repeated": 149, "left": 0},
            {"index": 1, "rows": 300, "used": 151, "repeated": 0, "left": 149},
        ],
    }
    found = Counter(texts(tokenizer, data))
    small = {text: count for text, count in found.items() if int("".join(filter(str.isdigit, text))) < 3}
    assert sorted(small.values()) == [50, 51, 51]
    assert {count for text, count in found.items() if text not in small} == {1}
    assert (len(found), found.total()) == (154, 303)


def test_the_seed_decides_which_rows_are_left_out(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 3)), (1, numbered(3, 30)))
    drawn = [
        Counter(texts(tokenizer, read(work, tokenizer, datasets=weighted(1, 1), training={"seed": seed})))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_row_that_is_held_out_is_never_repeated(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 6)), (1, numbered(6, 30)))
    data = read(work, tokenizer, datasets=weighted(1, 3), validation={"fraction": 0.25})
    held_out = {tokenizer.decode(example["input_ids"]) for example in data.validation or ()}
    assert len(held_out) == 9
    assert not held_out & set(texts(tokenizer, data))
    counts = data.rows.datasets or []
    assert sum(entry.rows for entry in counts) == sum(entry.used for entry in counts) == len(data.train) == 27
    assert [entry.used for entry in counts] == [7, 20]


def test_a_weight_of_a_data_set_without_rows_is_refused(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 3)), (1, [{"text": " "}]))
    with pytest.raises(
        RunFailure, match=r"no row of s3://data/part-1/train\.jsonl can be trained on, and its weight is 2"
    ):
        read(work, tokenizer, datasets=weighted(1, 2))


def test_a_sample_is_drawn_from_all_rows_by_the_seed(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 100)), (0, numbered(100, 100)))
    dataset = {"uri": "s3://data/part-0/train.jsonl", "maxRows": 20, "sample": True}
    samples = [
        texts(tokenizer, read(work, tokenizer, datasets=[dataset], training={"seed": seed})) for seed in (1, 1, 2)
    ]
    assert samples[0] == samples[1] != samples[2]
    assert len(set(samples[0])) == 20
    numbers = [int("".join(filter(str.isdigit, text))) for text in samples[0]]
    assert numbers == sorted(numbers)
    assert max(numbers) >= 100


def test_rows_of_a_template_are_turns(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"q": "kiwi", "a": "fruit"}]), (1, [chat(ASKED, ANSWERED)]))
    template = {"prompt": "What is a {q}?", "completion": "{a}"}
    data = read(work, tokenizer, datasets=[{**PARTS[0], "template": template}, PARTS[1]])
    assert len(set(texts(tokenizer, data))) == 1


def test_rows_encoded_for_a_tokenizer_or_a_template_are_never_taken_for_another(work: Work, tokenizer: Any) -> None:
    row = chat(ASKED, ANSWERED)
    given_files(work, (0, [row]))
    other = tokenizer.train_new_from_iterator(["kiwi fruit assistant user"], 300)
    others = [with_template(other, CHATML), with_template(tokenizer, GEMMA)]
    found = []
    for each in (tokenizer, *others):
        (text,) = texts(each, read(work, each))
        rendered = each.apply_chat_template(row["messages"], tokenize=False)
        assert rendered.startswith(text.removesuffix("<|im_end|>"))
        assert "fruit" in text
        found.append(open_data(work).train[0]["input_ids"])
    assert found[0] != found[1]
    assert found[0] != found[2]


def test_a_template_that_the_method_does_not_learn_from_is_refused(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"q": "kiwi", "a": "fruit"}]))
    template = {"prompt": "{q}", "completion": "{a}"}
    with pytest.raises(RunFailure, match=r"BadSpec: datasets\[\]\.template: method sft learns from text"):
        read(work, tokenizer, learns_from=frozenset({PlainText}), datasets=[{**PARTS[0], "template": template}])


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
        "weight": mostly(st.sampled_from([0, 1])),
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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("form", sorted(shapes))
def test_every_row_is_kept_dropped_or_refused_by_its_line(
    work: Work, tokenizer: Any, family: str, form: str, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(shapes[form], min_size=1, max_size=3))
    handling = data.draw(st.sampled_from(({}, {"onBadRow": "Drop", "maxBadShare": 1})))
    given_files(work, (0, rows))
    dataset = {"uri": "s3://data/part-0/train.jsonl", "format": form}
    refused: RunFailure | None = None
    counted = 0
    try:
        summary = read(work, with_template(tokenizer, FAMILIES[family]), datasets=[dataset], **handling).rows
        counted = summary.kept + sum(entry.count for entry in summary.dropped or [])
    except RunFailure as failure:
        refused = failure
    if refused is None:
        assert counted == len(rows)
    elif refused.failure is not FailureClass.EMPTY_DATASET:
        assert not handling or refused.failure is FailureClass.CHAT_TEMPLATE_MISSING
        assert refused.failure in (FailureClass.BAD_ROW, FailureClass.CHAT_TEMPLATE_MISSING)
        assert refused.message.startswith("train.jsonl line ")
