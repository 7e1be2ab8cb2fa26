"""Invariants of plans over random lives of the three kinds, as lists of events in the cluster."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.operator.plan.world import (
    CONFIG,
    TUNED,
    Cluster,
    condition,
    ended,
    eval_job,
    failed_report,
    fine_tune_job,
    inference_service,
    report,
    running,
    tuned,
    waiting,
    with_spec,
)
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.finetunejob_status import LastCheckpoint, MeanReward, Rows
from tunesmith_api.run import ProgressReport
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.failures.pod_start import pending_failure
from tunesmith_operator.plan.failures.termination import crash_failure, permanent_failure, termination_failure
from tunesmith_operator.plan.jobs import accounting
from tunesmith_operator.plan.names import ROLE_LABEL
from tunesmith_operator.plan.pods.members import pod_count
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.types import Key, Observed, Progress, Raw, Reference

RESULTS = [{"benchmark": "support-qa", "metric": "accuracy", "value": 0.5}]
DONE = {
    **TUNED,
    "prepare": ended(message=report("prepare")),
    "serve": ended(143),
    "evaluate": ended(message=report("evaluate", results=RESULTS)),
}
TUNED_MODEL = {"fineTuneJob": {"name": "first"}}

SPECS: dict[str, Callable[..., Raw]] = {
    "FineTuneJob": fine_tune_job,
    "EvalJob": eval_job,
    "InferenceService": inference_service,
}
KIND_SPECS: dict[str, list[Raw]] = {
    "FineTuneJob": [
        {},
        {"model": TUNED_MODEL, "retries": 0},
        {"deadline": "10m", "pendingDeadline": "1m", "ttlAfterFinished": "1m"},
        {"parallelism": {"nodes": 2}},
        {"queueName": "gpus", "resources": {"accelerator": "nvidia"}, "deadline": "10m", "pendingDeadline": "1m"},
    ],
    "EvalJob": [
        {},
        {"model": TUNED_MODEL, "baseline": {"uri": "s3://m/b"}, "gates": [{"benchmark": "support-qa", "min": 0.6}]},
        {"retries": 1, "deadline": "5m", "engine": "vllm", "resources": {"accelerator": "nvidia"}},
        {"queueName": "gpus", "baseline": {"uri": "s3://m/b"}, "retries": 1},
        {"baseline": {"uri": "s3://m/b"}, "resources": {"accelerator": "nvidia"}},
    ],
    "InferenceService": [
        {},
        {"model": TUNED_MODEL, "promotion": {"evalJobs": [{"name": "check"}]}},
        {"replicas": 3, "rollout": {"strategy": "Recreate", "readyTimeout": "1m"}},
    ],
}

codes = st.sampled_from([0, 1, 64, 65, 68, 69, 71, 75, 77, 83, 128, 137, 139, 143, 255])
classes = st.sampled_from(list(FailureClass))
messages = st.one_of(
    st.just(""),
    st.text(max_size=20),
    st.builds(lambda class_: failed_report("train", class_, "what and where"), classes),
    st.sampled_from([report(verb) for verb in ("prepare", "fetch", "train", "export", "evaluate", "serve")]),
    st.just(report("prepare", "Adopted", results=RESULTS)),
)
states = st.one_of(
    st.just(running()),
    st.builds(ended, codes, messages, st.sampled_from([None, "OOMKilled", "StartError", "ContainerStatusUnknown"])),
    st.builds(
        waiting,
        st.sampled_from(["PodInitializing", "ImagePullBackOff", "CreateContainerConfigError", "CrashLoopBackOff", ""]),
        st.sampled_from(["", 'secret "x" not found', "couldn't find key A in Secret team/x"]),
    ),
    st.builds(
        lambda last, restarts: {"state": waiting("CrashLoopBackOff"), "lastState": last, "restartCount": restarts},
        st.builds(ended, codes, messages),
        st.integers(0, 5),
    ),
)
containers = st.dictionaries(st.sampled_from(["prepare", "fetch", "train", "export", "serve", "evaluate"]), states)
pod_conditions = st.lists(
    st.builds(
        condition,
        st.sampled_from(["PodScheduled", "DisruptionTarget", "Ready", "Initialized"]),
        st.booleans(),
        st.sampled_from(["Unschedulable", "PreemptionByScheduler", "DeletionByTaintManager", ""]),
        st.sampled_from(["", "0/1 nodes are available: 1 Insufficient cpu."]),
    ),
    max_size=2,
)
pod_phases = st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"])


OTHERS = (Key("Deployment", "support"), Key("Service", "support-tune-world"))


class Life:
    """A cluster, and the events that may occur in it."""

    def __init__(self, kind: str, spec: Raw) -> None:
        self.cluster = Cluster(SPECS[kind](**spec))
        self.made: list[str] = []
        self.passed: set[str | None] = set()
        self.failed: set[str | None] = set()

    def newest(self, index: int) -> str | None:
        jobs = sorted(self.cluster.jobs)
        return jobs[index % len(jobs)] if jobs else None

    def place(self, job: str, index: int) -> int | None:
        """Which pod of a Job is meant, where it has several."""
        count = pod_count(self.cluster.jobs[job])
        return index % count if count > 1 else None

    def pod(self, index: int, phase: str, payload: Raw, conditions: list[Raw]) -> None:
        if job := self.newest(index):
            self.cluster.start_pod(job, phase, payload, conditions=conditions, index=self.place(job, index))

    def finish(self, index: int) -> None:
        if job := self.newest(index):
            self.cluster.start_pod(job, "Succeeded", DONE, index=self.place(job, 0))
            self.cluster.end_job(job, "Complete")

    def fail(self, index: int, payload: Raw) -> None:
        if job := self.newest(index):
            self.cluster.fail(job, payload, index=self.place(job, index))

    def end_job(self, index: int, type_: str) -> None:
        if job := self.newest(index):
            self.cluster.end_job(job, type_)

    def delete_job(self, index: int, with_pods: bool) -> None:
        if job := self.newest(index):
            if with_pods:
                self.cluster.remove(job)
            else:
                del self.cluster.jobs[job]

    def admit(self, index: int) -> None:
        if (job := self.newest(index)) and self.goes_on(job):
            self.cluster.admit(job)

    def hold(self, index: int) -> None:
        if (job := self.newest(index)) and self.goes_on(job):
            self.cluster.hold(job)

    def goes_on(self, job: str) -> bool:
        ended = (self.cluster.jobs[job].get("status") or {}).get("conditions") or []
        return not any(condition["type"] in ("Complete", "Failed", "FailureTarget") for condition in ended)

    def delete_pods(self) -> None:
        self.cluster.pods.clear()

    def suspend(self, suspend: bool) -> None:
        self.cluster.resource = with_spec(self.cluster.resource, suspend=suspend)

    def wait(self, seconds: int) -> None:
        self.cluster.now += timedelta(seconds=seconds)

    def push(self, index: int, step: int) -> None:
        if job := self.newest(index):
            payload = ProgressReport(stage="train", step=step, total_steps=10)
            self.cluster.progress[job] = Progress(payload, self.cluster.now)

    def refer(self, there: bool, digest: str) -> None:
        self.cluster.others.clear()
        if there:
            job = copy.deepcopy(FIRST)
            job["status"]["artifacts"][-1]["digest"] = digest
            self.cluster.others[Reference("FineTuneJob", "first")] = job

    def judge(self, verdict: str | None, digest: str) -> None:
        if verdict == "Passed":
            self.passed.add(digest)
            self.failed.discard(digest)
        if verdict == "Failed":
            self.failed.add(digest)
        job = eval_job("check", model=TUNED_MODEL)
        status = {"phase": "Succeeded", "verdict": verdict, "model": {"uri": "s3://m", "digest": digest}}
        self.cluster.others[Reference("EvalJob", "check")] = {**job, "status": status}

    def lose_verdict(self) -> None:
        self.cluster.others.pop(Reference("EvalJob", "check"), None)

    def gate(self, there: bool) -> None:
        bare = {name: value for name, value in self.cluster.resource["spec"].items() if name != "promotion"}
        gates = {"promotion": {"evalJobs": [{"name": "check"}]}} if there else {}
        self.cluster.resource = {**with_spec(self.cluster.resource), "spec": {**bare, **gates}}

    def edit(self, memory: str) -> None:
        self.cluster.resource = with_spec(self.cluster.resource, resources={"memory": memory})

    def deploy(self, total: int, ready: int, updated: int, late: bool) -> None:
        for deployment in self.cluster.deployments.values():
            conditions = [condition("Progressing", False, "ProgressDeadlineExceeded")] if late else []
            counts = {"replicas": total, "readyReplicas": ready, "updatedReplicas": updated}
            generation = deployment["metadata"]["generation"]
            deployment["status"] = {**counts, "observedGeneration": generation, "conditions": conditions}

    def stand_in_the_way(self, there: bool) -> None:
        names = ("support-tune-1", "support-tune-2", "support-eval-model-1")
        taken = {Key("Job", name) for name in names} - {Key("Job", name) for name in self.cluster.jobs}
        taken |= {Key("Service", "support-tune-world")} - {Key("Service", name) for name in self.cluster.services}
        self.cluster.foreign = taken if there and self.cluster.resource["kind"] != "InferenceService" else set()

    def refuse(self, there: bool) -> None:
        keys = [Key("Job", f"support-{role}-{n}") for role in ("tune", "eval-model") for n in range(1, 9)]
        self.cluster.refused = dict.fromkeys([*keys, *OTHERS], "exceeded quota") if there else {}

    def configure(self, allow: bool, image: str) -> None:
        images = CONFIG.images.model_copy(update={"runtime": image})
        self.cluster.config = CONFIG.model_copy(update={"allow_trust_remote_code": allow, "images": images})

    def settle(self) -> None:
        """Everything that is promised of every plan, at this moment."""
        self.cluster.settle(turns=12)
        created = (made for plan in self.cluster.plans for made in plan.create if made["kind"] == "Job")
        self.made += [job["metadata"]["name"] for job in created]
        for plan in self.cluster.plans:
            assert plan.requeue_after is None or plan.requeue_after >= 0
        self.cluster.plans = self.cluster.plans[-1:]


FIRST = tuned("first")
indexes, flags = st.integers(0, 3), st.booleans()
digests = st.sampled_from(["d2", "e5"])


def act(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, tuple[Any, ...]]]:
    return st.tuples(st.just(name), st.tuples(*arguments))


events = st.one_of(
    act("pod", indexes, pod_phases, containers, pod_conditions),
    act("finish", indexes),
    act("fail", indexes, containers),
    act("end_job", indexes, st.sampled_from(["Complete", "Failed", "FailureTarget"])),
    act("delete_job", indexes, flags),
    act("delete_pods"),
    act("admit", indexes),
    act("hold", indexes),
    act("suspend", flags),
    act("wait", st.sampled_from([1, 20, 100, 1000])),
    act("push", indexes, st.integers(0, 12)),
    act("refer", flags, digests),
    act("judge", st.sampled_from([None, "Passed", "Failed"]), digests),
    act("deploy", st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), flags),
    act("stand_in_the_way", flags),
    act("refuse", flags),
    act("configure", flags, st.sampled_from(["registry/runtime:1", "registry/runtime:2"])),
)
lives = st.sampled_from([(kind, spec) for kind, specs in KIND_SPECS.items() for spec in specs])
steady = settings(
    max_examples=examples(15),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@given(life=lives, story=st.lists(events, max_size=10))
@steady
def test_after_any_events_the_plan_comes_to_rest_and_keeps_its_invariants(life, story):
    kind, spec = life
    alive = Life(kind, spec)
    alive.settle()
    for name, arguments in story:
        was_final = bool(alive.cluster.status.get("completionTime"))
        before = dict(alive.cluster.status)
        getattr(alive, name)(*arguments)
        alive.settle()
        check(alive, was_final, before)


AFTER_COMPLETION = ("observedGeneration", "conditions", "children", *accounting.FIELDS)
"""Fields that may change after completion: pods cost until they have stopped."""


def check(alive: Life, was_final: bool, before: Raw) -> None:
    cluster = alive.cluster
    status = cluster.status
    assert status["message"], "status always has a message"
    if status["phase"] == "Failed":
        assert status["lastFailure"]["message"]
        assert cluster.condition("Stalled")["status"] == "True"
    if was_final:
        assert {**before, **dict.fromkeys(AFTER_COMPLETION)} == {**status, **dict.fromkeys(AFTER_COMPLETION)}
    attempts = [name for name in alive.made if "-prepare" not in name]
    assert len(attempts) == len(set(attempts)), "no attempt is created twice"
    active = [job["metadata"]["labels"][ROLE_LABEL] for name, job in cluster.jobs.items() if alive.goes_on(name)]
    assert len(active) == len(set(active)), "one attempt at a time"
    if status["phase"] == "Suspended":
        assert not active
    assert status["observedGeneration"] == cluster.resource["metadata"]["generation"]


rollouts = st.one_of(
    act("refer", st.just(True), digests),
    act("judge", st.sampled_from([None, "Passed", "Failed"]), digests),
    act("deploy", st.just(1), st.just(1), st.just(1), st.just(False)),
    act("suspend", flags),
)


@given(story=st.lists(rollouts, min_size=2, max_size=12))
@steady
def test_only_a_model_that_has_passed_is_ever_served(story):
    alive = Life("InferenceService", {"model": TUNED_MODEL, "promotion": {"evalJobs": [{"name": "check"}]}})
    alive.refer(True, "d2")
    alive.settle()
    for name, arguments in story:
        judged = alive.cluster.others.get(Reference("EvalJob", "check"))
        getattr(alive, name)(*arguments)
        if judged and name == "refer":
            alive.cluster.others[Reference("EvalJob", "check")] = judged
        alive.settle()
        for deployment in alive.cluster.deployments.values():
            run = run_spec_of(deployment["spec"]["template"])
            assert run
            assert run.subject.digest in alive.passed
        assert alive.cluster.status.get("model", {}).get("digest") in {None, *alive.passed}


changes = st.one_of(
    rollouts,
    act("gate", flags),
    act("edit", st.sampled_from(["1Gi", "2Gi"])),
    act("lose_verdict"),
)


@given(story=st.lists(changes, min_size=2, max_size=12))
@steady
def test_no_new_version_is_served_with_a_gate_that_was_added_later(story):
    """The deployed version stays unless its successor has passed the gates."""
    alive = Life("InferenceService", {"model": TUNED_MODEL})
    alive.refer(True, "d2")
    alive.settle()
    for name, arguments in story:
        judged = alive.cluster.others.get(Reference("EvalJob", "check"))
        before = served(alive)
        getattr(alive, name)(*arguments)
        if judged and name == "refer":
            alive.cluster.others[Reference("EvalJob", "check")] = judged
        alive.settle()
        gated = "promotion" in alive.cluster.resource["spec"]
        after = served(alive)
        assert after is not None
        if gated and after != before:
            assert after[1] in alive.passed - alive.failed
        suspended = alive.cluster.resource["spec"].get(
            "suspend"
        )  # a version without pods is replaced with its next pods
        if gated and not suspended and alive.cluster.condition("PromotionBlocked")["status"] == "False":
            assert after[1] in alive.passed - alive.failed


def served(alive: Life) -> tuple[Raw, str | None] | None:
    """The template of the Deployment and the digest of its model."""
    for deployment in alive.cluster.deployments.values():
        template = deployment["spec"]["template"]
        run = run_spec_of(template)
        return template, run.subject.digest if run else None
    return None


@given(life=lives, story=st.lists(events, max_size=6))
@steady
def test_equal_states_give_equal_plans_and_inputs_are_not_modified(life, story):
    alive = Life(*life)
    for name, arguments in story:
        getattr(alive, name)(*arguments)
        before = copy.deepcopy((alive.cluster.resource, alive.cluster.observed()))
        first = alive.cluster.plan()
        assert (alive.cluster.resource, alive.cluster.observed()) == before
        assert alive.cluster.plan() == first
        alive.cluster.reconcile()


@given(life=lives, story=st.lists(events, max_size=5), lost=st.integers(0, 4))
@steady
def test_a_lost_status_is_written_by_the_next_plan(life, story, lost):
    """The operator is killed between children and status: the next plan writes the status."""
    alive = Life(*life)
    alive.settle()
    for turn, (name, arguments) in enumerate(story):
        getattr(alive, name)(*arguments)
        if turn == lost:
            resource = alive.cluster.resource
            alive.cluster.reconcile()
            alive.cluster.resource = resource
        alive.settle()


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    phase=pod_phases, payload=containers, conditions=pod_conditions, reason=st.sampled_from(["", "Evicted", "OutOfcpu"])
)
@steady
@pytest.mark.parametrize("kind", ["FineTuneJob", "EvalJob"])
def test_every_pod_can_be_diagnosed(kind, phase, payload, conditions, reason):
    cluster = Cluster(SPECS[kind]())
    cluster.settle()
    pod = cluster.start_pod(next(iter(cluster.jobs)), phase, payload, conditions=conditions, reason=reason)
    ending = termination_failure(pod)
    assert ending.message
    assert ending.hint
    assert ending.class_ in FAILURES
    for read in (crash_failure, permanent_failure):
        read(pod)
    pending_failure(pod, ())


@given(message=st.one_of(messages, junk.map(str), junk.map(repr)), code=codes)
@steady
def test_no_termination_message_can_break_a_plan(message, code):
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    cluster.fail("support-tune-1", {"fetch": TUNED["fetch"], "train": ended(code, message)})
    cluster.settle()
    assert cluster.status["message"]


floats = st.none() | st.floats()
wild_numbers = st.sampled_from([-5, 0, 7, 2**63, 10**40])
wild_times = st.sampled_from(
    ["yesterday", "", "2026-11-22", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00", "2026-11-22T12:00:00.5Z"]
)
wild_rows = st.fixed_dictionaries(
    {"kept": st.sampled_from([0, 7, 2**63]), "dropped": st.lists(st.just({"reason": "long", "count": 1}), max_size=3)}
)
wild_checkpoints = st.fixed_dictionaries({"uri": st.just("s3://store/c"), "step": st.just(7), "time": wild_times})
wild_uris = st.sampled_from(["s3://store/run", "s3://" + "x" * 1100, "", "http://elsewhere"])
wild_artifacts = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["merged", "adapter", "n" * 200]), "uri": st.just("s3://store/m")},
        optional={"sizeBytes": st.sampled_from([7, 2**63])},
    ),
    max_size=5,
)
pushes = st.builds(
    ProgressReport,
    stage=st.text(max_size=300),
    step=st.integers(0, 10**6),
    total_steps=st.integers(0, 10**6),
    epoch=floats,
    loss=floats,
    eval_loss=floats,
    eval_losses=st.none() | st.lists(st.floats(), max_size=20),
    reward=floats,
    rewards=st.none() | st.lists(st.builds(MeanReward, name=st.text(max_size=300), mean=st.floats()), max_size=20),
    sampling_share=floats,
    reward_margin=floats,
    reward_accuracy=floats,
    kl=floats,
    learning_rate=floats,
    tokens_per_second=floats,
    eta_seconds=st.none() | st.integers(-100, 100),
    resumed_from_step=st.none() | wild_numbers,
    rows=st.none() | wild_rows.map(Rows.model_validate),
    last_checkpoint=st.none() | wild_checkpoints.map(LastCheckpoint.model_validate),
)


@given(push=pushes)
@steady
@pytest.mark.parametrize("kind", ["FineTuneJob", "EvalJob"])
def test_no_pushed_progress_can_break_a_status(kind, push):
    cluster = Cluster(SPECS[kind]())
    cluster.settle()
    job = next(iter(cluster.jobs))
    cluster.start_pod(job, "Running", {"fetch": running()})
    cluster.progress[job] = Progress(push, cluster.now)
    cluster.settle()
    assert cluster.status["progress"]["step"] == push.step


@given(
    run_uri=wild_uris,
    model_uri=wild_uris,
    resumed=wild_numbers,
    rows=wild_rows,
    checkpoint=wild_checkpoints,
    artifacts=wild_artifacts,
)
@steady
@pytest.mark.parametrize("kind", ["FineTuneJob", "EvalJob"])
def test_no_report_can_break_a_status(kind, run_uri, model_uri, resumed, rows, checkpoint, artifacts):
    """`Cluster.reconcile` holds each status against the schema; a status that is refused would never be written."""
    cluster = Cluster(SPECS[kind]())
    cluster.settle()
    results = [*RESULTS, *RESULTS]
    trained = {"resumedFromStep": resumed, "rows": rows, "lastCheckpoint": checkpoint, "runUri": run_uri}
    payload = {
        **DONE,
        "fetch": ended(message=report("fetch", runUri=run_uri, modelUri=model_uri)),
        "train": ended(message=report("train", **trained)),
        "export": ended(message=report("export", artifacts=artifacts)),
        "evaluate": ended(message=report("evaluate", results=results, artifacts=artifacts)),
    }
    cluster.start_pod(next(iter(cluster.jobs)), "Succeeded", payload)
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"


@given(loss=floats, value=floats)
@steady
@pytest.mark.parametrize("kind", ["FineTuneJob", "EvalJob"])
def test_no_figure_can_break_a_status(kind, loss, value):
    cluster = Cluster(SPECS[kind]())
    cluster.settle()
    results = [{"benchmark": "support-qa", "metric": "accuracy", "value": value}]
    payload = {
        **DONE,
        "train": ended(message=report("train", metrics={"trainLoss": loss})),
        "evaluate": ended(message=report("evaluate", results=results)),
    }
    cluster.start_pod(next(iter(cluster.jobs)), "Succeeded", payload)
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"


FIELDS = [
    "model",
    "datasets",
    "replicas",
    "retries",
    "promotion",
    "deadline",
    "pendingDeadline",
    "resources",
    "rollout",
]
huge = st.sampled_from(
    ["999999d", "999999d999999d", "3000000d", "0s", "9999999999999999999h", {"readyTimeout": "999999d"},
     {"cpu": -1}, {"cpu": "-1"}, {"memory": "999999999999999Pi"}, {"memory": 10**30}, {"cpu": "0.000000001"}]
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(spec=st.dictionaries(st.sampled_from(FIELDS), junk | huge), ends=flags)
@steady
def test_no_spec_can_break_a_plan(kind, spec, ends):
    cluster = Cluster(SPECS[kind]())
    cluster.resource["spec"] = {**cluster.resource["spec"], **spec}
    cluster.settle()
    for job in list(cluster.jobs):
        cluster.start_pod(job, "Succeeded" if ends else "Pending", DONE if ends else {"fetch": running()})
    cluster.settle()
    cluster.reconcile(after=100)
    cluster.settle()
    assert cluster.status["message"]
    for deployment in cluster.deployments.values():
        assert deployment["spec"]["progressDeadlineSeconds"] < 2**31


@given(ttl=st.sampled_from(["999999d", "999999d999999d", "0s", "1m"]))
@steady
@pytest.mark.parametrize("kind", ["FineTuneJob", "EvalJob"])
def test_no_ttl_can_break_a_plan(kind, ttl):
    cluster = Cluster(SPECS[kind](ttlAfterFinished=ttl))
    cluster.settle()
    cluster.start_pod(next(iter(cluster.jobs)), "Succeeded", DONE)
    cluster.settle()
    cluster.reconcile(after=30)
    assert cluster.status["phase"] == "Succeeded"


def test_an_empty_observation_is_no_error():
    for kind, make in SPECS.items():
        cluster = Cluster(make())
        assert not KINDS[kind].plan(cluster.resource, Observed(), cluster.now, CONFIG, lambda uid, job: "t").is_empty
