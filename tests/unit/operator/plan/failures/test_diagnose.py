from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.operator.plan.world import (
    START,
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
    waiting,
)
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.failures.diagnose import (
    ANEW,
    POLICIES,
    failure,
    why_crashing,
    why_doomed,
    why_ended,
    why_no_pod,
    why_pending,
    why_refused,
)
from tunesmith_operator.plan.names import KIND_LABEL
from tunesmith_operator.plan.pods.read import parse_report
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Key, Raw


def pod(phase: str = "Failed", states: Raw | None = None, thing: Raw | None = None, **status: Any) -> Raw:
    """A pod of the first Job of `thing`."""
    cluster = Cluster(thing or fine_tune_job(resources={"accelerator": "nvidia", "memory": "4Gi"}))
    cluster.begin()
    return cluster.start_pod(max(cluster.jobs), phase, states, **status)


def disrupted(reason: str) -> list[Raw]:
    return [condition("DisruptionTarget", True, reason, f"because of {reason}")]


FETCHED = {"fetch": TUNED["fetch"]}

ENDINGS: dict[str, tuple[Raw, FailureClass, str]] = {
    "the kernel ends the trainer": (
        pod(states={**FETCHED, "train": ended(137, reason="OOMKilled")}),
        FailureClass.OOM_KILLED,
        "used more than its memory limit of 4Gi",
    ),
    "the kernel ends an init container": (
        pod(states={"fetch": ended(137, reason="OOMKilled")}),
        FailureClass.OOM_KILLED,
        "container fetch",
    ),
    "a process gets SIGKILL and nobody says why": (
        pod(states={**FETCHED, "train": ended(137)}),
        FailureClass.PROCESS_ERROR,
        "may be that memory ran out",
    ),
    "a report names the row": (
        pod(states={**FETCHED, "train": ended(65, failed_report("train", "BadRow", "train.jsonl line 17"))}),
        FailureClass.BAD_ROW,
        "line 17",
    ),
    "a report is the last line of the log": (
        pod(states={"fetch": ended(77, "Traceback\n" + failed_report("fetch", "Storage403", "s3://data: denied"))}),
        FailureClass.STORAGE_403,
        "s3://data: denied",
    ),
    "a report was cut off and the exit code speaks": (
        pod(states={"fetch": ended(68, failed_report("fetch", "ModelNotFound", "x" * 5000)[:4096])}),
        FailureClass.MODEL_NOT_FOUND,
        "exited with code 68",
    ),
    "python dies with a traceback": (
        pod(states={**FETCHED, "train": ended(1, "Traceback (most recent call last):\nValueError: no such layer")}),
        FailureClass.PROCESS_ERROR,
        "ValueError: no such layer",
    ),
    "a segmentation fault": (
        pod(states={**FETCHED, "train": ended(139)}),
        FailureClass.PROCESS_ERROR,
        "exited with code 139",
    ),
    "the device is full": (
        pod(states={**FETCHED, "train": ended(71)}),
        FailureClass.DEVICE_OUT_OF_MEMORY,
        "exited with code 71",
    ),
    "the runtime saves its state and stops": (
        pod(states={**FETCHED, "train": ended(75, report("train", "Preempted"))}),
        FailureClass.PREEMPTED,
        "exited with code 75",
    ),
    "a process is told to stop": (
        pod(states={**FETCHED, "train": ended(143)}),
        FailureClass.PREEMPTED,
        "stopped by a signal",
    ),
    "the scheduler preempts": (
        pod(states={**FETCHED, "train": ended(137)}, conditions=disrupted("PreemptionByScheduler")),
        FailureClass.PREEMPTED,
        "PreemptionByScheduler",
    ),
    "a node is drained": (
        pod(states={**FETCHED, "train": ended(137)}, conditions=disrupted("EvictionByEvictionAPI")),
        FailureClass.PREEMPTED,
        "EvictionByEvictionAPI",
    ),
    "a node is lost": (
        pod(states={**FETCHED, "train": ended(137)}, conditions=disrupted("DeletionByTaintManager")),
        FailureClass.NODE_LOST,
        "DeletionByTaintManager",
    ),
    "a node is short of disk": (
        pod(reason="Evicted", message="The node was low on resource: ephemeral-storage."),
        FailureClass.EVICTED,
        "ephemeral-storage",
    ),
    "a node shuts down": (
        pod(reason="Terminated", message="Pod was terminated in response to imminent node shutdown."),
        FailureClass.NODE_LOST,
        "shutdown",
    ),
    "the kubelet has no room after all": (
        pod(reason="OutOfcpu", message="Pod was rejected: Node didn't have enough resource: cpu"),
        FailureClass.NODE_REFUSED,
        "enough resource: cpu",
    ),
    "the container cannot start": (
        pod(states={"fetch": ended(128, 'exec: "python": not found', "StartError")}),
        FailureClass.POD_START,
        'exec: "python": not found',
    ),
    "the node forgot": (
        pod(states={"fetch": ended(137, reason="ContainerStatusUnknown")}),
        FailureClass.NODE_LOST,
        "does not know",
    ),
    "nothing is known": (pod(), FailureClass.PROCESS_ERROR, "nothing is known"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_a_failed_pod_tells_why(case):
    thing, class_, words = ENDINGS[case]
    failure = why_ended(thing)
    assert failure.class_ is class_
    assert words in failure.message
    assert failure.hint


def test_a_reports_own_word_and_hint_are_kept():
    told = failed_report("train", "BadRow", "line 3", hint="give it messages", logTail="the log")
    failure = why_ended(pod(states={**FETCHED, "train": ended(65, told)}))
    assert (failure.hint, failure.log_tail, failure.container, failure.exit_code) == (
        "give it messages",
        "the log",
        "train",
        65,
    )


def test_a_reported_cause_beats_the_disruption_that_came_after_it():
    states = {**FETCHED, "train": ended(65, failed_report("train", "BadRow", "line 3"))}
    assert why_ended(pod(states=states, conditions=disrupted("EvictionByEvictionAPI"))).class_ is FailureClass.BAD_ROW


def test_the_log_tail_is_kept_where_there_is_no_report():
    failure = why_ended(pod(states={**FETCHED, "train": ended(1, "a\nb\nc")}))
    assert failure.log_tail == "a\nb\nc"


def test_the_engines_end_is_the_cause_where_the_evaluator_only_saw_silence():
    states = {
        **FETCHED,
        "serve": {"state": waiting("CrashLoopBackOff"), "lastState": ended(137, reason="OOMKilled"), "restartCount": 1},
        "evaluate": ended(83, failed_report("evaluate", "EngineFailed", "the engine went away")),
    }
    failure = why_ended(pod(states=states, thing=eval_job()))
    assert (failure.class_, failure.container) == (FailureClass.OOM_KILLED, "serve")


def test_a_sidecar_that_was_stopped_is_no_cause():
    states = {**FETCHED, "serve": ended(143), "evaluate": ended(84, "x\nno answers")}
    failure = why_ended(pod(states=states, thing=eval_job()))
    assert (failure.class_, failure.container) == (FailureClass.EVALUATION_FAILED, "evaluate")


def looping(restarts: int, class_: FailureClass = FailureClass.ENGINE_FAILED) -> Raw:
    code = FAILURES[class_].exit_code or 1
    serve = {
        "state": waiting("CrashLoopBackOff", "back-off"),
        "lastState": ended(code, failed_report("serve", class_, "config.json: no such architecture")),
        "restartCount": restarts,
    }
    return pod("Pending", {**FETCHED, "serve": serve}, eval_job())


def test_an_engine_that_never_comes_up_dooms_its_pod():
    assert why_doomed(looping(2)) is None
    doomed = why_doomed(looping(3))
    assert doomed
    assert (doomed.class_, doomed.message) == (FailureClass.ENGINE_FAILED, "config.json: no such architecture")


def test_an_engine_whose_model_is_at_fault_is_not_started_again_and_again():
    doomed = why_doomed(looping(1, FailureClass.BAD_MODEL))
    assert doomed
    assert (doomed.class_, doomed.container) == (FailureClass.BAD_MODEL, "serve")


def test_an_engine_that_is_stopped_again_and_again_is_not_preempted():
    stopped = {
        "state": waiting("CrashLoopBackOff"),
        "lastState": ended(75, report("serve", "Preempted", failure={"class": "Preempted", "message": "SIGTERM"})),
        "restartCount": 3,
    }
    doomed = why_doomed(pod("Pending", {**FETCHED, "serve": stopped}, eval_job()))
    assert doomed
    assert doomed.class_ is FailureClass.ENGINE_FAILED


def test_a_crashing_container_is_told_of_before_it_dooms_the_pod():
    crashing = why_crashing(looping(1))
    assert crashing
    assert crashing.class_ is FailureClass.ENGINE_FAILED


SCHEDULING = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {gpu: yes}, 2 Insufficient nvidia.com/gpu. "
    "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
)

PENDING: dict[str, tuple[Raw, FailureClass, str, str]] = {
    "no node has the device": (
        pod("Pending", conditions=[condition("PodScheduled", False, "Unschedulable", SCHEDULING)]),
        FailureClass.UNSCHEDULABLE,
        "no node has enough nvidia.com/gpu (the pod asks for 1): 0/3 nodes are available",
        "check that its device plugin runs there",
    ),
    "no node has the label": (
        pod("Pending", conditions=[condition("PodScheduled", False, "Unschedulable", "didn't match node selector")]),
        FailureClass.UNSCHEDULABLE,
        "didn't match node selector",
        "nodeSelector",
    ),
    "the image is not there": (
        pod("Pending", {"fetch": waiting("ImagePullBackOff", 'Back-off pulling image "registry/runtime:1"')}),
        FailureClass.IMAGE_PULL,
        "image registry/runtime:1: Back-off",
        "imagePullSecrets",
    ),
    "the credentials are not there": (
        pod("Pending", {"fetch": waiting("CreateContainerConfigError", 'secret "s3-credentials" not found')}),
        FailureClass.POD_START,
        'secret "s3-credentials" not found',
        "create Secret s3-credentials in namespace team",
    ),
    "a key of the credentials is not there": (
        pod(
            "Pending",
            {"fetch": waiting("CreateContainerConfigError", "couldn't find key AWS_ACCESS_KEY_ID in Secret team/s3")},
        ),
        FailureClass.POD_START,
        "couldn't find key",
        "add the key AWS_ACCESS_KEY_ID to Secret s3 in namespace team",
    ),
}


@pytest.mark.parametrize("case", PENDING)
def test_a_pending_pod_tells_what_it_lacks(case):
    thing, class_, words, hint = PENDING[case]
    failure = why_pending(thing, ())
    assert failure
    assert failure.class_ is class_
    assert words in failure.message
    assert hint in failure.hint
    assert "Preemption is not helpful" not in failure.message


def test_a_pod_on_its_way_has_no_trouble():
    assert why_pending(pod("Pending", {"fetch": running()}), ()) is None
    assert why_pending(pod("Pending"), ()) is None


def event(kind: str, name: str, reason: str, message: str, at: int = 0) -> Raw:
    return {
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "lastTimestamp": format_time(START + timedelta(seconds=at)),
    }


def test_a_volume_that_cannot_be_mounted_is_told_by_an_event():
    thing = pod("Pending")
    name = thing["metadata"]["name"]
    events = [
        event("Pod", name, "FailedMount", 'MountVolume.SetUp failed for volume "ca": configmap "s3-ca" not found', 5),
        event("Pod", name, "Scheduled", "assigned", 9),
        event("Pod", "another", "FailedMount", "not ours", 10),
    ]
    failure = why_pending(thing, events)
    assert failure
    assert (failure.class_, failure.hint) == (
        FailureClass.POD_START,
        "create ConfigMap s3-ca in namespace team; the pod then starts by itself",
    )


@pytest.mark.parametrize(
    ("message", "class_"),
    [
        ('pods "a" is forbidden: exceeded quota: gpu, requested: nvidia.com/gpu=1', FailureClass.QUOTA_EXCEEDED),
        ('pods "a" is forbidden: violates PodSecurity "restricted:latest"', FailureClass.POD_REFUSED),
        ('admission webhook "policy.example" denied the request', FailureClass.POD_REFUSED),
    ],
)
def test_a_job_without_a_pod_is_explained_by_its_events(message, class_):
    job = {"metadata": {"name": "support-tune-1", "uid": "u"}}
    events = [event("Job", "support-tune-1", "FailedCreate", message, 1), event("Job", "other", "FailedCreate", "x", 2)]
    failure = why_no_pod(job, events)
    assert failure
    assert (failure.class_, failure.message) == (class_, message)
    assert why_no_pod(job, []) is None
    assert why_refused(message, "team", "FineTuneJob").class_ is class_


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("status unknown for quota: all, resources: pods,requests.cpu", "ResourceQuota all is new and not counted yet: the pod is"),
        ("insufficient quota to consume: requests.nvidia.com/gpu", "the cluster admits requests.nvidia.com/gpu only in namespaces with"),
        (
            "insufficient quota to match these scopes: [{PriorityClass In [high]}]",
            "the cluster admits this pod only in namespaces with a ResourceQuota of the named scopes: have one created in namespace team",
        ),
    ],
)  # fmt: skip
def test_a_quota_that_is_not_there_is_not_said_to_be_full(message: str, hint: str) -> None:
    found = why_refused(f'pods "a" is forbidden: {message}', "team", "EvalJob")
    assert found.class_ is FailureClass.QUOTA_EXCEEDED
    assert found.hint
    assert found.hint.startswith(hint)
    assert "in spec.resources" not in found.hint


