"""Builders of the objects that plans observe, and a cluster of dicts on which plans are carried out."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.manifests import load_all
from tunesmith_operator.client import RESOURCES
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.config import Engines, OperatorConfig, PodPolicy
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import CHILDREN, Event, Key, Observed, Plan, Progress, Raw, Reference

CRDS = Path(__file__).parents[4] / "crds"
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

CONFIG = OperatorConfig.model_validate(
    {
        "images": {"runtime": "registry/runtime:1", "engines": {"lmdeploy": "registry/lmdeploy:1"}},
        "store": {
            "uri": "s3://store/tunesmith",
            "endpoint": "https://s3.example:9000",
            "pathStyle": True,
            "caBundle": {"name": "s3-ca", "key": "ca.crt"},
            "credentialsSecret": "s3-credentials",
        },
        "podPolicy": {name: value is False or ["*"] for name, value in PodPolicy().model_dump(by_alias=True).items()},
        "progressUrl": "http://tunesmith-operator.system.svc:8082/v1/progress",
    }
)


def with_engines(engines: dict[str, str]) -> OperatorConfig:
    """The configuration with images of these engines only."""
    images = CONFIG.images.model_copy(update={"engines": Engines(**engines)})
    return CONFIG.model_copy(update={"images": images})


def token(uid: str, job: str) -> str:
    """A pure stand-in for the operator's HMAC."""
    return hashlib.sha256(f"{uid}/{job}".encode()).hexdigest()


def resource(kind: str, spec: Raw, name: str = "support", **metadata: Any) -> Raw:
    """A resource as the API server holds it."""
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-of-{name}",
            "generation": 1,
            "creationTimestamp": format_time(START),
            **metadata,
        },
        "spec": spec,
    }


def fine_tune_job(name: str = "support", **spec: Any) -> Raw:
    """A FineTuneJob with all required fields."""
    data = [{"uri": "s3://data/train.jsonl"}]
    return resource("FineTuneJob", {"model": {"uri": "hf://Qwen/Qwen3-8B"}, "datasets": data, **spec}, name)


def eval_job(name: str = "support", **spec: Any) -> Raw:
    """An EvalJob with a benchmark of its own."""
    benchmark = {"name": "support-qa", "dataset": {"uri": "s3://data/test.jsonl", "type": "qa"}}
    return resource("EvalJob", {"model": {"uri": "s3://models/a"}, "benchmarks": [benchmark], **spec}, name)


def inference_service(name: str = "support", **spec: Any) -> Raw:
    """An InferenceService of a model in the store."""
    return resource("InferenceService", {"model": {"uri": "s3://models/a"}, **spec}, name)


def report(verb: str, outcome: str = "Succeeded", **more: Any) -> str:
    """A container's termination message."""
    return json.dumps({"verb": verb, "outcome": outcome, **more})


def failed_report(verb: str, class_: str, message: str, **more: Any) -> str:
    """The termination message of a container that failed."""
    return report(verb, "Failed", failure={"class": class_, "message": message, **more})


def ended(code: int = 0, message: str = "", reason: str | None = None) -> Raw:
    """The state of a container that has ended."""
    reason = reason or ("Completed" if code == 0 else "Error")
    finished = format_time(START + timedelta(minutes=5))
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": finished}}


def waiting(reason: str, message: str = "") -> Raw:
    """The state of a container that has not started."""
    return {"waiting": {"reason": reason, "message": message}}


def running() -> Raw:
    """The state of a running container."""
    return {"running": {"startedAt": format_time(START)}}


def condition(type_: str, status: bool = True, reason: str = "", message: str = "", at: datetime = START) -> Raw:
    """A condition of a pod, Job or Deployment."""
    return {
        "type": type_,
        "status": str(status),
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(at),
    }


