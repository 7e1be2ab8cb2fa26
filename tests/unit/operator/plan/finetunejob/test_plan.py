"""The life of a FineTuneJob."""

from __future__ import annotations

import json

from tests.unit.operator.plan.jobs.support import begun
from tests.unit.operator.plan.world import (
    TUNED,
    Cluster,
    fine_tune_job,
    running,
    tune,
    tuned,
)
from tunesmith_operator.plan.types import Reference


def test_a_job_without_failures_costs_five_writes_and_three_events():
    cluster = begun()
    cluster.start_pod("support-tune-1")
    cluster.settle()
    for states in ({"fetch": running()}, {"fetch": TUNED["fetch"], "train": running()}):
        cluster.start_pod("support-tune-1", "Pending", states)
        cluster.settle()
    tune(cluster)
    cluster.settle()
    assert cluster.writes == 5
    assert [event.reason for event in cluster.events] == ["WaitingForPod", "Running", "Completed"]


def test_a_job_that_finishes_immediately_costs_three_writes():
    cluster = begun()
    tune(cluster)
    cluster.settle()
    assert cluster.writes == 3


def test_it_waits_for_the_job_that_makes_its_model():
    cluster = begun(fine_tune_job(model={"fineTuneJob": {"name": "first"}}))
    assert cluster.jobs == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "WaitingForModel")
    assert "FineTuneJob first" in cluster.status["waitingFor"]
    cluster.others[Reference("FineTuneJob", "first")] = tuned("first")
    cluster.settle()
    run = json.loads(cluster.jobs["support-tune-1"]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])
    assert run["models"]["base"] == {"uri": "s3://store/run/merged", "digest": "d2", "trustRemoteCode": False}
    assert cluster.status["waitingFor"].startswith("the pod to be scheduled")


def test_an_adapter_alone_cannot_be_tuned_further():
    first = tuned("first")
    first["status"]["artifacts"] = first["status"]["artifacts"][:1]
    cluster = Cluster(fine_tune_job(model={"fineTuneJob": {"name": "first"}}))
    cluster.others[Reference("FineTuneJob", "first")] = first
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadSpec")
    assert "export.merge: true" in cluster.status["message"]


def test_it_waits_for_the_adapter_that_it_goes_on_with_and_trains_it_on_the_named_base():
    lora = {"from": {"fineTuneJob": {"name": "first"}}}
    cluster = begun(fine_tune_job(lora=lora))
    assert cluster.jobs == {}
    assert "FineTuneJob first" in cluster.status["waitingFor"]
    cluster.others[Reference("FineTuneJob", "first")] = tuned("first")
    cluster.settle()
    run = json.loads(cluster.jobs["support-tune-1"]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])
    base, initial = run["models"]["base"], run["models"]["initial"]
    assert base["uri"] == fine_tune_job()["spec"]["model"]["uri"]
    assert initial["uri"] == "s3://store/run/adapter"
    assert initial["base"]["uri"] == tuned("first")["status"]["model"]["uri"]


def test_it_waits_for_its_teacher_and_fetches_it_beside_its_model():
    gkd = {"teacher": {"fineTuneJob": {"name": "first"}}}
    cluster = begun(fine_tune_job(method="gkd", gkd=gkd))
    assert "FineTuneJob first" in cluster.status["waitingFor"]
    cluster.others[Reference("FineTuneJob", "first")] = tuned("first")
    cluster.settle()
    run = json.loads(cluster.jobs["support-tune-1"]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])
    assert run["models"]["teacher"] == {"uri": "s3://store/run/merged", "digest": "d2", "trustRemoteCode": False}
    assert set(run["models"]) == {"base", "teacher"}


def test_it_waits_for_its_reward_model_and_fetches_it_beside_its_model():
    reward = {"name": "taste", "type": "model", "model": {"fineTuneJob": {"name": "first"}}}
    cluster = begun(fine_tune_job(method="ppo", rewards=[reward]))
    assert "FineTuneJob first" in cluster.status["waitingFor"]
    first = tuned("first")
    first["status"]["artifacts"] = [{"name": "rewardModel", "uri": "s3://store/run/reward", "digest": "d3"}]
    cluster.others[Reference("FineTuneJob", "first")] = first
    cluster.settle()
    run = json.loads(cluster.jobs["support-tune-1"]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])
    assert run["models"]["reward"] == {"uri": "s3://store/run/reward", "digest": "d3", "trustRemoteCode": False}
    assert set(run["models"]) == {"base", "reward"}
