"""A chain of all three kinds, played step by step, and the end state that no fault of the operator may change."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import urllib3

from devcluster.standalone import ControlPlane
from tests.apiserver.chain import BASE_DIGEST, DIGEST, EVAL, SERVE, TUNE, UNJUDGED, evaluated
from tests.apiserver.cluster import Cluster, Kubelet, Raw
from tests.apiserver.conftest import NAMES, make_namespace
from tests.apiserver.finetunejobs import MESSAGES
from tests.apiserver.operator_process import OperatorProcess
from tests.apiserver.proxy import Proxy, no_fault, no_tampering
from tests.apiserver.scope import NAMESPACED, leave
from tunesmith_operator.plan.pods.read import is_true
from tunesmith_operator.plan.types import CHILDREN

OURS = ("FineTuneJob", "EvalJob", "InferenceService")
MADE = tuple(kind for kind in CHILDREN if kind != "Pod")
"""Kinds of children that the operator makes itself."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
QUIET_SECONDS = 1.0
"""A leader with an empty queue is at rest after this time without a reconcile or a write."""
REST_SECONDS = 60.0
"""How long that may take."""
SPARE = 20
"""How many namespaces there are for an operator that works by Roles in them."""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
POD = re.compile(r"(support-[a-z-]+-\d+)-[a-z0-9]{5}\b")
"""The name of a Job's pod, with what is random in it."""
TOKENS = re.compile(r'("TUNESMITH_PROGRESS_TOKEN", "value": "|progress-token-sha256": ")[0-9a-f]{64}')
"""What is new with every process: its progress tokens."""


@dataclass(frozen=True)
class Step:
    """An event in the cluster, and the statuses that show that the operator has processed it."""

    happens: Callable[[Cluster], object]
    shown: dict[str, Sequence[str]]
    """Kind -> texts that its status contains."""


def _waiting(phase: str) -> dict[str, Sequence[str]]:
    return {kind: [f"to succeed; it is {phase}"] for kind in ("EvalJob", "InferenceService")}


def _verdict(phase: str) -> dict[str, Sequence[str]]:
    return {"InferenceService": [f"to report its verdict; it is {phase}"]}


def pod(cluster: Cluster, job: str) -> Kubelet:
    """The kubelet of a Job's pod."""
    return Kubelet(cluster, cluster.pod_of(job))


def serving_pods_are_ready(cluster: Cluster) -> None:
    """Every pod that is to serve answers, as soon as there are any that did not."""
    for each in cluster.until("a pod that is to serve", lambda: _not_ready(cluster)):
        Kubelet(cluster, each).ready()


def _not_ready(cluster: Cluster) -> list[Raw]:
    return [each for each in cluster.find("Pod", "tunesmith.dev/role=serve") if not is_true(each, "Ready")]


CHAIN: tuple[Step, ...] = (
    Step(lambda cluster: cluster.create(SERVE), {"InferenceService": ["Waiting", "does not exist"]}),
    Step(lambda cluster: cluster.create(EVAL), {"EvalJob": ["Waiting", "does not exist"]}),
    Step(lambda cluster: cluster.create(TUNE), {"FineTuneJob": ["Pending"], **_waiting("Pending")}),
    Step(
        lambda cluster: pod(cluster, "support-tune-1").runs("fetch"),
        {"FineTuneJob": ["Preparing"], **_waiting("Preparing")},
    ),
    Step(
        lambda cluster: pod(cluster, "support-tune-1").runs("train"),
        {"FineTuneJob": ["Running"], **_waiting("Running")},
    ),
    Step(
        lambda cluster: pod(cluster, "support-tune-1").ends(MESSAGES),
        {"FineTuneJob": ["Succeeded"], "EvalJob": ["WaitingForPod"], **_verdict("Pending")},
    ),
    Step(
        lambda cluster: pod(cluster, "support-eval-model-1").runs("evaluate"),
        {"EvalJob": ["Running"], **_verdict("Running")},
    ),
    Step(
        lambda cluster: pod(cluster, "support-eval-baseline-1").ends(evaluated(0.5, BASE_DIGEST)),
        {"EvalJob": [BASE_DIGEST]},
    ),
    Step(
        lambda cluster: pod(cluster, "support-eval-model-1").ends(evaluated(0.9, DIGEST)),
        {"EvalJob": ["GatesPassed"], "InferenceService": ["Starting", '"replicas": 1']},
    ),
    Step(serving_pods_are_ready, {"InferenceService": ["Serving", '"readyReplicas": 1']}),
)


