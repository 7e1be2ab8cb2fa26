"""The workload of encoded rows."""

from __future__ import annotations

from pathlib import Path

from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.methods.texts import pairs
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


def test_a_query_is_read_with_its_passages_and_with_the_positives_of_the_other_rows(tiny: Path, tmp_path: Path) -> None:
    """Four rows of a positive and a negative: each has two sequences of its own, and three for the other positives."""
    counted = {}
    for name, block in (("alone", {"inBatchNegatives": False}), ("together", {})):
        run = make_run(
            tmp_path / name, tiny, pairs(8, negatives=True), {"globalBatchSize": 4}, method="rerank", rerank=block
        )
        job = run.spec.fine_tune_job()
        counted[name] = count_encoded(encode_lightly(job, run.work), job)
    alone, together = counted["alone"], counted["together"]
    assert (alone.rows, alone.batch(4).rows, together.batch(4).rows, together.batch(2).rows) == (8, 8, 20, 6)
    assert together.tokens == 2.5 * alone.tokens
    assert together.mean_length == alone.mean_length
