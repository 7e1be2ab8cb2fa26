"""Promotion: only a model that has passed its EvalJobs is served."""

from __future__ import annotations

import json

import pytest

from tests.unit.operator.plan.inferenceservice.support import (
    GATED,
    TUNED_MODEL,
    evaluated,
    gated,
    ready,
    retuned,
    version,
)
from tests.unit.operator.plan.world import (
    Cluster,
    inference_service,
    tuned,
    with_spec,
)
from tunesmith_operator.plan.inferenceservice.promotion import source_as_recorded
from tunesmith_operator.plan.types import EventType, Reference


@pytest.mark.parametrize("uri", ["s3://models/a", "s3://models/a//b"], ids=["valid", "refused by this release"])
def test_a_recorded_uri_is_read_even_if_this_release_rejects_it_in_a_spec(uri: str) -> None:
    assert source_as_recorded({"uri": uri}).uri == uri


def test_a_recorded_reference_is_read() -> None:
    reference = source_as_recorded({"fineTuneJob": {"name": "support"}}).fine_tune_job
    assert reference is not None
    assert reference.name == "support"


HOW = pytest.mark.parametrize("how", ["a gate is added", "an EvalJob is added", "the verdict changes"])


def bar(cluster: Cluster, how: str) -> None:
    """What is served comes to stand before a gate that it has not passed."""
    if how == "a gate is added":
        cluster.others[Reference("EvalJob", "check")] = evaluated("Failed")
    if how == "an EvalJob is added":
        cluster.others[Reference("EvalJob", "check")] = evaluated("Passed")
        cluster.others[Reference("EvalJob", "more")] = evaluated("Failed")
    names = [{"name": "check"}, *([{"name": "more"}] if how == "an EvalJob is added" else [])]
    cluster.resource = with_spec(cluster.resource, promotion={"evalJobs": names})
    if how == "the verdict changes":
        cluster.others[Reference("EvalJob", "check")] = evaluated("Passed")
        cluster.settle()
        cluster.others[Reference("EvalJob", "check")] = evaluated("Failed")
    cluster.settle()


def ungated() -> Cluster:
    """A service that answers, without a gate."""
    cluster = Cluster(inference_service(model=TUNED_MODEL))
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.settle()
    ready(cluster)
    return cluster


def test_it_waits_for_its_model_then_for_the_verdict():
    cluster = Cluster(inference_service(**GATED))
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "WaitingForModel")
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "WaitingForVerdict")
    assert cluster.status["candidate"]["digest"] == "d2"
    cluster.others[Reference("EvalJob", "check")] = evaluated(None)
    cluster.settle()
    assert cluster.status["waitingFor"] == "EvalJob check to report its verdict; it is Running"
    assert cluster.deployments == {}
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed")
    cluster.settle()
    assert "support" in cluster.deployments
    assert cluster.condition("PromotionBlocked")["status"] == "False"


def test_a_model_that_failed_its_gate_is_not_served():
    cluster = gated("Failed")
    assert cluster.deployments == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Blocked", "PromotionBlocked")
    blocked = cluster.condition("PromotionBlocked")
    assert blocked["status"] == "True"
    for word in ("EvalJob check", "FineTuneJob support", "qa", "accuracy 0.35 is below 0.40"):
        assert word in blocked["message"]
    assert cluster.condition("Ready")["status"] == "False"
    assert cluster.condition("Ready")["reason"] == "PromotionBlocked"


def test_a_failed_verdict_leaves_the_old_version_serving():
    cluster = gated()
    ready(cluster)
    before = json.dumps(cluster.deployments["support"]["spec"]["template"], sort_keys=True)
    cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
    cluster.others[Reference("EvalJob", "check")] = evaluated("Failed", "e5")
    cluster.settle()
    assert json.dumps(cluster.deployments["support"]["spec"]["template"], sort_keys=True) == before
    assert cluster.status["phase"] == "Blocked"
    assert cluster.status["model"]["digest"] == "d2"
    assert cluster.status["candidate"]["digest"] == "e5"
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.condition("Stalled")["status"] == "True"
    assert "the previous version continues to answer" in cluster.status["message"]
    assert cluster.events[-1].type is EventType.WARNING


def test_a_verdict_on_another_model_of_the_same_name_does_not_count():
    cluster = gated()
    ready(cluster)
    cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
    cluster.settle()
    assert cluster.status["phase"] == "Blocked"
    assert "scored another model" in cluster.status["message"]
    assert cluster.status["model"]["digest"] == "d2"