def runs_out_of_memory(cluster: Cluster) -> None:
    """The first attempt's pod."""
    pod(cluster, "support-tune-1").ends(MESSAGES, {"train": {"exitCode": 137, "reason": "OOMKilled"}})


def change(kind: str, **spec: Any) -> Callable[[Cluster], object]:
    """What patches the spec of the resource of a kind."""
    return lambda cluster: cluster.patch(kind, "support", {"spec": spec})


TUNING = Step(lambda cluster: cluster.create(TUNE), {"FineTuneJob": ["Pending"]})
FAILING: tuple[Step, ...] = (
    TUNING,
    Step(runs_out_of_memory, {"FineTuneJob": ["OOMKilled", "attempt 2 begins at"]}),
    Step(lambda cluster: pod(cluster, "support-tune-2"), {"FineTuneJob": ['"reason": "WaitingForPod"']}),
    Step(lambda cluster: pod(cluster, "support-tune-2").ends(MESSAGES), {"FineTuneJob": ["Succeeded"]}),
)
"""A training that is tried again."""
CHANGED: tuple[Step, ...] = (
    TUNING,
    Step(lambda cluster: pod(cluster, "support-tune-1").runs("train"), {"FineTuneJob": ["Running"]}),
    Step(change("FineTuneJob", suspend=True), {"FineTuneJob": ["spec.suspend is true: no pods"]}),
    Step(change("FineTuneJob", suspend=False), {"FineTuneJob": ["Pending", '"attempt": 2']}),
    Step(lambda cluster: pod(cluster, "support-tune-2").ends(MESSAGES), {"FineTuneJob": ["Succeeded"]}),
    Step(lambda cluster: cluster.create(UNJUDGED), {"InferenceService": ["Starting", '"replicas": 1']}),
    CHAIN[-1],
    Step(change("InferenceService", maxModelLength=512), {"InferenceService": ["RollingOut", "candidate"]}),
    Step(serving_pods_are_ready, {"InferenceService": ['"phase": "Ready"', '"observedGeneration": 2']}),
)
"""A training that is suspended and resumed, and a service that gets a second version."""


def play(cluster: Cluster, steps: Sequence[Step] = CHAIN, seconds: float = 60) -> None:
    """Play a chain; each step waits for the statuses of the previous step."""
    for step in steps:
        step.happens(cluster)
        await_status(cluster, step, seconds)


def await_status(cluster: Cluster, step: Step, seconds: float = 60) -> None:
    """Wait until the statuses show a step."""
    end = time.monotonic() + seconds
    for kind, texts in step.shown.items():
        while not _shows(cluster, kind, texts):
            status = json.dumps(_status(cluster, kind), indent=1)
            assert time.monotonic() < end, f"{kind} does not show {texts} within {seconds:g} s: {status}"
            time.sleep(0.1)


def _shows(cluster: Cluster, kind: str, texts: Sequence[str]) -> bool:
    status = json.dumps(_status(cluster, kind))
    return all(text in status for text in texts)


def _status(cluster: Cluster, kind: str) -> Raw:
    return (cluster.get(kind, "support") or {}).get("status") or {}


def end_state(cluster: Cluster) -> dict[str, Any]:
    """The state that no fault may change: specs, statuses, children, Events; without times and uids."""
    ours = [thing for kind in OURS for thing in _all(cluster, kind)]
    version = next((thing["status"]["version"] for thing in ours if "version" in thing.get("status", {})), "VERSION")
    state = {
        **{f"{thing['kind']}/{thing['metadata']['name']}": _essence(thing, "status") for thing in ours},
        **{f"{kind}/{child['metadata']['name']}": _essence(child) for kind in MADE for child in _all(cluster, kind)},
        "pods": sorted(_pod(each) for each in cluster.find("Pod")),
        "events": dict(sorted(event_counts(cluster).items())),
    }
    text = json.dumps(state, sort_keys=True).replace(cluster.namespace, "NAMESPACE").replace(version, "VERSION")
    text = TOKENS.sub(r"\1TOKEN", POD.sub(r"\1-POD", UUID.sub("UUID", TIME.sub("TIME", text))))
    normal: dict[str, Any] = json.loads(text)
    return normal