def without_pods(cluster: Cluster, job: str = "support-tune-1") -> None:
    """The Job controller has tried, and could make no pod: what it writes at its first try."""
    cluster.jobs[job]["status"] = {"startTime": format_time(cluster.now), "ready": 0, "uncountedTerminatedPods": {}}


def test_events_are_asked_for_only_when_nothing_else_tells():
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    wants = KINDS["FineTuneJob"].wants_events
    cluster.now += timedelta(minutes=5)
    assert wants(cluster.resource, cluster.observed(), cluster.now) == frozenset(), "its controller is behind"
    without_pods(cluster)
    assert wants(cluster.resource, cluster.observed(), cluster.now) == {Key("Job", "support-tune-1")}
    cluster.jobs["support-tune-1"]["status"]["active"] = 1
    assert wants(cluster.resource, cluster.observed(), cluster.now) == frozenset()
    thing = cluster.start_pod("support-tune-1", "Pending", {"fetch": waiting("ContainerCreating")})
    assert wants(cluster.resource, cluster.observed(), cluster.now) == frozenset()
    later = cluster.now + timedelta(seconds=21)
    assert wants(cluster.resource, cluster.observed(), later) == {Key("Pod", thing["metadata"]["name"])}
    cluster.start_pod("support-tune-1", "Running", {"fetch": running()})
    assert wants(cluster.resource, cluster.observed(), later) == frozenset()


