"""The cost of attempts: counted once, whatever happens between two reconciles."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.plan.test_properties import steady
from tests.unit.operator.plan.world import (
    TUNED,
    Cluster,
    condition,
    ended,
    eval_job,
    fine_tune_job,
    report,
    running,
    with_spec,
)
from tunesmith_operator.plan.jobs.accounting import FIELDS, ROWS_KEPT
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw

GPUS = {"resources": {"accelerator": "nvidia"}}
TRAINS = {"fetch": running()}


def job(number: int = 1) -> str:
    return f"support-tune-{number}"


def begun(**spec) -> Cluster:
    cluster = Cluster(fine_tune_job(**{**GPUS, **spec}))
    cluster.begin()
    return cluster


def passes(cluster: Cluster, seconds: float) -> None:
    cluster.now += timedelta(seconds=seconds)


def places(cluster: Cluster, number: int = 1) -> None:
    """The pod is scheduled and runs."""
    if (Job := cluster.jobs[job(number)])["spec"].get("suspend"):
        cluster.admit(job(number))
    Job.setdefault("status", {}).setdefault("startTime", format_time(cluster.now))
    cluster.start_pod(job(number), "Pending", TRAINS)


def ends(cluster: Cluster, number: int, code: int, **more) -> None:
    """End the running pod of an attempt, and its Job."""
    pod = cluster.pods[f"{job(number)}-x7k2p"]
    state = ended(code, **more)
    state["terminated"]["finishedAt"] = format_time(cluster.now)
    cluster.start_pod(job(number), "Failed", {"fetch": state}, startTime=pod["status"]["startTime"])
    started = cluster.jobs[job(number)]["status"].get("startTime")
    cluster.end_job(job(number), "Failed")
    cluster.jobs[job(number)]["status"]["startTime"] = started


def succeeds(cluster: Cluster, number: int) -> None:
    states = copy.deepcopy(TUNED)
    for state in states.values():
        state["terminated"]["finishedAt"] = format_time(cluster.now)
    placed = cluster.pods[f"{job(number)}-x7k2p"]["status"]["startTime"]
    cluster.start_pod(job(number), "Succeeded", states, startTime=placed)
    cluster.end_job(job(number), "Complete", "CompletionsReached")


def device_seconds(cluster: Cluster) -> int:
    return round(3600 * cluster.status.get("acceleratorHours", 0))


def test_a_succeeded_attempt_has_its_waiting_time_and_device_hours():
    cluster = begun()
    passes(cluster, 60)
    places(cluster)
    cluster.settle()
    passes(cluster, 1800)
    succeeds(cluster, 1)
    cluster.settle()
    [row] = cluster.status["attempts"]
    assert (row["number"], row["outcome"]) == (1, "Succeeded")
    assert (row["queuedSeconds"], row["acceleratorSeconds"]) == (60, 1800)
    assert (cluster.status["queuedSeconds"], cluster.status["acceleratorHours"]) == (60, 0.5)


def test_a_job_on_the_cpu_has_no_device_hours():
    cluster = begun(resources={})
    places(cluster)
    passes(cluster, 1800)
    succeeds(cluster, 1)
    cluster.settle()
    assert "acceleratorHours" not in cluster.status
    assert "acceleratorSeconds" not in cluster.status["attempts"][0]


def test_a_pod_that_the_kubelet_rejects_in_the_second_of_its_placement_is_counted_once():
    cluster = begun()
    message = "Pod was rejected: Allocate failed due to no healthy devices present"
    pod = cluster.start_pod(job(), "Failed", reason="UnexpectedAdmissionError", message=message)
    del pod["status"]["initContainerStatuses"], pod["status"]["containerStatuses"]
    cluster.end_job(job(), "Failed")
    for _ in range(3):
        cluster.reconcile()
    [row] = cluster.status["attempts"]
    assert (row["outcome"], cluster.status["preemptions"]) == ("NodeRefused", 1)


def test_failed_attempts_count_too():
    cluster = begun(retries=1)
    for number in (1, 2):
        passes(cluster, 30)
        places(cluster, number)
        cluster.settle()
        passes(cluster, 100)
        ends(cluster, number, 137, reason="OOMKilled")
        cluster.settle()
        cluster.reconcile(after=10)
    assert cluster.status["phase"] == "Failed"
    rows = [(row["number"], row["outcome"], row["failures"]) for row in cluster.status["attempts"]]
    assert rows == [(1, "OOMKilled", 1), (2, "OOMKilled", 2)]
    assert (device_seconds(cluster), cluster.status["queuedSeconds"]) == (200, 60)
    assert "preemptions" not in cluster.status


def test_each_stay_of_a_job_that_its_queue_readmits_counts():
    cluster = begun(queueName="gpus")
    for _ in range(2):
        passes(cluster, 300)
        places(cluster)
        cluster.settle()
        passes(cluster, 1000)
        cluster.hold(job())
        cluster.settle()
        passes(cluster, 20)
        cluster.stop_pods(job())
        cluster.settle()
    assert (device_seconds(cluster), cluster.status["queuedSeconds"]) == (2040, 600)
    assert cluster.status["preemptions"] == 2


def test_a_readmission_between_two_reconciles_is_two_stays():
    cluster = begun(queueName="gpus")
    places(cluster)
    cluster.settle()
    passes(cluster, 1000)
    cluster.hold(job())
    cluster.stop_pods(job())
    passes(cluster, 500)
    places(cluster)
    passes(cluster, 100)
    cluster.settle()
    outcomes = [row.get("outcome") for row in cluster.status["attempts"]]
    assert outcomes == ["Preempted", None]
    assert cluster.status["preemptions"] == 1
    assert device_seconds(cluster) <= 1600


def test_pods_count_until_they_have_stopped():
    cluster = begun(deadline="1h")
    places(cluster)
    cluster.settle()
    passes(cluster, 3600)
    pod = cluster.pods[f"{job()}-x7k2p"]
    cluster.reconcile()
    assert (cluster.status["phase"], job() in cluster.jobs) == ("Failed", False)
    cluster.pods = {pod["metadata"]["name"]: pod}
    cluster.settle()
    assert cluster.condition("Reconciling")["status"] == "True", "its pod is still at work"
    passes(cluster, 40)
    cluster.pods.clear()
    cluster.settle()
    assert cluster.condition("Reconciling")["status"] == "False"
    [row] = cluster.status["attempts"]
    assert (row["outcome"], row["acceleratorSeconds"]) == ("Stopped", 3640)


def test_suspend_ends_a_stay_when_its_pod_has_stopped():
    cluster = begun()
    places(cluster)
    cluster.settle()
    passes(cluster, 600)
    pod = cluster.pods[f"{job()}-x7k2p"]
    cluster.resource = with_spec(cluster.resource, suspend=True)
    cluster.reconcile()
    cluster.pods = {pod["metadata"]["name"]: pod}
    cluster.settle()
    assert "endTime" not in cluster.status["attempts"][0]
    passes(cluster, 30)
    cluster.pods.clear()
    cluster.settle()
    [row] = cluster.status["attempts"]
    assert (row["outcome"], row["acceleratorSeconds"]) == ("Suspended", 630)
    passes(cluster, 86400)
    cluster.resource = with_spec(cluster.resource, suspend=False)
    cluster.settle()
    places(cluster, 2)
    cluster.settle()
    passes(cluster, 100)
    succeeds(cluster, 2)
    cluster.settle()
    assert [row["number"] for row in cluster.status["attempts"]] == [1, 2]
    assert (device_seconds(cluster), cluster.status["queuedSeconds"]) == (730, 0), "a day suspended costs nothing"
    assert "preemptions" not in cluster.status


def test_each_device_of_each_pod_counts():
    cluster = begun(parallelism={"nodes": 2}, resources={"accelerator": "nvidia", "count": 4})
    for index in range(2):
        passes(cluster, 10)
        cluster.start_pod(job(), "Running", TRAINS, index=index)
    cluster.settle()
    passes(cluster, 90)
    cluster.stop_pods(job())
    cluster.jobs[job()]["status"] = {"conditions": [condition("Failed", at=cluster.now)]}
    cluster.settle()
    [row] = cluster.status["attempts"]
    assert row["queuedSeconds"] == 10, "until the first has its node"
    assert row["acceleratorSeconds"] == 2 * 4 * 100, "of pods that went unseen, when the first came counts for all"


def test_the_success_of_pod_0_closes_the_row():
    cluster = begun(parallelism={"nodes": 2})
    for index in range(2):
        cluster.start_pod(job(), "Running", TRAINS, index=index)
    cluster.settle()
    passes(cluster, 60)
    states = copy.deepcopy(TUNED)
    for state in states.values():
        state["terminated"]["finishedAt"] = format_time(cluster.now)
    cluster.start_pod(job(), "Succeeded", states, index=0, startTime=format_time(cluster.now - timedelta(seconds=60)))
    passes(cluster, 5)
    cluster.settle()
    [row] = cluster.status["attempts"]
    assert (row["outcome"], row["acceleratorSeconds"]) == ("Succeeded", 120)
    assert row["endTime"]


def test_growing_sums_cause_no_write():
    cluster = begun()
    places(cluster)
    cluster.settle()
    assert cluster.reconcile(after=3600).is_empty
    assert device_seconds(cluster) == 0


def test_the_rows_are_bounded_and_the_sums_exact():
    cluster = begun()
    for number in range(1, 2 * ROWS_KEPT + 1):
        places(cluster, number)
        cluster.settle()
        passes(cluster, 100)
        ends(cluster, number, 75, message=report("train", "Preempted"))
        cluster.settle()
        cluster.reconcile(after=60)
    rows = cluster.status["attempts"]
    assert len(rows) == ROWS_KEPT
    assert device_seconds(cluster) == 2 * ROWS_KEPT * 100
    assert cluster.status["preemptions"] == 2 * ROWS_KEPT


def test_counted_failures_of_each_role_outlive_its_jobs():
    cluster = Cluster(eval_job(baseline={"uri": "s3://models/b"}, retries=1))
    cluster.settle()
    cluster.fail("support-eval-model-1", {"fetch": TUNED["fetch"], "serve": ended(137, reason="OOMKilled")})
    cluster.settle()
    for name in list(cluster.jobs):
        cluster.remove(name)
    cluster.settle()
    failures = {
        label: job["metadata"]["annotations"]["tunesmith.dev/failures"]
        for job in cluster.jobs.values()
        if (label := job["metadata"]["labels"]["tunesmith.dev/role"])
    }
    assert failures == {"eval-model": "1", "eval-baseline": "0"}


def test_the_status_of_a_release_without_rows_keeps_its_count():
    cluster = begun(retries=1)
    cluster.fail(job(), {"train": ended(137, reason="OOMKilled")})
    cluster.settle()
    cluster.remove(job())
    old = {name: value for name, value in cluster.status.items() if name not in FIELDS}
    cluster.resource = {**cluster.resource, "status": old}
    cluster.settle()
    assert cluster.jobs[job(2)]["metadata"]["annotations"]["tunesmith.dev/failures"] == "1"


class Bill:
    """A life of a job, with its expected totals in whole seconds."""

    def __init__(self, queue: bool) -> None:
        self.cluster = begun(retries=100, **({"queueName": "gpus"} if queue else {}))
        self.queue, self.held, self.waited, self.preempted = queue, 0, 0, 0
        self.reconcile()

    def reconcile(self, lost: bool = False) -> None:
        """Reconcile until no write is left. A lost write is as if the operator had been killed before it."""
        before = self.cluster.resource
        self.cluster.reconcile()
        if lost:
            self.cluster.resource = before
        self.cluster.settle(turns=12)

    @property
    def number(self) -> int:
        return max(int(name.rpartition("-")[2]) for name in self.cluster.jobs)

    def stay(self, wait: int, work: int, end: str, stop: int, times: list[int], lost: bool) -> None:
        """A wait, a stay on a node, and its end, with reconciles at `times` of the stay and when a pod has ended."""
        passes(self.cluster, wait)
        number = self.number
        places(self.cluster, number)
        done = 0
        for time in sorted(time for time in times if time < work):
            passes(self.cluster, time - done)
            done = time
            self.reconcile()
        passes(self.cluster, work - done)
        self.waited += wait
        self.held += work
        self.preempted += end != "oom"
        if end == "evict" and self.queue:
            self.cluster.hold(job(number))
            self.reconcile(lost)
            passes(self.cluster, stop)
            self.held += stop
            self.cluster.stop_pods(job(number))
        elif end == "oom":
            ends(self.cluster, number, 137, reason="OOMKilled")
        else:
            ends(self.cluster, number, 75, message=report("train", "Preempted"))
        self.reconcile(lost)
        self.pass_backoff()

    def pass_backoff(self) -> None:
        """Let the backoff pass until the next Job exists."""
        for _ in range(100):
            if not (self.cluster.plans[-1].requeue_after and self.cluster.status["reason"] == "BackOff"):
                return
            passes(self.cluster, self.cluster.plans[-1].requeue_after)
            self.reconcile()


stays = st.tuples(
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.sampled_from(["evict", "oom", "preempt"]),
    st.integers(0, 100),
    st.lists(st.integers(0, 5000), max_size=3),
    st.booleans(),
)


@given(queue=st.booleans(), observed_stays=st.lists(stays, max_size=10))
@steady
def test_the_totals_are_those_of_the_stays(queue, observed_stays):
    """To the second, over attempts, evictions and lost writes, if the end of each pod is observed."""
    bill = Bill(queue)
    for stay in observed_stays:
        bill.stay(*stay)
    places(bill.cluster, bill.number)
    passes(bill.cluster, 77)
    succeeds(bill.cluster, bill.number)
    bill.reconcile()
    status = bill.cluster.status
    assert status["phase"] == "Succeeded"
    assert device_seconds(bill.cluster) == bill.held + 77
    assert status["queuedSeconds"] == bill.waited
    assert status.get("preemptions", 0) == bill.preempted
    assert all("endTime" in row for row in status["attempts"])


happenings = st.sampled_from(["reconcile", "place", "evict", "gone", "fail", "delete", "suspend", "resume"])


@given(story=st.lists(st.tuples(happenings, st.integers(0, 900)), max_size=25), queue=st.booleans())
@steady
def test_the_totals_never_exceed_the_time_passed_and_never_decrease(story, queue):
    """Whatever is not observed: pods that vanish, Jobs that are deleted, an operator that does not run."""
    cluster = begun(retries=100, **({"queueName": "gpus"} if queue else {}))
    start, before = cluster.now, {}
    for happening, seconds in story:
        passes(cluster, seconds)
        happens(cluster, happening)
        if happening == "reconcile":
            cluster.settle(turns=12)
            closed = [row for row in cluster.status.get("attempts", []) if "endTime" in row]
            assert [row for row in before.get("attempts", []) if "endTime" in row][-len(closed) or None :] <= closed
            check(cluster, before, start)
            before = copy.deepcopy(cluster.status)


def happens(cluster: Cluster, happening: str) -> None:
    names = sorted((name for name in cluster.jobs if "-tune-" in name), key=lambda name: int(name.rpartition("-")[2]))
    over = bool(names and any(condition["type"] == "Failed" for condition in conditions(cluster, names[-1])))
    if happening in ("suspend", "resume"):
        cluster.resource = with_spec(cluster.resource, suspend=happening == "suspend")
    elif names and not over:
        number = int(names[-1].rpartition("-")[2])
        has_pod = any(name.startswith(f"{names[-1]}-") for name in cluster.pods)
        if happening == "place" and not has_pod:
            places(cluster, number)
        if happening == "evict" and "kueue.x-k8s.io/queue-name" in cluster.jobs[names[-1]]["metadata"]["labels"]:
            cluster.hold(names[-1])
        if happening == "gone":
            cluster.stop_pods(names[-1])
        if happening == "fail" and has_pod:
            ends(cluster, number, 137, reason="OOMKilled")
        if happening == "delete":
            cluster.remove(names[-1])


def conditions(cluster: Cluster, name: str) -> list[Raw]:
    return (cluster.jobs[name].get("status") or {}).get("conditions") or []


def check(cluster: Cluster, before: Raw, start: datetime) -> None:
    status, passed = cluster.status, (cluster.now - start).total_seconds()
    assert device_seconds(cluster) <= passed, "one device, one pod at a time"
    assert status["queuedSeconds"] <= passed
    assert device_seconds(cluster) + status["queuedSeconds"] <= passed + 1
    assert status["acceleratorHours"] >= before.get("acceleratorHours", 0)
    assert status.get("preemptions", 0) >= before.get("preemptions", 0)
    numbers = [row["number"] for row in status.get("attempts", [])]
    assert numbers == sorted(numbers)
    again = cluster.plan()
    assert again.is_empty


@pytest.mark.parametrize("reason", ["DeletionByTaintManager", "PreemptionByScheduler", "EvictionByEvictionAPI"])
def test_a_disruption_is_a_preemption_and_no_failure(reason):
    cluster = begun(retries=0)
    places(cluster)
    cluster.settle()
    passes(cluster, 600)
    ends(cluster, 1, 143)
    cluster.pods[f"{job()}-x7k2p"]["status"]["conditions"] = [condition("DisruptionTarget", True, reason)]
    cluster.settle()
    cluster.reconcile(after=60)
    assert job(2) in cluster.jobs
    assert cluster.status["preemptions"] == 1
    assert "failures" not in cluster.status