def event_counts(cluster: Cluster) -> Counter[str]:
    """The number of Events about our resources, by resource, type and reason."""
    return Counter(
        f"{about['kind']}/{about['name']} {event['type']} {event['reason']}"
        for event in cluster.find("Event")
        if (about := event["involvedObject"])["kind"] in OURS
    )


def uids(cluster: Cluster, kinds: Sequence[str] = MADE) -> dict[str, str]:
    """The children that the operator has made, or others."""
    return {
        f"{kind}/{child['metadata']['name']}": child["metadata"]["uid"]
        for kind in kinds
        for child in cluster.find(kind)
    }


def orphans(cluster: Cluster) -> list[str]:
    """Children whose controller is not there."""
    there = {thing["metadata"]["uid"] for kind in (*OURS, *CHILDREN, "ReplicaSet") for thing in cluster.find(kind)}
    return [
        f"{kind}/{child['metadata']['name']}"
        for kind in CHILDREN
        for child in cluster.find(kind, "app.kubernetes.io/managed-by=tunesmith")
        if not any(owner["uid"] in there for owner in child["metadata"].get("ownerReferences", ()))
    ]


def _all(cluster: Cluster, kind: str) -> list[Raw]:
    return [{"kind": kind, **thing} for thing in cluster.find(kind)]


def _essence(thing: Raw, *besides: str) -> Raw:
    """The parts of an object that the operator writes."""
    metadata = {
        name: thing["metadata"].get(name) for name in ("labels", "annotations", "ownerReferences", "generation")
    }
    spec = {name: value for name, value in thing.get("spec", {}).items() if name not in ("clusterIP", "clusterIPs")}
    return {"metadata": metadata, "spec": spec, **{name: _timeless(thing.get(name)) for name in ("data", *besides)}}


def _timeless(value: Any) -> Any:
    """Without how long things took."""
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not key.lower().endswith(("seconds", "hours"))}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _pod(thing: Raw) -> str:
    owner = thing["metadata"]["ownerReferences"][0]
    name = owner["name"] if owner["kind"] == "Job" else owner["kind"]
    return f"{owner['kind']} {name} {thing['metadata']['labels']['tunesmith.dev/role']}"


def different(state: Any, other: Any, path: str = "") -> list[str]:
    """Where two states differ, a line each."""
    if isinstance(state, dict) and isinstance(other, dict):
        return [
            line
            for name in sorted(state.keys() | other.keys())
            for line in different(state.get(name), other.get(name), f"{path}.{name}")
        ]
    return [] if state == other else [f"{path}: {json.dumps(state)} != {json.dumps(other)}"]


@dataclass
class Supervised(OperatorProcess):
    """An operator that is restarted when it exits, as a container is. A context manager."""

    may_complain: bool = True
    restarts: int = 0
    peak_mib: float = 0.0
    """Maximum resident memory of its processes."""

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="restart policy")
        self.start()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()
        self.stop()

    @property
    def authorization(self) -> str:
        """The header with the token in its file."""
        user = json.loads((self.folder / "kubeconfig").read_text())["users"][0]["user"]
        return f"Bearer {user['token']}"

    def configuration(self) -> dict[str, Any]:
        self._configuration = getattr(self, "_configuration", None) or super().configuration()
        return self._configuration

    def write_credentials(self) -> None:
        if not (self.folder / "kubeconfig").exists():  # what is mounted in a pod is the same after a restart
            self.renew_credentials()

    def renew_credentials(self) -> None:
        """Give it a new token, in the file that it reads."""
        super().write_credentials()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            if self.process.poll() is not None:
                self.start()
                self.restarts += 1
            else:
                self._measure()

    def _measure(self) -> None:
        with suppress(OSError):  # it has just ended
            self._take_peak(Path(f"/proc/{self.process.pid}/status").read_text().splitlines())

    def _take_peak(self, lines: Sequence[str]) -> None:
        peak = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0 kB")
        self.peak_mib = max(self.peak_mib, int(peak.split()[1]) / 1024)


