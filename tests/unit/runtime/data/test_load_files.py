"""Files of every type are encoded as JSON lines are, and their faults are named by file and place."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.load import Data, load
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText
from tunesmith_runtime.data.row_encoder import Learnable
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import DataFile, Work

QUESTIONS = "question,answer\nWhich JSON word means nothing?,null\nShort for not available?,NA\nSymbol of sodium?,Na\n"
COLUMNS = {"question": "prompt", "answer": "completion"}
ROWS = [{"prompt": f"{number} + 1 =", "completion": f" {number + 1}"} for number in range(10)]


def parquet() -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), out)
    return out.getvalue()


CONTENT = {
    "00.jsonl.gz": gzip.compress("\n".join(map(json.dumps, ROWS)).encode()),
    "00.json": json.dumps(ROWS, indent=1).encode(),
    "00.csv": "".join(["prompt,completion\n", *(f"{row['prompt']},{row['completion']}\n" for row in ROWS)]).encode(),
    "00.parquet": parquet(),
}


def read(folder: Path, tokenizer: Any, name: str, content: bytes, **dataset: Any) -> Data:
    """The examples of a single data file."""
    work = Work(folder)
    uri = f"s3://data/train{name.removeprefix('00')}"
    work.write_data_files([DataFile(path=name, uri=uri, dataset=0)])
    (work.data / name).write_bytes(content)
    job = FineTuneJobSpec.model_validate({"model": {"uri": "s3://models/base"}, "datasets": [{"uri": uri, **dataset}]})
    encoder = Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training)
    return load(work, job, encoder, Learnable(job.method, frozenset({Conversation, Continuation, PlainText})))


def answers(tokenizer: Any, data: Data) -> list[str]:
    learned = ([label for label in example["labels"] if label != IGNORED] for example in data.train)
    return [tokenizer.decode(labels, skip_special_tokens=True).strip() for labels in learned]


def test_null_and_na_in_a_table_are_taught_as_they_are(tmp_path: Path, tokenizer: Any) -> None:
    data = read(tmp_path, tokenizer, "00.csv", QUESTIONS.encode(), columns=COLUMNS)
    assert data.rows.kept == 3
    assert answers(tokenizer, data) == ["null", "NA", "Na"]


def test_an_empty_answer_cell_is_a_bad_row_with_file_and_line(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(RunFailure, match=r"^BadRow: train\.csv line 5: .*'completion' is null") as failure:
        read(tmp_path, tokenizer, "00.csv", f"{QUESTIONS}Empty one?,\n".encode(), columns=COLUMNS)
    assert "s3://data/train.csv" in failure.value.message


@pytest.mark.parametrize("name", CONTENT)
def test_a_file_of_each_type_teaches_the_same(tmp_path: Path, tokenizer: Any, name: str) -> None:
    data = read(tmp_path, tokenizer, name, CONTENT[name], split="train[:40%]")
    assert data.rows.kept == 4
    assert answers(tokenizer, data) == ["1", "2", "3", "4"]


def test_a_column_of_mixed_types_is_refused_at_the_row_that_differs(tmp_path: Path, tokenizer: Any) -> None:
    rows = [*ROWS, {"prompt": "1 + 1 =", "completion": 2}]
    with pytest.raises(RunFailure, match=r"train\.json line 1 \(row 11\): 'completion' is a number; expected a string"):
        read(tmp_path, tokenizer, "00.json", json.dumps(rows).encode())
