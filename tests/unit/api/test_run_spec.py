"""What makes the RunSpec of a resource, and what makes two runs the same run."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from tests.unit.api.test_hashing import with_field
from tunesmith_api.evaljob import EvalJobSpec, Generation
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import SPECS
from tunesmith_api.inferenceservice import Engine, InferenceServiceSpec
from tunesmith_api.run import ModelRole, ResolvedModel, RunSpec, Store, models_by_role
from tunesmith_api.run_spec import run_id, run_spec

MODEL: dict[str, Any] = {"model": {"uri": "file:///models/base"}}
TUNE: dict[str, Any] = {**MODEL, "datasets": [{"uri": "file:///data/train.jsonl"}]}
EVAL: dict[str, Any] = {**MODEL, "benchmarks": [{"name": "gsm8k", "limit": 5}]}
STORE = Store(uri="file:///store")
BASE = ResolvedModel(uri="file:///models/base")
LOCAL: dict[str, Any] = {"metadata": {"name": "mine"}}


def tuning(**fields: Any) -> RunSpec:
    return run_spec(LOCAL, FineTuneJobSpec.model_validate({**TUNE, **fields}), {ModelRole.BASE: BASE}, STORE)


def scoring(model: ResolvedModel = BASE, engine: Engine = Engine.TRANSFORMERS, **fields: Any) -> RunSpec:
    return run_spec(
        LOCAL, EvalJobSpec.model_validate({**EVAL, **fields}), models_by_role(model), STORE, engine=engine, role="model"
    )


def test_a_resource_in_a_file_is_enough_for_a_local_run() -> None:
    run = tuning()
    assert (run.kind, run.namespace, run.uid, run.attempt) == ("FineTuneJob", "default", "", 1)
    assert run.output_uri == "file:///store/runs/default/mine"
    assert run.models == {ModelRole.BASE: BASE}
    assert run.fine_tune_job().training.seed == 42


def test_results_go_where_the_spec_names_or_below_the_store() -> None:
    service = run_spec(
        LOCAL, InferenceServiceSpec.model_validate(MODEL), {ModelRole.BASE: BASE}, STORE, engine=Engine.VLLM
    )
    assert tuning(output={"uri": "s3://mine/out"}).output_uri == "s3://mine/out"
    assert scoring().output_uri == "file:///store/evals"
    assert service.output_uri == "file:///store/services/default/mine"
    assert (service.spec["engine"], "replicas" in service.spec) == ("vllm", False)


def test_another_fingerprint_or_spec_hash_is_another_run() -> None:
    ids = [
        run_id(tuning(), {"model": "a"}),
        run_id(tuning(), {"model": "b"}),
        run_id(tuning(rerun="2"), {"model": "a"}),
    ]
    assert len(set(ids)) == 3
    assert run_id(tuning(), {"model": "a"}) == ids[0]


@pytest.mark.parametrize(
    ("fields", "is_same"),
    [
        ({"gates": [{"benchmark": "gsm8k", "min": 0.5}]}, True),
        ({"baseline": {"uri": "s3://models/other"}}, True),
        ({"retries": 1}, True),
        ({"benchmarks": [{"name": "gsm8k", "limit": 6}]}, False),
        ({"generation": {"maxTokens": 5}}, False),
        ({"engine": Engine.VLLM}, False),
        ({"rerun": "2"}, False),
    ],
    ids=lambda value: next(iter(value), None) if isinstance(value, dict) else None,
)
def test_evaluations_share_a_score_unless_they_score_differently(fields: dict[str, Any], is_same: bool) -> None:
    runs = [scoring(), scoring(**fields)]
    assert (len({run_id(run, {"model": "a"}) for run in runs}) == 1) is is_same
    assert (len({run.spec_hash for run in runs}) == 1) is is_same
    assert run_id(runs[1], {"model": "a"}) != run_id(runs[1], {"model": "b"})


def test_runs_of_0_2_0_keep_their_folders() -> None:
    assert run_id(scoring(), {"model": "a"}) == "80976ec02882"
    assert run_id(tuning(), {"model": "a"}) == "c2173a847480"


def test_a_new_option_of_an_evaluation_leaves_its_folder_alone() -> None:
    run, later = scoring(), with_field(EvalJobSpec, Generation, default="plain")
    filled = run.model_copy(update={"spec": later.model_validate(run.spec).to_dict()})
    assert filled.spec["generation"]["newOption"] == "plain"
    with patch.dict(SPECS, {"EvalJob": later}):
        assert run_id(filled, {"model": "a"}) == run_id(run, {"model": "a"}) == "80976ec02882"