@dataclass
class Harness:
    """Plays chains one after another, each in a namespace of its own, with a supervised operator behind a proxy."""

    plane: ControlPlane
    http: urllib3.PoolManager
    proxy: Proxy
    operator: Supervised
    spare: deque[str]
    """Namespaces that nothing was done in."""

    @contextmanager
    def namespace(self) -> Iterator[Cluster]:
        """A new namespace. The faults of the proxy end with the block."""
        if not self.spare:
            assert not NAMESPACED, f"more than {SPARE} namespaces, which only an operator of the whole cluster works in"
            self.spare.append(_made(self.plane, self.http))
        cluster = Cluster(self.plane, self.http, self.spare.popleft())
        try:
            yield cluster
        finally:
            self.proxy.fault, self.proxy.tamper = no_fault, no_tampering
            leave(cluster)

    def come_to_rest(self, namespace: str) -> None:
        """Wait until the current process has reconciled everything and writes nothing more."""
        end, last, since = time.monotonic() + REST_SECONDS, None, time.monotonic()
        while last is None or time.monotonic() < since + QUIET_SECONDS:
            assert time.monotonic() < end, f"not at rest within {REST_SECONDS:g} s"
            time.sleep(0.1)
            if (now := self._done_so_far(namespace)) != last:
                last, since = now, time.monotonic()

    def _done_so_far(self, namespace: str) -> tuple[float, int] | None:
        """Reconciles and writes of the leader; None while its queue is not empty, and before its first reconcile."""
        looks = self.operator.metric("tunesmith_reconcile_total")
        is_at_work = self.operator.metric("tunesmith_queue_depth") > 0
        if not looks or is_at_work or not self.operator.leads():
            return None
        return looks, len(self.proxy.writes(namespace))

    def undisturbed(self, steps: Sequence[Step] = CHAIN) -> tuple[list[str], Raw]:
        """The writes of the operator in a chain without faults, in order, and the end state."""
        with self.namespace() as cluster:
            play(cluster, steps)
            self.come_to_rest(cluster.namespace)
            assert orphans(cluster) == []
            return [write.what for write in self.proxy.writes(cluster.namespace)], end_state(cluster)


@contextmanager
def supervised_operator(
    plane: ControlPlane, http: urllib3.PoolManager, folder: Path, **values: Any
) -> Iterator[Harness]:
    """An operator that leads, behind a proxy. With Roles only, it works in namespaces that existed before it."""
    spare = deque(_made(plane, http) for _ in range(SPARE if NAMESPACED else 0))
    with Proxy(plane) as proxy, Supervised(plane, folder, "operator-0", values=values, server=proxy.url) as operator:
        Cluster(plane, http, "").until("the operator leads", operator.leads)
        yield Harness(plane, http, proxy, operator, spare)
    for name in spare:
        leave(Cluster(plane, http, name))


def _made(plane: ControlPlane, http: urllib3.PoolManager) -> str:
    """The name of a new namespace."""
    cluster = Cluster(plane, http, next(NAMES))
    make_namespace(cluster)
    return cluster.namespace


@contextmanager
def replica(
    plane: ControlPlane, folder: Path, name: str, server: str | None = None, **values: Any
) -> Iterator[OperatorProcess]:
    """A replica that is ready, leader or not, and is not restarted."""
    operator = OperatorProcess(plane, folder / name, name, values=values, server=server)
    operator.start()
    try:
        Cluster(plane, urllib3.PoolManager(), "").until(f"{name} is ready", lambda: operator.probe("/readyz")[0] == 200)
        yield operator
    finally:
        operator.process.send_signal(signal.SIGCONT)
        operator.stop()