def test_a_quota_is_seen_in_status_as_soon_as_its_event_is_there():
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    assert cluster.plan().requeue_after is None, "a change of the Job will tell"
    without_pods(cluster)
    assert cluster.plan().requeue_after == 1.0, "the Event follows"
    cluster.kubernetes_events.append(event("Job", "support-tune-1", "FailedCreate", "exceeded quota: gpu"))
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "QuotaExceeded")
    assert cluster.plan().requeue_after == 15.0


def test_a_pod_on_its_node_is_looked_at_again_when_it_is_slow():
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    cluster.start_pod("support-tune-1", "Pending", {"fetch": waiting("ContainerCreating")})
    assert cluster.plan().requeue_after == 21.0
    cluster.start_pod("support-tune-1", "Pending", {"fetch": waiting("ImagePullBackOff", "not found")})
    assert cluster.plan().requeue_after is None


def step(name: str, reason: str, message: str, at: int) -> Raw:
    return event("Pod", name, reason, message, at)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "waiting for the pod to be scheduled and its image to be pulled"),
        (
            [("Scheduled", "Successfully assigned team/p to node-1", 1)],
            "pod {pod} on node node-1 gets its volumes and network, since 2026",
        ),
        (
            [("Scheduled", "assigned", 1), ("Pulling", 'Pulling image "registry/runtime:1"', 3)],
            "pod {pod} on node node-1 pulls the image registry/runtime:1, since 2026",
        ),
        (
            [
                ("Pulling", 'Pulling image "registry/runtime:1"', 3),
                ("Pulled", 'Successfully pulled image "registry/runtime:1" in 40s (40s including waiting)', 43),
            ],
            "pod {pod} on node node-1 has its image registry/runtime:1 and creates the container, since 2026",
        ),
    ],
)
def test_a_pod_that_starts_slowly_says_what_it_does(events: list[tuple[str, str, int]], message: str) -> None:
    """And writes no more of it: the same Event, looked at again, is the same message."""
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    thing = cluster.start_pod("support-tune-1", "Pending", {"fetch": waiting("ContainerCreating")})
    thing["spec"] = {**thing["spec"], "nodeName": "node-1"}
    cluster.settle()
    before = cluster.status["message"]
    cluster.kubernetes_events.extend(step(thing["metadata"]["name"], *one) for one in events)
    cluster.now += timedelta(seconds=21)
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "WaitingForPod")
    assert message.format(pod=thing["metadata"]["name"]) in cluster.status["message"]
    assert cluster.status["message"].startswith(before)
    assert f"waiting for {cluster.status['waitingFor']}" == cluster.status["message"]
    cluster.now += timedelta(seconds=21)
    assert cluster.plan().status is None
    cluster.start_pod("support-tune-1", "Running", {"fetch": running()})
    cluster.settle()
    assert cluster.status["message"] == "fetching the model and the data"
    assert "waitingFor" not in cluster.status


