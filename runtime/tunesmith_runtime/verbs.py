"""The verbs of the command line: where each is implemented, and the kinds of resource it runs for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunReport, RunSpec, Verb
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.workdir import Work

FINE_TUNE_JOB, EVAL_JOB, INFERENCE_SERVICE = "FineTuneJob", "EvalJob", "InferenceService"


@dataclass(frozen=True)
class Command:
    """A verb's implementation: a module with `run(spec, work, progress) -> RunReport`."""

    module: str
    """Imported when the verb runs, so that a container loads only the libraries of its own verb."""
    kinds: frozenset[str]
    """Kinds of resource whose pods run the verb."""

    def run(self, spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
        """Run the verb and return its report. Raises RunFailure."""
        if spec.kind not in self.kinds:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"the spec is of kind {spec.kind}, and this verb runs for {' or '.join(sorted(self.kinds))}",
                "name another verb, or the spec of another resource with --spec",
            )
        report: RunReport = importlib.import_module(self.module).run(spec, work, progress)
        return report


VERBS: Mapping[Verb, Command] = {
    Verb.PREPARE: Command("tunesmith_runtime.prepare", frozenset({FINE_TUNE_JOB, EVAL_JOB})),
    Verb.FETCH: Command("tunesmith_runtime.fetch", frozenset({FINE_TUNE_JOB, EVAL_JOB, INFERENCE_SERVICE})),
    Verb.TRAIN: Command("tunesmith_runtime.train", frozenset({FINE_TUNE_JOB})),
    Verb.EXPORT: Command("tunesmith_runtime.export", frozenset({FINE_TUNE_JOB})),
    Verb.EVALUATE: Command("tunesmith_runtime.evaluate", frozenset({EVAL_JOB})),
    Verb.SERVE: Command("tunesmith_runtime.serve", frozenset({EVAL_JOB, INFERENCE_SERVICE})),
}
