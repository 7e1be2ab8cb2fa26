"""Resources in every phase with the status of their plan, and how kstatus and Argo CD must judge each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tests.unit.operator.plan.world import (
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
from tunesmith_api.run import ProgressReport
from tunesmith_operator.plan.types import Progress, Raw, Reference

FETCHED = {"fetch": TUNED["fetch"]}
TUNED_MODEL = {"fineTuneJob": {"name": "first"}}
GATED = {"model": TUNED_MODEL, "promotion": {"evalJobs": [{"name": "check"}]}}
GATE = {"benchmark": "support-qa", "metric": "accuracy", "min": 0.8}


@dataclass(frozen=True)
class Scene:
    """A resource at a moment of its life."""

    resource: Raw
    phase: str
    reason: str
    kstatus: str
    """Verdict of kstatus (Flux, kpt): InProgress, Current or Failed."""
    health: str
    """Health in Argo CD: Progressing, Healthy, Degraded or Suspended."""

    @property
    def is_ready(self) -> bool:
        """Whether `kubectl wait --for=condition=Ready` returns."""
        conditions = self.resource["status"].get("conditions") or []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


@cache
def scenes() -> dict[str, Scene]:
    """The scenes by name, such as `FineTuneJob Running`."""
    return {name: Scene(make(), *expected) for name, (make, *expected) in SCENES.items()}


def begun(thing: Raw | None = None) -> Cluster:
    """A resource whose first children exist."""
    cluster = Cluster(thing or fine_tune_job())
    cluster.others[Reference("FineTuneJob", "first")] = tuned("first")
    cluster.settle()
    return cluster


def settled(cluster: Cluster) -> Raw:
    """The resource after all reconciles that are due."""
    cluster.settle()
    return cluster.resource


def pending_with(message: str) -> Raw:
    cluster = begun()
    cluster.start_pod("support-tune-1", conditions=[condition("PodScheduled", False, "Unschedulable", message)])
    return settled(cluster)


def queued() -> Raw:
    cluster = begun()
    cluster.jobs["support-tune-1"]["spec"]["suspend"] = True
    return settled(cluster)


def started(states: Raw, push: ProgressReport | None = None) -> Cluster:
    cluster = begun()
    cluster.start_pod("support-tune-1", "Pending", states)
    cluster.settle()
    if push:
        cluster.progress["support-tune-1"] = Progress(push, cluster.now)
        cluster.settle()
    return cluster


TRAINING = ProgressReport(
    stage="train", step=40, total_steps=120, loss=0.7312, tokens_per_second=912.4, eta_seconds=260
)


def stopping() -> Raw:
    cluster = started({**FETCHED, "train": running()}, TRAINING)
    cluster.resource = with_spec(cluster.resource, suspend=True)
    pods = dict(cluster.pods)
    cluster.reconcile()
    cluster.pods = pods
    return settled(cluster)


def stopped() -> Raw:
    cluster = started({**FETCHED, "train": running()}, TRAINING)
    cluster.resource = with_spec(cluster.resource, suspend=True)
    return settled(cluster)


def adopted() -> Raw:
    cluster = begun()
    found = {verb: ended(message=report(verb, "Adopted", runUri="s3://r")) for verb in ("fetch", "train", "export")}
    cluster.start_pod("support-tune-1", "Succeeded", found)
    cluster.end_job("support-tune-1", "Complete")
    return settled(cluster)


def between_attempts() -> Raw:
    cluster = begun()
    cluster.fail("support-tune-1", {**FETCHED, "train": ended(137, reason="OOMKilled")})
    return settled(cluster)


def failed() -> Raw:
    cluster = begun()
    message = failed_report("train", "BadRow", "train.jsonl line 17: no field messages")
    cluster.fail("support-tune-1", {**FETCHED, "train": ended(65, message)})
    return settled(cluster)


def edited() -> Raw:
    """Suspended since the last reconcile."""
    return with_spec(started({**FETCHED, "train": running()}).resource, suspend=True)


def new() -> Raw:
    """As the API server returns it before the first reconcile."""
    return {**fine_tune_job(), "status": {"observedGeneration": -1}}


def waits_for_failed_job() -> Raw:
    cluster = Cluster(fine_tune_job(model={"fineTuneJob": {"name": "support"}}))
    cluster.others[Reference("FineTuneJob", "support")] = failed()
    return settled(cluster)


def evaluated(accuracy: float) -> Raw:
    cluster = begun(eval_job(gates=[GATE]))
    result = {"benchmark": "support-qa", "metric": "accuracy", "value": accuracy, "samples": 100}
    message = report("evaluate", results=[result])
    states = {**FETCHED, "serve": ended(143), "evaluate": ended(message=message)}
    cluster.start_pod("support-eval-model-1", "Succeeded", states)
    cluster.end_job("support-eval-model-1", "Complete")
    return settled(cluster)


def evaluating() -> Raw:
    cluster = begun(eval_job())
    job = "support-eval-model-1"
    cluster.start_pod(job, "Running", {**FETCHED, "serve": running(), "evaluate": running()})
    cluster.settle()
    cluster.progress[job] = Progress(ProgressReport(stage="support-qa", step=30, total_steps=100), cluster.now)
    return settled(cluster)


def crashed() -> Raw:
    cluster = begun(eval_job())
    message = failed_report("evaluate", "EvaluationFailed", "12 of 100 answers failed")
    cluster.fail("support-eval-model-1", {**FETCHED, "serve": ended(143), "evaluate": ended(84, message)})
    return settled(cluster)


def serving(ready: int = 2, wanted: int = 2, late: bool = False, **spec: object) -> Cluster:
    """A service whose Deployment has this many pods and ready pods."""
    cluster = begun(inference_service(replicas=wanted, **spec))
    deploy(cluster, ready, wanted, late)
    return cluster


def deploy(cluster: Cluster, ready: int, total: int, late: bool = False) -> None:
    """Set the status of the Deployment, as the Deployment controller does."""
    deployment = cluster.deployments["support"]
    progressing = [condition("Progressing", False, "ProgressDeadlineExceeded")] if late else []
    counts = {"replicas": total, "readyReplicas": ready, "updatedReplicas": total, "availableReplicas": ready}
    deployment["status"] = {
        **counts,
        "observedGeneration": deployment["metadata"]["generation"],
        "conditions": progressing,
    }
    cluster.settle()


def rolling_out() -> Raw:
    cluster = serving()
    cluster.resource = with_spec(cluster.resource, resources={"memory": "8Gi"})
    cluster.settle()
    deployment = cluster.deployments["support"]
    deployment["status"] |= {
        "updatedReplicas": 1,
        "replicas": 3,
        "observedGeneration": deployment["metadata"]["generation"],
    }
    return settled(cluster)


def rolled_back() -> Raw:
    """A service whose new version was not ready in time."""
    cluster = serving()
    cluster.resource = with_spec(cluster.resource, resources={"memory": "8Gi"})
    cluster.settle()
    deploy(cluster, 2, 3, late=True)
    deploy(cluster, 2, 2)
    return settled(cluster)


def crashing() -> Raw:
    cluster = serving(ready=0)
    template = cluster.deployments["support"]["spec"]["template"]
    last = ended(83, failed_report("serve", "EngineFailed", "config.json: no such architecture"))
    serve = {"name": "serve", "restartCount": 2, "state": waiting("CrashLoopBackOff"), "lastState": last}
    cluster.pods["support-abc-1"] = {
        "metadata": {**template["metadata"], "name": "support-abc-1", "namespace": "team", "uid": "u1"},
        "spec": template["spec"],
        "status": {"phase": "Running", "containerStatuses": [serve]},
    }
    return settled(cluster)


def gated(verdict: str | None) -> Raw:
    """A service whose model waits for a verdict, or has one."""
    cluster = Cluster(inference_service(**GATED))
    cluster.others[Reference("FineTuneJob", "first")] = tuned("first")
    status = {
        "phase": "Succeeded" if verdict else "Running",
        "verdict": verdict,
        "model": {"uri": "s3://m", "digest": "d2"},
    }
    cluster.others[Reference("EvalJob", "check")] = {**eval_job("check", model=TUNED_MODEL), "status": status}
    return settled(cluster)


def suspended_service() -> Raw:
    cluster = serving()
    cluster.resource = with_spec(cluster.resource, suspend=True)
    cluster.settle()
    deploy(cluster, 0, 0)
    return settled(cluster)


SUMMARY = "needs 21.4 of 22.5 GiB on each device; about 3 h 10 min on one L4"


def estimated() -> Raw:
    cluster = begun(fine_tune_job(until="estimate", resources={"accelerator": "nvidia"}))
    message = report("prepare", estimate={"summary": SUMMARY, "memoryBytes": 22978461696})
    cluster.start_pod("support-tune-1", "Succeeded", {"prepare": ended(message=message)})
    cluster.end_job("support-tune-1", "Complete")
    return settled(cluster)


REFUSED_MODEL = {"uri": "file:///m"}

SCENES: dict[str, tuple[Callable[[], Raw], str, str, str, str]] = {
    "FineTuneJob new": (new, "", "", "InProgress", "Progressing"),
    "FineTuneJob Waiting": (
        lambda: settled(Cluster(fine_tune_job(model=TUNED_MODEL))),
        "Waiting", "WaitingForModel", "InProgress", "Progressing",
    ),
    "FineTuneJob Waiting in vain": (waits_for_failed_job, "Waiting", "WaitingForModel", "Failed", "Degraded"),
    "FineTuneJob Queued": (queued, "Queued", "Queued", "InProgress", "Progressing"),
    "FineTuneJob Pending": (lambda: begun().resource, "Pending", "WaitingForPod", "InProgress", "Progressing"),
    "FineTuneJob Pending, no node": (
        lambda: pending_with("0/3 nodes are available: 3 Insufficient cpu."),
        "Pending", "Unschedulable", "InProgress", "Progressing",
    ),
    "FineTuneJob Pending, after a failure": (between_attempts, "Pending", "BackOff", "InProgress", "Progressing"),
    "FineTuneJob Preparing": (
        lambda: started({"fetch": running()}).resource, "Preparing", "Fetching", "InProgress", "Progressing",
    ),
    "FineTuneJob Running": (
        lambda: started({**FETCHED, "train": running()}, TRAINING).resource,
        "Running", "Running", "InProgress", "Progressing",
    ),
    "FineTuneJob edited": (edited, "Running", "Running", "InProgress", "Progressing"),
    "FineTuneJob Suspended, stopping": (stopping, "Suspended", "Suspended", "InProgress", "Progressing"),
    "FineTuneJob Suspended": (stopped, "Suspended", "Suspended", "Current", "Suspended"),
    "FineTuneJob Succeeded": (tuned, "Succeeded", "Completed", "Current", "Healthy"),
    "FineTuneJob Succeeded, estimated": (estimated, "Succeeded", "Completed", "Current", "Healthy"),
    "FineTuneJob Succeeded, adopted": (adopted, "Succeeded", "AdoptedExisting", "Current", "Healthy"),
    "FineTuneJob Failed": (failed, "Failed", "BadRow", "Failed", "Degraded"),
    "FineTuneJob Failed, refused": (
        lambda: settled(Cluster(fine_tune_job(model=REFUSED_MODEL))), "Failed", "BadSpec", "Failed", "Degraded",
    ),
    "EvalJob Waiting": (
        lambda: settled(Cluster(eval_job(model=TUNED_MODEL))), "Waiting", "WaitingForModel", "InProgress", "Progressing",
    ),
    "EvalJob Pending": (lambda: begun(eval_job()).resource, "Pending", "WaitingForPod", "InProgress", "Progressing"),
    "EvalJob Running": (evaluating, "Running", "Running", "InProgress", "Progressing"),
    "EvalJob Suspended": (
        lambda: settled(Cluster(eval_job(suspend=True))), "Suspended", "Suspended", "Current", "Suspended",
    ),
    "EvalJob Succeeded, passed": (lambda: evaluated(0.9), "Succeeded", "GatesPassed", "Current", "Healthy"),
    "EvalJob Succeeded, not passed": (lambda: evaluated(0.35), "Succeeded", "GatesFailed", "Current", "Healthy"),
    "EvalJob Failed": (crashed, "Failed", "EvaluationFailed", "Failed", "Degraded"),
    "InferenceService Waiting for its model": (
        lambda: settled(Cluster(inference_service(**GATED))), "Waiting", "WaitingForModel", "InProgress", "Progressing",
    ),
    "InferenceService Waiting for a verdict": (
        lambda: gated(None), "Waiting", "WaitingForVerdict", "InProgress", "Progressing",
    ),
    "InferenceService Blocked": (lambda: gated("Failed"), "Blocked", "PromotionBlocked", "Failed", "Degraded"),
    "InferenceService Pending": (
        lambda: serving(ready=0).resource, "Pending", "Starting", "InProgress", "Progressing",
    ),
    "InferenceService Pending, crashing": (crashing, "Pending", "EngineFailed", "InProgress", "Progressing"),
    "InferenceService Ready": (lambda: serving().resource, "Ready", "Serving", "Current", "Healthy"),
    "InferenceService Ready, no replicas": (
        lambda: serving(ready=0, wanted=0).resource, "Ready", "ScaledToZero", "Current", "Healthy",
    ),
    "InferenceService RollingOut": (rolling_out, "RollingOut", "RollingOut", "InProgress", "Progressing"),
    "InferenceService RollingOut, too late": (
        lambda: serving(ready=0, late=True).resource, "RollingOut", "RolloutTimeout", "Failed", "Degraded",
    ),
    "InferenceService RolledBack": (rolled_back, "RolledBack", "RolledBack", "Failed", "Degraded"),
    "InferenceService Suspended": (suspended_service, "Suspended", "Suspended", "Current", "Suspended"),
    "InferenceService Failed": (
        lambda: settled(Cluster(inference_service(model=REFUSED_MODEL))), "Failed", "BadSpec", "Failed", "Degraded",
    ),
}  # fmt: skip
"""Name -> builder, phase, reason, verdict of kstatus, health in Argo CD."""