def test_a_promoted_model_stays_promoted_when_its_evaljob_is_deleted():
    cluster = gated()
    ready(cluster)
    del cluster.others[Reference("EvalJob", "check")]
    assert cluster.reconcile().apply == ()
    assert cluster.status["phase"] == "Ready"
    cluster.resource = with_spec(cluster.resource, resources={"memory": "8Gi"})
    cluster.settle()
    template = cluster.deployments["support"]["spec"]["template"]
    assert template["spec"]["containers"][0]["resources"]["limits"] == {"memory": "8Gi"}


def test_status_records_the_pass_of_each_evaljob():
    cluster = gated()
    assert cluster.status["passed"] == [{"evalJob": "check", "uri": "s3://store/run/merged", "digest": "d2"}]


@HOW
def test_a_deployed_model_continues_to_answer_when_it_fails_a_later_gate(how):
    cluster = ungated()
    before = version(cluster)
    bar(cluster, how)
    assert version(cluster) == before
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Blocked", "PromotionBlocked")
    assert "has not passed" in cluster.condition("PromotionBlocked")["message"]
    assert cluster.condition("PromotionBlocked")["status"] == "True"
    assert cluster.condition("Stalled")["status"] == "True"
    assert cluster.condition("Ready")["status"] == "True"
    assert "it is deployed already and continues to answer" in cluster.status["message"]
    assert cluster.status["model"]["digest"] == "d2"
    assert "candidate" not in cluster.status


@HOW
def test_a_model_that_failed_a_later_gate_gets_no_new_version(how):
    cluster = ungated()
    before = version(cluster)
    bar(cluster, how)
    cluster.resource = with_spec(cluster.resource, resources={"memory": "8Gi"})
    cluster.settle()
    assert version(cluster) == before


def test_a_failed_verdict_is_not_undone_by_deleting_its_evaljob():
    cluster = gated()
    ready(cluster)
    cluster.others[Reference("EvalJob", "check")] = evaluated("Failed")
    cluster.settle()
    del cluster.others[Reference("EvalJob", "check")]
    cluster.settle()
    assert "passed" not in cluster.status
    assert cluster.condition("PromotionBlocked")["status"] == "Unknown"
    assert cluster.status["waitingFor"].startswith("EvalJob check")
    assert cluster.condition("Ready")["status"] == "True"


def test_a_verdict_on_a_later_model_does_not_affect_the_deployed_model():
    cluster = gated()
    ready(cluster)
    cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
    cluster.others[Reference("EvalJob", "check")] = evaluated("Failed", "e5")
    cluster.settle()
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.settle()
    assert cluster.status["phase"] == "Ready"


def test_every_evaljob_must_have_passed():
    cluster = Cluster(
        inference_service(model=TUNED_MODEL, promotion={"evalJobs": [{"name": "check"}, {"name": "more"}]})
    )
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed")
    cluster.others[Reference("EvalJob", "more")] = evaluated("Failed")
    cluster.settle()
    assert "EvalJob more" in cluster.status["message"]
    assert cluster.deployments == {}


def test_a_hub_model_is_served_from_the_copy_that_was_scored():
    uri = {"uri": "hf://a/b"}
    cluster = Cluster(inference_service(model=uri, promotion={"evalJobs": [{"name": "check"}]}))
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", "d9", uri, "s3://store/models/1")
    cluster.settle()
    run = json.loads(cluster.deployments["support"]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])
    assert (run["models"]["base"]["uri"], run["models"]["base"]["digest"]) == ("s3://store/models/1", "d9")
    ready(cluster)
    del cluster.others[Reference("EvalJob", "check")]
    cluster.settle()
    assert cluster.status["phase"] == "Ready"


def test_a_promotion_by_uri_alone_is_reported_as_such():
    plain = {"uri": "s3://models/a"}
    cluster = Cluster(inference_service(model=plain, promotion={"evalJobs": [{"name": "check"}]}))
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", "d9", plain, "s3://models/a")
    cluster.settle()
    assert "by the name of the folder only" in cluster.condition("PromotionBlocked")["message"]
    assert gated().condition("PromotionBlocked")["message"] == "passed by EvalJob check"


def test_a_verdict_on_another_uri_does_not_count():
    cluster = Cluster(inference_service(model={"uri": "hf://a/b"}, promotion={"evalJobs": [{"name": "check"}]}))
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", "d9", {"uri": "hf://c/d"})
    cluster.settle()
    assert cluster.status["phase"] == "Blocked"
