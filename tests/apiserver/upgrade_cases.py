"""Resources that an old release brings into each of its phases, and the phases that they reach after the upgrade."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.apiserver.chain import evaluated
from tests.apiserver.cluster import Cluster, Kubelet, Raw, Refused
from tests.apiserver.finetunejobs import MESSAGES, REPORTS, SPEC
from tests.apiserver.test_operator_together import DONE

BASE: Raw = {"uri": "s3://models/base"}
ABSENT: Raw = {"fineTuneJob": {"name": "absent"}}
BAD_ROW = json.dumps(
    {"verb": "fetch", "outcome": "Failed", "failure": {"class": "BadRow", "message": "line 17: no field messages"}}
)


def evaluation(**changes: Any) -> Raw:
    return {"model": BASE, "benchmarks": [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}], **changes}


@dataclass(frozen=True)
class Case:
    """A resource, what happens to it under the old release, its phase then, and its phase at the end of the test."""

    kind: str
    name: str
    spec: Raw
    phase: str
    end: str
    happens: Callable[[Cluster, Case], object] = lambda cluster, case: None
    refused: str = ""
    """A refusal by the current operator that the previous release did not have."""


def pod(cluster: Cluster, case: Case, role: str, attempt: int = 1) -> Kubelet:
    kubelet = Kubelet(cluster, cluster.pod_of(f"{case.name}-{role}-{attempt}"))
    kubelet.bind()
    return kubelet


def runs(role: str, container: str) -> Callable[[Cluster, Case], None]:
    return lambda cluster, case: pod(cluster, case, role).runs(container)


def ends(role: str, messages: Mapping[str, str], failed: Mapping[str, Raw] | None = None) -> Callable[..., None]:
    return lambda cluster, case: pod(cluster, case, role).ends(messages, failed)


def serving(cluster: Cluster, case: Case) -> None:
    """The pods of the service answer."""
    for kubelet in pods_of_service(cluster, case.name, case.spec.get("replicas", 1)):
        try:
            kubelet.bind()
            kubelet.ready()
        except Refused as error:  # a rollout deletes the old pod as soon as a new pod is ready
            if error.status != 404:
                raise
    cluster.until_phase(case.kind, case.name, "Ready")


def pods_of_service(cluster: Cluster, name: str, count: int = 1) -> list[Kubelet]:
    labels = f"tunesmith.dev/role=serve,tunesmith.dev/name={name}"
    find = lambda: found if len(found := cluster.find("Pod", labels)) >= count else None
    return [Kubelet(cluster, pod) for pod in cluster.until(f"{count} pods of {name}", find)]


def then(change: Raw) -> Callable[[Cluster, Case], None]:
    """The service becomes ready, then its spec changes."""

    def happens(cluster: Cluster, case: Case) -> None:
        serving(cluster, case)
        cluster.patch(case.kind, case.name, {"spec": change})

    return happens


def suspended(role: str) -> Callable[[Cluster, Case], None]:
    """The job is suspended once it has a pod."""

    def happens(cluster: Cluster, case: Case) -> None:
        cluster.pod_of(f"{case.name}-{role}-1")
        cluster.patch(case.kind, case.name, {"spec": {"suspend": True}})
        cluster.until_gone("Job", f"{case.name}-{role}-1")

    return happens


def kubelets(cluster: Cluster, job: str) -> list[Kubelet]:
    """The pods of a Job, the last index first, all bound."""
    count = cluster.job(job)["spec"]["completions"]

    def pods() -> list[Raw] | None:
        found = cluster.find("Pod", f"batch.kubernetes.io/job-name={job}")
        return found if len(found) >= count else None

    ordered = sorted(cluster.until(f"{count} pods of {job}", pods), key=_index, reverse=True)
    kubelets = [Kubelet(cluster, pod) for pod in ordered]
    for kubelet in kubelets:
        if not kubelet.pod["spec"].get("nodeName"):
            kubelet.bind()
    return kubelets


def _index(pod: Raw) -> int:
    return int(pod["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index", 0))


def all_run(cluster: Cluster, job: str) -> None:
    for kubelet in kubelets(cluster, job):
        kubelet.runs("train")


def play(cluster: Cluster, job: str, messages: Mapping[str, str]) -> None:
    """All pods of the Job succeed, the first pod last and with `messages`."""
    *others, first = kubelets(cluster, job)
    for kubelet in others:
        kubelet.ends(DONE)
    first.ends(messages)


ADOPTED = {name: json.dumps({**REPORTS[name], "outcome": "Adopted"}) for name in ("train", "export")}
SCORED = evaluated(0.9, "d" * 64)
GATE = {"benchmark": "words", "metric": "accuracy"}
OOM = {"train": {"exitCode": 137, "reason": "OOMKilled"}}
ROW = {"fetch": {"exitCode": 65, "message": BAD_ROW}}
CASES = (
    Case("FineTuneJob", "t-waiting", {**SPEC, "model": ABSENT}, "Waiting", "Waiting"),
    Case("FineTuneJob", "t-pending", SPEC, "Pending", "Succeeded", lambda at, case: at.pod_of(f"{case.name}-tune-1")),
    Case("FineTuneJob", "t-preparing", SPEC, "Preparing", "Succeeded", runs("tune", "fetch")),
    Case("FineTuneJob", "t-running", SPEC, "Running", "Succeeded", runs("tune", "train")),
    Case("FineTuneJob", "t-retried", {**SPEC, "retries": 3}, "Pending", "Succeeded", ends("tune", MESSAGES, OOM)),
    Case("FineTuneJob", "t-suspended", SPEC, "Suspended", "Suspended", suspended("tune")),
    Case("FineTuneJob", "t-done", SPEC, "Succeeded", "Succeeded", ends("tune", MESSAGES)),
    Case("FineTuneJob", "t-kept", {**SPEC, "ttlAfterFinished": "1h"}, "Succeeded", "Succeeded", ends("tune", MESSAGES)),
    Case("FineTuneJob", "t-failed", SPEC, "Failed", "Failed", ends("tune", {}, ROW)),
    Case("FineTuneJob", "t-refused", {**SPEC, "model": {**BASE, "trustRemoteCode": True}}, "Failed", "Failed"),
    Case("EvalJob", "e-waiting", evaluation(model=ABSENT), "Waiting", "Waiting"),
    Case("EvalJob", "e-pending", evaluation(), "Pending", "Succeeded", lambda at, case: at.pod_of("e-pending-eval-model-1")),
    Case("EvalJob", "e-preparing", evaluation(), "Preparing", "Succeeded", runs("eval-model", "fetch")),
    Case("EvalJob", "e-suspended", evaluation(), "Suspended", "Suspended", suspended("eval-model")),
    Case("EvalJob", "e-running", evaluation(), "Running", "Succeeded", runs("eval-model", "evaluate")),
    Case("EvalJob", "e-half", evaluation(baseline=BASE), "Pending", "Succeeded", ends("eval-model", SCORED)),
    Case("EvalJob", "e-passed", evaluation(gates=[{**GATE, "min": 0.5}]), "Succeeded", "Succeeded", ends("eval-model", SCORED)),
    Case("EvalJob", "e-gated", evaluation(gates=[{**GATE, "min": 0.95}]), "Succeeded", "Succeeded", ends("eval-model", SCORED)),
    Case("EvalJob", "e-failed", evaluation(retries=0), "Failed", "Failed", ends("eval-model", {}, {"fetch": {"exitCode": 77}})),
    Case("InferenceService", "s-waiting", {"model": ABSENT}, "Waiting", "Waiting"),
    Case("InferenceService", "s-pending", {"model": BASE}, "Pending", "Ready", lambda at, case: pods_of_service(at, case.name)),
    Case("InferenceService", "s-ready", {"model": BASE, "replicas": 2}, "Ready", "Ready", serving),
    Case(
        "InferenceService",
        "s-adorned",
        {
            "model": BASE,
            "resources": {"memory": "4Gi", "sharedMemory": "1Gi"},
            "pod": {"env": [{"name": "A", "value": "b"}], "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
        },
        "Ready",
        "Ready",
        serving,
    ),
    Case("InferenceService", "s-rolling", {"model": BASE}, "RollingOut", "RollingOut", then({"model": {"uri": None, **ABSENT}})),
    Case("InferenceService", "s-suspended", {"model": BASE}, "Suspended", "Suspended", then({"suspend": True})),
    Case("InferenceService", "s-promoted", {"model": {"fineTuneJob": {"name": "t-done"}}}, "Ready", "Ready", serving),
    Case("InferenceService", "s-failed", {"model": {**BASE, "trustRemoteCode": True}}, "Failed", "Failed"),
    Case(
        "InferenceService", "s-spoilt", {"model": BASE}, "Failed", "Failed", then({"model": {"trustRemoteCode": True}}),
    ),
    Case(
        "InferenceService",
        "s-blocked",
        {"model": BASE, "promotion": {"evalJobs": [{"name": "e-gated"}]}},
        "Blocked",
        "Blocked",
    ),
)  # fmt: skip
WIDE: Raw = {**SPEC, "parallelism": {"nodes": 2}}
CASES_OF_RELEASE: dict[str, tuple[Case, ...]] = {
    "0.1.0": (
        # No podPolicy: the label is refused after the upgrade only.
        Case(
            "InferenceService", "s-labelled", {"model": BASE, "pod": {"labels": {"team": "a"}}}, "Ready", "Failed", serving,
            refused="podPolicy.labels",
        ),
    ),
    "0.2.0": (
        Case("FineTuneJob", "t-queued", {**SPEC, "queueName": "gpus"}, "Queued", "Queued", lambda at, case: at.job("t-queued-tune-1")),
        Case("EvalJob", "e-queued", evaluation(queueName="gpus"), "Queued", "Queued", lambda at, case: at.job("e-queued-eval-model-1")),
        Case("FineTuneJob", "t-devices", {**SPEC, "resources": {"accelerator": "nvidia"}}, "Preparing", "Succeeded", runs("prepare", "prepare")),
        Case("FineTuneJob", "t-wide", WIDE, "Running", "Succeeded", lambda at, case: all_run(at, "t-wide-tune-1")),
        Case("FineTuneJob", "t-wide-done", WIDE, "Succeeded", "Succeeded", lambda at, case: play(at, "t-wide-done-tune-1", MESSAGES)),
        Case(
            "InferenceService", "s-rolled", {"model": BASE, "rollout": {"readyTimeout": "3s"}}, "RolledBack", "RolledBack",
            then({"model": {"uri": "s3://models/slow"}}),
        ),
        # Only the tree refuses this path.
        Case("InferenceService", "s-path", {"model": {"uri": "s3://models/a//b"}}, "Ready", "Failed", serving, refused="s3://models/a/b"),
    ),
}  # fmt: skip
RELEASES = tuple(CASES_OF_RELEASE)
