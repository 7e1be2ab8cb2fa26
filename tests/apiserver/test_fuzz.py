"""Random users, pods and kills of the operator against a real API server; at rest, every status is explained."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devcluster.standalone import ControlPlane
from tests.apiserver.background import every
from tests.apiserver.chain import BASE_DIGEST, evaluated
from tests.apiserver.cluster import Cluster, Kubelet, Raw, Refused, administrator
from tests.apiserver.finetunejobs import MESSAGES, SPEC
from tests.apiserver.survival import OURS, Supervised, orphans

NAMES = {
    "FineTuneJob": ("tune-a", "tune-b", "tune-c", "tune-d"),
    "EvalJob": ("eval-a", "eval-b", "eval-c"),
    "InferenceService": ("serve-a", "serve-b", "serve-c"),
}
EVENTS_PER_REPETITION = 50
"""One Event in this number may repeat its predecessor: a state can return by way of a state that has no Event."""
AT_REST_SECONDS = 180
"""Time until every status must be explained: the backoff of two counted failures, and garbage collection."""


@dataclass
class Users:
    """Create, edit, suspend, delete, and tamper with children, at random."""

    cluster: Cluster
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)

    def act(self) -> None:
        """Perform one act. The API server may reject it."""
        kind = self.chance.choice(OURS)
        name = self.chance.choice(NAMES[kind])
        acts = (self._create,) * 4 + (self._suspend,) * 3 + (self._edit, self._label, self._delete, self._delete_child)
        act = self.chance.choice(acts)
        try:
            act(kind, name)
            self.done[act.__name__.strip("_")] += 1
        except Refused:
            self.done["refused"] += 1

    def _create(self, kind: str, name: str) -> None:
        spec = {"FineTuneJob": self._tune, "EvalJob": self._eval, "InferenceService": self._serve}[kind]()
        self.cluster.create({"kind": kind, "metadata": {"name": name}, "spec": spec})

    def _suspend(self, kind: str, name: str) -> None:
        self.cluster.patch(kind, name, {"spec": {"suspend": self.chance.random() < 0.4}})

    def _edit(self, kind: str, name: str) -> None:
        ttl = {"ttlAfterFinished": self.chance.choice(["1s", "1h", None])}
        self.cluster.patch(kind, name, {"spec": ttl if kind != "InferenceService" else self._service_change()})

    def _label(self, kind: str, name: str) -> None:
        self.cluster.patch(kind, name, {"metadata": {"labels": {"mood": self.chance.choice(["good", "bad"])}}})

    def _delete(self, kind: str, name: str) -> None:
        self.cluster.delete(kind, name)

    def _delete_child(self, *_: str) -> None:
        kind = self.chance.choice(["Job", "Pod", "Deployment", "Service"])
        if found := self.cluster.find(kind):
            self.cluster.delete(kind, self.chance.choice(found)["metadata"]["name"])

    def _model(self, uri: str) -> Raw:
        reference = {"fineTuneJob": {"name": self.chance.choice(NAMES["FineTuneJob"])}}
        return self.chance.choice([{"uri": uri}, reference])

    def _tune(self) -> Raw:
        limits = self.chance.choice([{}, {"retries": 0}, {"retries": 1}, {"pendingDeadline": "20s"}, {"suspend": True}])
        return {**SPEC, "model": self._model("s3://models/base"), **limits}

    def _eval(self) -> Raw:
        baseline = self.chance.choice([{}, {"baseline": {"uri": "s3://models/base"}}])
        benchmarks = [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}]
        gate = {"benchmark": "words", "metric": "accuracy", "min": self.chance.choice([0.5, 0.95])}
        model = self._model("s3://models/other")
        return {"model": model, "benchmarks": benchmarks, "gates": [gate], "retries": 1, **baseline}

    def _serve(self) -> Raw:
        gated = {"promotion": {"evalJobs": [{"name": self.chance.choice(NAMES["EvalJob"])}]}}
        return {"model": self._model("s3://models/other"), **self.chance.choice([{}, gated])}

    def _service_change(self) -> Raw:
        return self.chance.choice([{"replicas": 0}, {"replicas": 2}, {"resources": {"memory": "2Gi"}}])


@dataclass
class Node:
    """Pods that succeed or fail at random; once `calm` is set, all succeed."""

    cluster: Cluster
    chance: random.Random
    calm: bool = False
    done: Counter[str] = field(default_factory=Counter)

    def tick(self) -> None:
        """Change the state of some pods."""
        for pod in self.cluster.find("Pod"):
            finished = pod["status"].get("phase") in ("Succeeded", "Failed")
            if not finished and (self.calm or self.chance.random() < 0.4):
                with suppress(Refused):  # the pod has been deleted
                    self._advance(Kubelet(self.cluster, pod))

    def _advance(self, kubelet: Kubelet) -> None:
        role = kubelet.pod["metadata"]["labels"]["tunesmith.dev/role"]
        if role == "serve":
            kubelet.ready()
            return
        main = kubelet.pod["spec"]["containers"][0]["name"]
        outcomes: dict[str, tuple[int, Callable[[], None]]] = {
            "succeeds": (6, lambda: kubelet.ends(_reports(role))),
            "fetches": (3, lambda: kubelet.runs("fetch")),
            "runs": (3, lambda: kubelet.runs(main)),
            "OOM": (1, lambda: kubelet.ends({}, {main: {"exitCode": 137, "reason": "OOMKilled"}})),
            "crashes": (1, lambda: kubelet.ends({}, {"fetch": {"exitCode": 1, "message": "Traceback"}})),
            "bad row": (1, lambda: kubelet.ends({}, {"fetch": {"exitCode": 65}})),
            "preempted": (1, lambda: kubelet.ends({}, {main: {"exitCode": 75}})),
            "evicted": (1, lambda: kubelet.evicted("Evicted", "The node was low on resource: memory.")),
            "image": (1, lambda: kubelet.waits("fetch", "ImagePullBackOff", "Back-off pulling image")),
            "ends without a report": (1, lambda: kubelet.ends({})),
        }
        weights = [weight for weight, _ in outcomes.values()]
        outcome = "succeeds" if self.calm else self.chance.choices([*outcomes], weights)[0]
        outcomes[outcome][1]()
        self.done[outcome] += 1


def _reports(role: str) -> dict[str, str]:
    return MESSAGES if role == "tune" else evaluated(0.9, "b" * 64 if role == "eval-model" else BASE_DIGEST)


def unexplained(cluster: Cluster) -> list[str]:
    """Contradictions between statuses and children, once nothing changes any more."""
    children = {kind: cluster.find(kind) for kind in ("Job", "Pod", "Deployment", "Service")}
    ours = {(kind, found["metadata"]["name"]): {"kind": kind, **found} for kind in OURS for found in cluster.find(kind)}
    wrong = [f"orphan {child}" for child in orphans(cluster)]
    for (kind, name), resource in ours.items():
        status, mine = resource.get("status") or {}, _of(resource, children)
        explain = _explain_service if kind == "InferenceService" else _explain_job
        problems = [*_explain_any(resource, status), *explain(resource, status, mine, ours)]
        wrong += [f"{kind}/{name} {status.get('phase')}: {problem}" for problem in problems]
    return wrong


def _of(resource: Raw, children: dict[str, list[Raw]]) -> dict[str, list[Raw]]:
    uid = resource["metadata"]["uid"]
    return {
        kind: [child for child in found if child["metadata"].get("labels", {}).get("tunesmith.dev/uid") == uid]
        for kind, found in children.items()
    }


def _explain_any(resource: Raw, status: Raw) -> Iterator[str]:
    generation = resource["metadata"]["generation"]
    if status.get("observedGeneration") != generation:
        yield f"observedGeneration {status.get('observedGeneration')}, generation {generation}"
    if not status.get("message"):
        yield "no message"
    if status.get("phase") == "Failed" and not status.get("lastFailure"):
        yield "no lastFailure"
    if resource["spec"].get("suspend") and status.get("phase") not in ("Suspended", "Succeeded", "Failed"):
        yield "spec.suspend is true"


def _explain_job(
    resource: Raw, status: Raw, mine: dict[str, list[Raw]], ours: dict[tuple[str, str], Raw]
) -> Iterator[str]:
    active = Counter(job["metadata"]["labels"]["tunesmith.dev/role"] for job in mine["Job"] if not _is_over(job))
    yield from (f"{count} active Jobs of role {role}" for role, count in active.items() if count > 1)
    match status.get("phase"):
        case "Succeeded":
            if not status.get("artifacts") and not status.get("results"):
                yield "neither artifacts nor results"
        case "Failed" | "Suspended":
            if active:
                yield f"active Jobs: {active}"
        case "Waiting":
            named = [
                resource["spec"].get(part, {}).get("fineTuneJob", {}).get("name") for part in ("model", "baseline")
            ]
            phases = [ours.get(("FineTuneJob", name), {}).get("status", {}).get("phase") for name in named if name]
            if not phases or all(phase == "Succeeded" for phase in phases):
                yield f"it waits for something that exists: {status.get('waitingFor')}"
        case _:
            yield "all of its pods have ended"
    if status.get("completionTime") and resource["spec"].get("ttlAfterFinished") == "1s" and mine["Job"]:
        yield "spec.ttlAfterFinished has passed, and its Jobs still exist"


def _explain_service(
    resource: Raw, status: Raw, mine: dict[str, list[Raw]], ours: dict[tuple[str, str], Raw]
) -> Iterator[str]:
    replicas = 0 if resource["spec"].get("suspend") else resource["spec"].get("replicas", 1)
    ready = [deployment.get("status", {}).get("readyReplicas", 0) for deployment in mine["Deployment"]]
    match status.get("phase"):
        case "Ready":
            if ready != [replicas] or not mine["Service"]:
                yield f"{ready} pods are ready in its Deployments, {len(mine['Service'])} Services"
        case "Suspended":
            if any(ready):
                yield f"{ready} pods are ready"
        case "Waiting" | "Blocked" | "RollingOut":
            spec = resource["spec"]
            named = [("FineTuneJob", spec["model"].get("fineTuneJob", {}).get("name"))]
            named += [("EvalJob", each["name"]) for each in spec.get("promotion", {}).get("evalJobs", ())]
            statuses = [ours.get(key, {}).get("status", {}) for key in named if key[1]]
            if all(each.get("phase") == "Succeeded" and each.get("verdict", "Passed") == "Passed" for each in statuses):
                models = {each.get("model", {}).get("uri") for each in statuses}
                if "another model" not in status.get("message", "") or not models:
                    yield f"it waits for something that exists: {status.get('message')}"
        case _:
            yield f"unexpected phase: {status.get('message')}"


def _is_over(job: Raw) -> bool:
    ends = ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget")
    conditions = job["status"].get("conditions", ())
    return any(condition["type"] in ends and condition["status"] == "True" for condition in conditions)


def repeated(cluster: Cluster) -> list[str]:
    """Events with the same reason and message as the previous Event about the resource."""
    last: dict[str, tuple[str, str]] = {}
    found: list[str] = []
    for event in sorted(cluster.find("Event"), key=lambda event: int(event["metadata"]["resourceVersion"])):
        about, text = event["involvedObject"], (event["reason"], event["message"])
        if about["kind"] in OURS:
            found += [f"{about['kind']}/{about['name']}: {text}"] if last.get(about["uid"]) == text else []
            last[about["uid"]] = text
    return found


def fuzz(plane: ControlPlane, namespace: str, folder: Path, seconds: float, kill_every: float) -> str:
    """Act at random for `seconds`, then wait until every status is explained. Returns a summary."""
    seed = int(os.environ.get("TUNESMITH_SEED") or random.randrange(10**6))
    chance = random.Random(seed)
    users, node = (
        type_(Cluster(plane, administrator(plane), namespace), random.Random(chance.random()))
        for type_ in (Users, Node)
    )
    cluster = users.cluster
    with Supervised(plane, folder, "operator-0") as operator, every(0.3, node.tick):
        cluster.until("the operator leads", operator.leads)
        with every(0.2, users.act), every(kill_every, lambda: operator.process.send_signal(signal.SIGKILL)):
            time.sleep(seconds)
        node.calm = True
        calm = time.monotonic()
        while wrong := unexplained(cluster):
            assert time.monotonic() < calm + AT_REST_SECONDS, f"TUNESMITH_SEED={seed}: " + "\n".join(wrong)
            time.sleep(1)
        rest, writes = time.monotonic() - calm, len(cluster.find("Event"))
        repetitions = repeated(cluster)
        assert len(repetitions) <= 1 + writes // EVENTS_PER_REPETITION, f"TUNESMITH_SEED={seed}: " + "\n".join(
            repetitions
        )
    return (
        f"seed {seed}: {dict(users.done)} by users, {dict(node.done)} by pods, {operator.restarts} kills, {writes} Events; "
        f"at rest after {rest:.0f} s"
    )


def test_a_short_random_run_ends_with_explained_statuses(
    plane: ControlPlane, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = fuzz(plane, cluster.namespace, tmp_path, seconds=20, kill_every=9)
    with capsys.disabled():
        print(f"\nfuzz, sampled: {summary}")


@pytest.mark.deep
def test_a_long_random_run_ends_with_explained_statuses(
    plane: ControlPlane, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minutes = float(os.environ.get("TUNESMITH_FUZZ_MINUTES", "10"))
    summary = fuzz(plane, cluster.namespace, tmp_path, seconds=60 * minutes, kill_every=25)
    with capsys.disabled():
        print(f"\nfuzz: {summary}")