def test_a_job_hears_that_it_is_to_be_made_anew_and_a_service_does_not() -> None:
    ends = {"resources": {"limits": {"memory": "4Gi"}}}
    hints = {}
    for thing, container in ((fine_tune_job(), "train"), (eval_job(), "serve"), (inference_service(), "serve")):
        kind = thing["kind"]
        made = {
            "metadata": {"name": "p", "labels": {KIND_LABEL: kind}},
            "spec": {"containers": [{"name": container, **ends}]},
            "status": {"containerStatuses": [{"name": container, "state": ended(137, reason="OOMKilled")}]},
        }
        hints[kind] = why_ended(made).hint
    assert {kind for kind, hint in hints.items() if hint.endswith(ANEW)} == {"FineTuneJob", "EvalJob"}
    assert {kind for kind, hint in hints.items() if "training" in hint} == {"FineTuneJob"}
    assert {kind for kind, hint in hints.items() if "spec.maxModelLength" in hint} == {"InferenceService"}


@pytest.mark.parametrize(
    ("resources", "hint"),
    [
        ({"accelerator": "nvidia"}, "nodes whose devices have more memory"),
        ({"accelerator": "ascend"}, "nodes whose devices have more memory"),
        ({"accelerator": "cpu"}, "raise spec.resources.memory"),
    ],
)
def test_who_computes_on_the_cpu_hears_of_the_memory_of_the_pod(resources: Raw, hint: str) -> None:
    thing = pod(states={**FETCHED, "train": ended(71)}, thing=fine_tune_job(resources=resources))
    assert hint in why_ended(thing).hint
    assert ("devices" in why_ended(thing).hint) is (resources["accelerator"] != "cpu")


