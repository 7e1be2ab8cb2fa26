"""The workload of encoded rows."""

from __future__ import annotations

from pathlib import Path

from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.support import make_run
from tunesmith_runtime.fetch.encoded_rows import count_encoded
from tunesmith_runtime.fetch.row_count import encode_lightly


def test_the_two_answers_of_a_preference_are_a_row_of_two_sequences(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny, preferences(10), method="dpo")
    job = run.spec.fine_tune_job()
    light = encode_lightly(job, run.work)
    counted = count_encoded(light, job)
    lengths = [len(each) for each in light.train["input_ids"]]
    assert (counted.rows, counted.tokens, len(lengths)) == (10, sum(lengths), 20)
    assert counted.longest[0] == max(lengths)
    assert counted.batch(4).rows == 8
    assert counted.mean_row == 2 * counted.mean_length
