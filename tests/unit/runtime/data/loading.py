"""Loads rows that a test gives, and shows the examples as text."""

from __future__ import annotations

import copy
import json
from typing import Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.data.dropped_rows import FILE
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.load import Data, load
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText, Record
from tunesmith_runtime.data.row_encoder import Learnable
from tunesmith_runtime.train.methods import METHODS
from tunesmith_runtime.workdir import DataFile, Work

SOUND = {"prompt": "2 + 2 =", "completion": " 4"}
ALL_RECORDS: frozenset[type[Record]] = frozenset({Conversation, Continuation, PlainText})
ASKED, ANSWERED = ("user", "What is a kiwi?"), ("assistant", "fruit")
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
NUMBER = {"prompt": 2, "completion": "4"}
PARTS = [{"uri": "s3://data/part-0/train.jsonl"}, {"uri": "s3://data/part-1/train.jsonl"}]


def given_files(work: Work, *files: tuple[int | None, list[Any]]) -> None:
    """Files as fetch leaves them: (index of the data set, rows or raw lines)."""
    entries = []
    for number, (dataset, rows) in enumerate(files):
        entries.append(DataFile(path=f"{number:02}.jsonl", uri=f"s3://data/part-{number}/train.jsonl", dataset=dataset))
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        work.data.mkdir(exist_ok=True)
        (work.data / entries[-1].path).write_bytes(b"\n".join(lines) + b"\n")
    work.write_data_files(entries)


def read(work: Work, tokenizer: Any, learns_from: frozenset[type[Record]] = ALL_RECORDS, **spec: Any) -> Data:
    made = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/part-0/train.jsonl"}], **spec}
    job = FineTuneJobSpec.model_validate(made)
    return load(
        work,
        job,
        Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training),
        Learnable(job.method, learns_from, scales=METHODS[job.method].scales),
    )


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


def dropped(work: Work) -> list[dict[str, Any]]:
    """The rows of dropped.jsonl."""
    return [json.loads(line) for line in (work.examples / FILE).read_text().splitlines()]


def numbered(start: int, count: int) -> list[Any]:
    return [{"text": f"row {number}"} for number in range(start, start + count)]


def weighted(*weights: float) -> list[dict[str, Any]]:
    return [{**part, "weight": weight} for part, weight in zip(PARTS, weights, strict=True)]