@pytest.mark.parametrize(
    ("count", "advice"),
    [(1, ""), (2, ", or lower spec.resources.count to 1"), (8, ", or lower spec.resources.count to 4")],
)
def test_fewer_devices_are_proposed_where_there_can_be_fewer(count: int, advice: str) -> None:
    conditions = [condition("PodScheduled", False, "Unschedulable", "0/3 nodes: 3 Insufficient nvidia.com/gpu.")]
    resources = {"accelerator": "nvidia", "count": count}
    failure = why_pending(pod("Pending", conditions=conditions, thing=fine_tune_job(resources=resources)), ())
    assert failure
    assert failure.hint.startswith(
        "free or add a node with nvidia.com/gpu, check that its device plugin runs there (kubectl describe node shows "
        f"nvidia.com/gpu under Allocatable){advice}"
    )
    assert ("spec.resources.count" in failure.hint) is (count > 1)


@pytest.mark.parametrize("class_", sorted(set(FailureClass) - {FailureClass.DEADLINE_EXCEEDED}))
def test_a_service_does_not_hear_of_jobs(class_: FailureClass) -> None:
    """Its spec can be changed, and it has no deadline."""
    hint = failure(class_, "x", kind="InferenceService").hint
    assert ANEW not in hint
    assert not re.search(r"\bjobs?\b|checkpoint|training", hint, re.IGNORECASE)


@pytest.mark.parametrize(("field", "policy"), sorted(POLICIES.items()))
def test_a_hint_says_what_an_administrator_must_allow(field: str, policy: str) -> None:
    made = failure(FailureClass.POD_REFUSED, "x", f"set spec.{field} to y")
    assert f"(podPolicy.{policy} in the chart's values must allow it)" in made.hint


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"verb": "dance", "outcome": "Failed"}', "x\n{'a': 1}"])
def test_a_message_that_is_no_report_is_none(text):
    assert parse_report(text) is None


def test_every_class_has_a_hint():
    assert all(FAILURES[class_].hint for class_ in FailureClass)