@cache
def status_validator(kind: str) -> Draft202012Validator:
    """Validator of a kind's status by its CRD. It rejects unknown fields, which the API server would drop."""
    text = (CRDS / f"{RESOURCES[kind].plural}.yaml").read_text()
    [crd] = load_all(text)
    version = crd["spec"]["versions"][0]
    return Draft202012Validator(_strict(version["schema"]["openAPIV3Schema"]["properties"]["status"]))


def check_status(kind: str, status: Raw) -> None:
    """Fail if the API server would reject the status or drop a part of it."""
    json.dumps(status, allow_nan=False)
    validator = status_validator(kind)
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(status)]
    assert not problems, problems
    _check(validator.schema, status)


def check_generation(resource: Raw, status: Raw) -> None:
    """Fail if a status or one of its conditions is about another generation than the current one."""
    generations = {status["observedGeneration"], *(each["observedGeneration"] for each in status["conditions"])}
    assert generations == {resource["metadata"]["generation"]}, status


def check_events(old: Raw, plan: Plan) -> None:
    """Fail if a plan repeats an Event, has two for a transition, or none for a transition to a final phase."""
    new = plan.status or {}
    moved = (old.get("phase"), old.get("reason")) != (new.get("phase"), new.get("reason"))
    before, after = old.get("lastFailure") or {}, new.get("lastFailure") or {}
    failed = any(before.get(name) != after.get(name) for name in ("class", "pod", "container"))
    assert len(plan.events) <= moved + failed, plan.events
    assert len({event.reason for event in plan.events}) == len(plan.events), plan.events
    if moved and new.get("phase") in ("Succeeded", "Failed"):
        assert plan.events


def _check(schema: Any, thing: Any) -> None:
    """Check what a JSON Schema validator does not and the API server does: unique keys, times, the width of integers."""
    if isinstance(thing, dict):
        for name, value in thing.items():
            _check(schema.get("properties", {}).get(name, {}), value)
    if isinstance(thing, list):
        keys = schema.get("x-kubernetes-list-map-keys")
        known = [tuple(item.get(key) for key in keys) for item in thing] if keys else []
        assert len(known) == len(set(known)), known
        for item in thing:
            _check(schema["items"], item)
    if schema.get("format") == "date-time":
        assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z", thing), thing
    if schema.get("type") == "integer":
        assert abs(thing) < 2**63


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return {**closed, **{name: _strict(value) for name, value in schema.items()}}


