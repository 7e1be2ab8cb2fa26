"""Every verb of the API runs its module, for the kinds of resource that have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import run_spec
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunSpec, Verb
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.verbs import VERBS
from tunesmith_runtime.workdir import Work


def test_every_verb_of_the_api_has_a_command() -> None:
    assert set(VERBS) == set(Verb)


@pytest.mark.parametrize(
    ("verb", "kind"),
    [(Verb.TRAIN, "InferenceService"), (Verb.EVALUATE, "FineTuneJob"), (Verb.PREPARE, "InferenceService")],
)
def test_a_verb_refuses_a_spec_of_another_kind(verb: Verb, kind: str, tmp_path: Path) -> None:
    spec = RunSpec.model_validate(run_spec(kind, "demo"))  # type: ignore[arg-type]
    with pytest.raises(RunFailure, match=f"of kind {kind}, and this verb runs for") as failure:
        VERBS[verb].run(spec, Work(tmp_path), ProgressPusher(None, None))
    assert failure.value.failure is FailureClass.BAD_SPEC
