"""Rows that are counted before a training are those of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import tinymodel
from tests.unit.runtime.train.support import make_run
from tunesmith_runtime.fetch.encoded_rows import count_encoded
from tunesmith_runtime.fetch.row_count import encode_lightly
from tunesmith_runtime.train.methods import METHODS
from tunesmith_runtime.train.world.process_group import ALONE


def test_rows_are_encoded_as_in_a_training_without_its_libraries(tiny: Path, tmp_path: Path) -> None:
    from tunesmith_runtime.train.rows.loading import load_rows

    rows: list[dict[str, Any]] = [
        *tinymodel.rows(30),
        {
            "messages": [
                {"role": "user", "content": "What is tin? ü 漢"},
                {"role": "assistant", "content": "metal", "weight": 1},
            ]
        },
    ]
    run = make_run(tmp_path, tiny, rows, validation={"fraction": 0.2})
    job = run.spec.fine_tune_job()
    light = encode_lightly(job, run.work)
    counted = count_encoded(light, job)
    inputs = [list(row) for row in (*light.train["input_ids"], *light.train["labels"])]
    real = load_rows(run.spec, job, METHODS[job.method], run.work, ALONE).data
    assert inputs == [list(row) for row in (*real.train["input_ids"], *real.train["labels"])]
    assert counted.tokens == sum(map(len, real.train["input_ids"]))
    assert sum(counted.most_labelled) == sum(label != -100 for row in real.train["labels"] for label in row[1:])
