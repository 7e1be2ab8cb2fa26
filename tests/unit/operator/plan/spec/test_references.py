"""References to models, and what a resource waits for while they cannot be resolved."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.world import eval_job, fine_tune_job, inference_service, tuned
from tunesmith_api.common import ModelSource
from tunesmith_api.run import ResolvedModel
from tunesmith_api.status import LANGUAGE_MODELS, ArtifactType
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.spec.references import Refused, Waiting, describe, resolve, resolve_reward_model
from tunesmith_operator.plan.types import Raw, Reference

FIRST = Reference("FineTuneJob", "first")


def source(**fields) -> ModelSource:
    return ModelSource.model_validate(fields)


def published(*artifacts: str, **status) -> Raw:
    """A FineTuneJob that has published these artifacts."""
    job = tuned("first")
    job["status"]["artifacts"] = [
        {"name": name, "uri": f"s3://made/{name}", "digest": f"d-{name}"} for name in artifacts
    ]
    job["status"] |= status
    return job


@pytest.mark.parametrize(
    ("artifacts", "uri"),
    [
        (("adapter", "merged", "quantized"), "s3://made/quantized"),
        (("adapter", "merged"), "s3://made/merged"),
        (("model",), "s3://made/model"),
        (("adapter",), "s3://made/adapter"),
    ],
)
def test_the_artifact_that_needs_the_least_work_to_serve_is_used(artifacts, uri):
    model = resolve(source(fineTuneJob={"name": "first"}), {FIRST: published(*artifacts)})
    assert isinstance(model, ResolvedModel)
    assert model.uri == uri


@pytest.mark.parametrize("type_", set(ArtifactType) - set(LANGUAGE_MODELS))
def test_an_artifact_that_is_no_language_model_is_refused(type_: ArtifactType):
    model = resolve(source(fineTuneJob={"name": "first"}), {FIRST: published(type_)})
    assert isinstance(model, Refused)
    assert f"has published {type_}, but" in model.text


@pytest.mark.parametrize("artifacts", [("taskAdapter",), ("taskAdapter", "rewardModel")])
def test_a_reward_model_is_no_language_model(artifacts: tuple[str, ...]):
    job = published(*artifacts)
    job["spec"]["method"] = "reward"
    model = resolve(source(fineTuneJob={"name": "first"}), {FIRST: job})
    assert isinstance(model, Refused)
    assert model.hint == "name a FineTuneJob of another method: a model of method reward writes no text"


@pytest.mark.parametrize(
    ("method", "artifacts", "hint"),
    [
        (
            "reward",
            ("taskAdapter",),
            "create FineTuneJob first again with spec.export.merge: true and spec.until: export",
        ),
        ("sft", ("merged",), "name a FineTuneJob of method reward: a model of method sft scores no answers"),
    ],
)
def test_a_reward_is_the_score_of_a_whole_reward_model(method: str, artifacts: tuple[str, ...], hint: str):
    job = published(*artifacts)
    job["spec"]["method"] = method
    named = source(fineTuneJob={"name": "first"})
    model = resolve_reward_model(named, {FIRST: job})
    assert isinstance(model, Refused)
    assert model.hint == hint
    job["status"]["artifacts"] += [{"name": "rewardModel", "uri": "s3://made/scores", "digest": "d"}]
    assert resolve_reward_model(named, {FIRST: job}) == ResolvedModel(uri="s3://made/scores", digest="d")


def test_a_name_is_left_to_the_pod_to_look_up():
    named = source(name="qwen3-8b", trustRemoteCode=True)
    assert resolve(named, {}) == ResolvedModel(uri="catalogue://qwen3-8b", trust_remote_code=True)
    assert describe(named) == "model qwen3-8b"


def test_an_adapter_whose_job_names_its_base_has_the_name_until_the_job_reports_it():
    job = published("adapter", model={})
    job["spec"]["model"] = {"name": "qwen3-8b"}
    model = resolve(source(fineTuneJob={"name": "first"}), {FIRST: job})
    assert isinstance(model, ResolvedModel)
    assert model.base == ResolvedModel(uri="catalogue://qwen3-8b")


def test_an_adapter_has_the_base_that_its_job_has_read():
    model = resolve(source(fineTuneJob={"name": "first"}), {FIRST: published("adapter")})
    assert isinstance(model, ResolvedModel)
    assert model.base
    assert (model.base.uri, model.base.digest) == ("s3://store/m/1", "d0")


def test_trust_is_granted_by_the_referrer_and_includes_the_base():
    model = resolve(source(fineTuneJob={"name": "first"}, trustRemoteCode=True), {FIRST: published("adapter")})
    assert isinstance(model, ResolvedModel)
    assert model.trust_remote_code
    assert model.base
    assert model.base.trust_remote_code


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (None, "does not exist in this namespace"),
        (fine_tune_job("first"), "it is Pending"),
        (published(phase="Running"), "it is Running"),
        (published(phase="Failed", reason="BadRow"), "has failed (BadRow)"),
    ],
)
def test_an_unfinished_job_is_awaited_with_its_state_in_the_message(job, text):
    model = resolve(source(fineTuneJob={"name": "first"}), {FIRST: job})
    assert isinstance(model, Waiting)
    assert text in model.text


STALLED = {"type": "Stalled", "status": "True", "reason": "WaitingForModel", "message": "waiting for FineTuneJob x"}


@pytest.mark.parametrize(
    ("field", "thing", "text"),
    [
        ("fineTuneJob", fine_tune_job("first"), "it is Waiting (WaitingForModel: waiting for FineTuneJob x)"),
        (
            "inferenceService",
            inference_service("first"),
            "to serve a model (WaitingForModel: waiting for FineTuneJob x)",
        ),
    ],
)
def test_the_wait_for_a_stalled_resource_is_stalled_with_its_cause(field, thing, text):
    references = {Reference(thing["kind"], "first"): {**thing, "status": {"phase": "Waiting", "conditions": [STALLED]}}}
    model = resolve(source(**{field: {"name": "first"}}), references)
    assert isinstance(model, Waiting)
    assert model.is_stalled
    assert text in model.text


def test_the_wait_for_a_refused_job_has_the_message_of_the_job():
    refused = published(phase="Failed", reason="BadSpec", message="tuner x: use lora", completionTime=None)
    model = resolve(source(fineTuneJob={"name": "first"}), {FIRST: refused})
    assert isinstance(model, Waiting)
    assert model.is_stalled
    assert "which has failed (BadSpec): tuner x: use lora" in model.text


def test_a_job_without_artifacts_is_refused_and_not_awaited():
    model = resolve(source(fineTuneJob={"name": "first"}), {FIRST: published("report")})
    assert isinstance(model, Refused)
    assert "has published report" in model.text


def test_a_uri_is_resolved_to_itself():
    model = resolve(source(uri="hf://a/b@main"), {})
    assert isinstance(model, ResolvedModel)
    assert model.uri == "hf://a/b@main"


def test_a_model_is_described_as_in_the_spec():
    named = [{"uri": "s3://made/a"}, {"fineTuneJob": {"name": "x"}}, {"inferenceService": {"name": "y"}}]
    assert [describe(source(**fields)) for fields in named] == ["s3://made/a", "FineTuneJob x", "InferenceService y"]


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (fine_tune_job(), set()),
        (fine_tune_job(model={"fineTuneJob": {"name": "a"}}), {("FineTuneJob", "a")}),
        (
            eval_job(model={"fineTuneJob": {"name": "a"}}, baseline={"inferenceService": {"name": "b"}}),
            {("FineTuneJob", "a"), ("InferenceService", "b")},
        ),
        (
            inference_service(
                model={"fineTuneJob": {"name": "a"}},
                adapters=[{"name": "x", "fineTuneJob": {"name": "b"}}, {"name": "y", "uri": "s3://other/z"}],
                promotion={"evalJobs": [{"name": "c"}]},
            ),
            {("FineTuneJob", "a"), ("FineTuneJob", "b"), ("EvalJob", "c")},
        ),
    ],
)
def test_a_kind_names_all_of_its_references(thing, named):
    assert KINDS[thing["kind"]].references(thing) == {Reference(*key) for key in named}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", [{}, {"model": None}, {"model": "x", "adapters": [], "promotion": {}}, {"model": {}}])
def test_an_invalid_spec_has_no_references_and_raises_no_error(kind, spec):
    thing = {"kind": kind, "metadata": {"name": "a", "uid": "u"}, "spec": spec}
    assert KINDS[kind].references(thing) == frozenset()