@dataclass
class Cluster:
    """A resource and its children: enough of an API server to carry out plans."""

    resource: Raw
    now: datetime = START
    config: OperatorConfig = CONFIG
    jobs: dict[str, Raw] = field(default_factory=dict)
    pods: dict[str, Raw] = field(default_factory=dict)
    deployments: dict[str, Raw] = field(default_factory=dict)
    services: dict[str, Raw] = field(default_factory=dict)
    revisions: dict[str, Raw] = field(default_factory=dict)
    autoscalers: dict[str, Raw] = field(default_factory=dict)
    budgets: dict[str, Raw] = field(default_factory=dict)
    others: dict[Reference, Raw] = field(default_factory=dict)
    cycle: tuple[Reference, ...] = ()
    kubernetes_events: list[Raw] = field(default_factory=list)
    workloads: list[Raw] = field(default_factory=list)
    workloads_problem: str = ""
    progress: dict[str, Progress] = field(default_factory=dict)
    foreign: set[Key] = field(default_factory=set)
    former: set[Key] = field(default_factory=set)
    refused: dict[Key, str] = field(default_factory=dict)
    writes: int = 0
    events: list[Event] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)

    @property
    def status(self) -> Raw:
        return self.resource.get("status") or {}

    def condition(self, type_: str) -> Raw:
        return next((each for each in self.status.get("conditions", []) if each["type"] == type_), {})

    def observed(self) -> Observed:
        kind = KINDS[self.resource["kind"]]
        return Observed(
            **{field: tuple(self.shelf(child).values()) for child, field in CHILDREN.items()},
            events=tuple(self.kubernetes_events),
            workloads=tuple(self.workloads),
            workloads_problem=self.workloads_problem,
            references={named: self.others.get(named) for named in kind.references(self.resource)},
            cycle=self.cycle,
            progress=dict(self.progress),
            foreign=frozenset(self.foreign),
            former=frozenset(self.former & self.foreign),
            refused=dict(self.refused),
        )

    def shelf(self, kind: str) -> dict[str, Raw]:
        """The children of a kind, by name."""
        shelf: dict[str, Raw] = getattr(self, CHILDREN[kind])
        return shelf

    def plan(self) -> Plan:
        """The current plan, not carried out."""
        return KINDS[self.resource["kind"]].plan(self.resource, self.observed(), self.now, self.config, token)

    def reconcile(self, after: float = 0.0) -> Plan:
        """Plan after `after` seconds, and carry out the plan."""
        self.now += timedelta(seconds=after)
        plan = self.plan()
        for manifest in plan.create:
            existing = self.shelf(manifest["kind"])
            assert manifest["metadata"]["name"] not in existing, "it is created once"
            existing[manifest["metadata"]["name"]] = self.stored(manifest)
        for manifest in plan.apply:
            shelf = self.shelf(manifest["kind"])
            before = shelf.get(manifest["metadata"]["name"], {})
            after = {**self.stored(manifest), "status": before.get("status", {})}
            after["metadata"]["generation"] = before.get("metadata", {}).get("generation", 0) + 1
            shelf[manifest["metadata"]["name"]] = after
        if plan.status is not None:
            check_status(self.resource["kind"], plan.status)
            check_generation(self.resource, plan.status)
            check_events(self.status, plan)
            self.resource = {**self.resource, "status": json.loads(json.dumps(plan.status))}
        for key in plan.delete:
            self.remove(key.name) if key.kind == "Job" else self.shelf(key.kind).pop(key.name)
        self.writes += len(plan.create) + len(plan.apply) + len(plan.delete) + (plan.status is not None)
        self.events += plan.events
        self.plans.append(plan)
        return plan

    def stored(self, manifest: Raw) -> Raw:
        """A manifest as the API server returns it."""
        copy = json.loads(json.dumps(manifest))
        copy["metadata"] |= {"uid": f"uid-of-{copy['metadata']['name']}", "creationTimestamp": format_time(self.now)}
        return copy

    def remove(self, job: str) -> None:
        """Delete a Job and its pods, as kubectl delete does."""
        self.jobs.pop(job, None)
        self.pods = {name: pod for name, pod in self.pods.items() if not name.startswith(f"{job}-")}

    def start_pod(
        self, job: str, phase: str = "Pending", states: Raw | None = None, index: int | None = None, **status: Any
    ) -> Raw:
        """Create or replace a pod of a Job, with the states of its containers by name; containers without a state initialize."""
        template = self.jobs[job]["spec"]["template"]
        name = f"{job}-x7k2p" if index is None else f"{job}-{index}-x7k2p"
        place = {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}
        known = states or {}

        def statuses(containers: list[Raw]) -> list[Raw]:
            return [
                {
                    "name": container["name"],
                    "restartCount": 0,
                    **_status_of(known.get(container["name"], waiting("PodInitializing"))),
                }
                for container in containers
            ]

        pod = {
            "metadata": {
                **template["metadata"],
                "annotations": {**template["metadata"].get("annotations", {}), **place},
                "name": name,
                "namespace": "team",
                "uid": f"uid-of-{name}",
                "creationTimestamp": format_time(self.now),
                "ownerReferences": [
                    {"kind": "Job", "name": job, "uid": self.jobs[job]["metadata"]["uid"], "controller": True}
                ],
            },
            "spec": template["spec"],
            "status": {
                "phase": phase,
                "startTime": format_time(self.now),
                "initContainerStatuses": statuses(template["spec"].get("initContainers", [])),
                "containerStatuses": statuses(template["spec"]["containers"]),
                **status,
            },
        }
        self.pods[name] = pod
        return pod

    def end_job(self, job: str, type_: str, reason: str = "BackoffLimitExceeded") -> None:
        """Set the final condition of a Job, as the Job controller does."""
        self.jobs[job]["status"] = {"conditions": [condition(type_, True, reason, at=self.now)]}

    def admit(self, job: str) -> None:
        """Admit a Job, as its queue does."""
        self.jobs[job]["spec"]["suspend"] = False
        resumed = condition("Suspended", False, "JobResumed", at=self.now)
        self.jobs[job]["status"] = {"startTime": format_time(self.now), "conditions": [resumed]}

    def hold(self, job: str) -> None:
        """Suspend a Job, as its queue does: the Job controller deletes its pods, which have two minutes to stop."""
        self.jobs[job]["spec"]["suspend"] = True
        self.jobs[job]["status"] = {"conditions": [condition("Suspended", True, "JobSuspended", at=self.now)]}
        for name, pod in self.pods.items():
            if name.startswith(f"{job}-"):
                pod["metadata"]["deletionTimestamp"] = format_time(self.now + timedelta(minutes=2))

    def stop_pods(self, job: str) -> None:
        """Remove the pods of a Job, which have stopped."""
        self.pods = {name: pod for name, pod in self.pods.items() if not name.startswith(f"{job}-")}

    def fail(self, job: str, states: Raw, **status: Any) -> None:
        """Fail the pod of a Job, and the Job."""
        self.start_pod(job, "Failed", states, **status)
        self.end_job(job, "Failed")

    def begin(self) -> None:
        """Reconcile until no write is left, with preparations that find no finished work."""
        self.settle()
        for name in [name for name, job in self.jobs.items() if "-prepare" in name and "status" not in job]:
            self.prepare(name)
        self.settle()

    def prepare(self, job: str, outcome: str = "Succeeded", **fields: Any) -> None:
        """End a Job that prepares the work."""
        self.start_pod(job, "Succeeded", {"prepare": ended(message=report("prepare", outcome, **fields))})
        self.end_job(job, "Complete", "CompletionsReached")

    def settle(self, turns: int = 8) -> None:
        """Reconcile until a plan is empty at the current time."""
        for _ in range(turns):
            if self.reconcile().is_empty:
                return
        raise AssertionError(f"it does not come to rest: {self.plans[-1]}")


