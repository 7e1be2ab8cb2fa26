"""The workload of encoded rows, by method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith_api.batches import job_refusal, rows_of_pass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import METHOD_FACTS, compares_rows
from tunesmith_api.methods import Gkd
from tunesmith_runtime.data.load import Data as Encoded
from tunesmith_runtime.estimate.workload import Workload, count

if TYPE_CHECKING:
    from pyarrow import Table


def count_encoded(encoded: Encoded, job: FineTuneJobSpec, packs: bool = True) -> Workload:
    """Return the workload of encoded rows, packed if the job packs them, and unless they are a sample."""
    from tunesmith_runtime.data.example_file import example_lengths, labelled_counts, open_columns
    from tunesmith_runtime.data.packing import best_fit
    from tunesmith_runtime.train.methods import METHODS
    from tunesmith_runtime.train.methods.base import in_texts

    columns = open_columns(encoded.train_file)
    lengths = example_lengths(columns)
    if job.rollouts:
        return _sampled(lengths, job.rollouts.max_completion_length, job.rollouts.num_generations)
    if job.actor_critic:
        return _sampled(lengths, job.actor_critic.max_completion_length, job.actor_critic.epochs)
    if job.gkd and job.gkd.lambda_:
        return _distilled(columns, job.gkd)
    method = METHODS[job.method]
    if method.arrange is in_texts:
        return _joined(columns, job) if METHOD_FACTS[job.method].joins_texts else _compared(columns)
    found = count(lengths, labelled_counts(columns), method.answers)
    if not packs or not job.training.packing:
        return found
    return replace(found, sequences=int(best_fit(lengths, job.training.max_length, job.training.seed).max()) + 1)


def _sampled(prompts: Sequence[int], most: int, times: int) -> Workload:
    """Return the workload of completions of `most` tokens to prompts of these lengths, `times` of them for each prompt."""
    once = count([length + most for length in prompts], [most] * len(prompts))
    return replace(once, rows=once.rows * times, tokens=once.tokens * times)


def _compared(columns: Table) -> Workload:
    """Return the workload of rows of several texts: each has as many as a row has on average, rounded up."""
    from tunesmith_runtime.data.example_file import example_lengths
    from tunesmith_runtime.data.text_groups import row_starts

    lengths, rows = example_lengths(columns), max(1, len(row_starts(columns)))
    return replace(count(lengths, lengths), rows=rows, answers=-(-len(lengths) // rows))


def _joined(columns: Table, job: FineTuneJobSpec) -> Workload:
    """Return the workload of queries with their passages, and with the positives of the other rows of a forward pass if these
    are negatives: each row has as many as a row has on average, rounded up."""
    import pyarrow.compute as pc

    from tunesmith_runtime.data.encoders.texts import TextRole

    own = _compared(columns)
    if not compares_rows(job) or job_refusal(job):  # the estimate itself refuses a batch that cannot be divided
        return own
    roles, others = columns["columns"], min(own.rows, rows_of_pass(job)) - 1
    positives = len(roles) - (pc.sum(pc.equal(roles, str(TextRole.NEGATIVE))).as_py() or 0)
    share = positives / max(1, len(roles))  # of the tokens of a row, which its passages have alike
    return replace(
        own, tokens=round(own.tokens * (1 + others * share)), compared=-(-positives // own.rows), others=others
    )


def _distilled(columns: Table, gkd: Gkd) -> Workload:
    """Return the workload of rows if a share of them gets a sampled answer of maximum length instead of the last one."""
    from tunesmith_runtime.data.example_file import example_lengths, labelled_counts, last_answer_starts

    most, share = gkd.max_completion_length, gkd.lambda_
    lengths, labelled = example_lengths(columns), labelled_counts(columns)
    sampled = [start + most for start in last_answer_starts(columns)]
    found = count(list(map(max, lengths, sampled)), [max(each, most) for each in labelled])
    return replace(found, tokens=round((1 - share) * sum(lengths) + share * sum(sampled)))