def _status_of(state: Raw) -> Raw:
    """The status of a container with `state`, which may be a whole status."""
    return state if "state" in state else {"state": state}


TUNED = {
    "fetch": ended(message=report("fetch", runUri="s3://store/run", modelUri="s3://store/m/1", modelDigest="d0")),
    "train": ended(message=report("train", rows={"kept": 9}, metrics={"steps": 12, "trainLoss": 0.5})),
    "export": ended(
        message=report(
            "export",
            artifacts=[
                {"name": "adapter", "uri": "s3://store/run/adapter", "digest": "d1"},
                {"name": "merged", "uri": "s3://store/run/merged", "digest": "d2"},
            ],
        )
    ),
}
"""Final states of the containers of a FineTuneJob's pod that succeeds."""


def tune(cluster: Cluster, job: str = "support-tune-1") -> None:
    """Let the pod of a FineTuneJob succeed."""
    cluster.start_pod(job, "Succeeded", TUNED)
    cluster.end_job(job, "Complete", "CompletionsReached")


def tuned(name: str = "support", **spec: Any) -> Raw:
    """A FineTuneJob that has succeeded."""
    cluster = Cluster(fine_tune_job(name, **spec))
    cluster.settle()
    tune(cluster, f"{name}-tune-1")
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded", cluster.status
    return cluster.resource


def with_spec(thing: Raw, **changes: Any) -> Raw:
    """A resource whose spec was edited."""
    generation = thing["metadata"]["generation"] + 1
    return {
        **thing,
        "metadata": {**thing["metadata"], "generation": generation},
        "spec": {**thing["spec"], **changes},
    }
