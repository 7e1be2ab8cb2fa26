"""The true cause: from what the cluster says of a pod or a Job to a class of failure, a sentence and a hint.

Sources: container states and pod conditions (Pod v1: reasons of waiting and terminated states, DisruptionTarget),
the runtime's reports, the scheduler's message, and Events where an object has no word for its trouble. What is said in
prose only is read by `words`; what libraries say in logs, by `tunesmith_api.failures.recognise`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from tunesmith_api.common import LastFailure
from tunesmith_api.failures import (
    BY_EXIT_CODE,
    EVAL,
    FAILURES,
    SERVE,
    SIGNALS,
    TUNE,
    FailureClass,
    Retry,
    recognise,
)
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_operator.plan.failures import cluster_messages as words
from tunesmith_operator.plan.failures import namespace_limits as bounds
from tunesmith_operator.plan.names import KIND_LABEL, is_deleting, label, metadata, name_of, uid_of
from tunesmith_operator.plan.pods.members import pod_count
from tunesmith_operator.plan.pods.read import Container, condition, containers, describe, is_true
from tunesmith_operator.plan.spec.policy import KEYS, NAMES
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Raw

MESSAGE_LIMIT = 2048
POLICIES = {**NAMES, **KEYS, "pod.tolerations": "tolerations"}
"""Field below spec -> the list of the chart's podPolicy that its value must be in."""
SLOW_START = timedelta(seconds=20)
"""A pod that has a node and no running container after this time has trouble that only Events tell."""
CRASH_LOOP_RESTARTS = 3
"""A sidecar that ended so often will not come up."""

PENDING_CLASSES = frozenset(class_ for class_, row in FAILURES.items() if row.retry is Retry.WAITS)
"""Troubles that keep a pod from starting and may pass: they end no attempt, and are forgotten when they are over."""

WAITING_REASONS: dict[str, FailureClass] = {
    "ErrImagePull": FailureClass.IMAGE_PULL,
    "ImagePullBackOff": FailureClass.IMAGE_PULL,
    "InvalidImageName": FailureClass.IMAGE_PULL,
    "ErrImageNeverPull": FailureClass.IMAGE_PULL,
    "ImageInspectError": FailureClass.IMAGE_PULL,
    "RegistryUnavailable": FailureClass.IMAGE_PULL,
    "SignatureValidationFailed": FailureClass.IMAGE_PULL,
    "CreateContainerConfigError": FailureClass.POD_START,
    "CreateContainerError": FailureClass.POD_START,
    "PreCreateHookError": FailureClass.POD_START,
    "RunContainerError": FailureClass.POD_START,
    "PreStartHookError": FailureClass.POD_START,
    "PostStartHookError": FailureClass.POD_START,
}
DISRUPTIONS: dict[str, FailureClass] = {
    "PreemptionByScheduler": FailureClass.PREEMPTED,
    "EvictionByEvictionAPI": FailureClass.PREEMPTED,
    "DeletionByTaintManager": FailureClass.NODE_LOST,
    "DeletionByPodGC": FailureClass.NODE_LOST,
    "TerminationByKubelet": FailureClass.EVICTED,
}
"""Reasons of the pod condition DisruptionTarget."""
POD_REASONS: dict[str, FailureClass] = {
    "Evicted": FailureClass.EVICTED,
    "Preempting": FailureClass.PREEMPTED,
    "NodeLost": FailureClass.NODE_LOST,
    "NodeShutdown": FailureClass.NODE_LOST,
    "Shutdown": FailureClass.NODE_LOST,
    "Terminated": FailureClass.NODE_LOST,
    "DeadlineExceeded": FailureClass.DEADLINE_EXCEEDED,
}
"""`status.reason` of a failed pod: surer than the condition, which calls all that the kubelet does TerminationByKubelet."""
REJECTED = "Pod was rejected: "
"""With this begins `status.message` of a pod that its kubelet has not admitted, whatever the reason."""
WRAPPED_PULL = re.compile(r'^(?:Back-off pulling image "[^"]*": \w+: )?(?:rpc error: code = \w+ desc = )?')
"""What stands before the cause in the kubelet's message of a failed pull."""
PREEMPTION = re.compile(r"[.,]?(?: no new claims to deallocate,)? preemption:")
"""What the scheduler says after this is why it helps nobody to end other pods."""
START_ERRORS = frozenset({"StartError", "ContainerCannotRun"})
EVENT_REASONS: dict[str, FailureClass] = {
    "FailedMount": FailureClass.POD_START,
    "FailedAttachVolume": FailureClass.POD_START,
    "FailedCreatePodSandBox": FailureClass.POD_START,
}
STEPS: dict[str, str] = {
    "Scheduled": "gets its volumes and network",
    "SuccessfulAttachVolume": "gets its volumes and network",
    "Pulling": "pulls the image{image}",
    "Pulled": "has its image{image} and creates the container",
    "Created": "starts the container",
}
"""Reasons of the Events by which scheduler, attach controller and kubelet report the progress of a starting pod."""
IMAGE = re.compile(r'image "([^"]+)"')
SIGTERM, SIGKILL = 143, 137
VAGUE = frozenset({FailureClass.PROCESS_ERROR, FailureClass.ENGINE_FAILED})
"""Classes that say where it failed and not why: the log may know better."""
PROBE_HINTS: dict[str, str] = {
    EVAL: "the log tail says how far it came; a model that loads slowly needs more spec.resources.cpu",
    SERVE: "the log tail says how far it came; a model that loads slowly needs a longer spec.rollout.readyTimeout or more "
    "spec.resources.cpu",
}
KILLED_HINT = (
    "read the log tail, and look at the node's kernel log for out-of-memory kills: if there is one, set spec.resources.memory to "
    "what the pod needs"
)
MUTABLE = "|".join(sorted(FineTuneJobSpec.mutable))
FIXED_FIELD = re.compile(rf"\bspec\.(?!(?:{MUTABLE})\b)\w")
"""A field of a job that can't be changed; the jobs of both kinds can change the same."""
ANEW = "then create the resource anew (delete it, apply it): what is in the store is used again"


def failure(class_: FailureClass, message: str, hint: str | None = None, kind: str = "", **more: Any) -> LastFailure:
    """A failure of a resource of `kind` with the table's hint, or a better one, and what else it takes to follow it."""
    full = _permitted(hint or FAILURES[class_].hint_for(kind))
    if kind in (TUNE, EVAL) and (class_ is FailureClass.BAD_SPEC or FIXED_FIELD.search(full)):
        full = with_recreation(full)
    return LastFailure(class_=class_, message=message[:MESSAGE_LIMIT], hint=full[:MESSAGE_LIMIT], **more)


def with_recreation(hint: str) -> str:
    """`hint` for a job whose spec is fixed or that has ended: it takes effect only when the job is created again."""
    return hint if ANEW in hint else f"{hint}; {ANEW}"


def advised(message: str, hint: str) -> str:
    """What happened and, apart from it, what to do, as one text."""
    return f"{message.rstrip('.')}. Hint: {hint}" if hint else message


def _permitted(hint: str) -> str:
    """`hint` and what an administrator must have allowed for it."""
    lists = {f"podPolicy.{policy}": None for field, policy in POLICIES.items() if f"spec.{field}" in hint}
    return f"{hint} ({' and '.join(lists)} in the chart's values must allow it)" if lists else hint


def kind_of(thing: Raw) -> str:
    """The kind of the resource that a child belongs to."""
    return label(thing, KIND_LABEL) or ""


def why_ended(pod: Raw) -> LastFailure:
    """Why a pod failed: the first that has an answer, of what is surest to what is a guess."""
    ended = [one for one in containers(pod) if one.terminated]
    sources: tuple[Callable[[], LastFailure | None], ...] = (
        lambda: _out_of_memory(pod, ended),
        lambda: _reported(pod, ended),
        lambda: _disrupted(pod),
        lambda: _exited(pod, ended),
    )
    answers = (source() for source in sources)
    return next((answer for answer in answers if answer), _unknown(pod))


def why_pending(pod: Raw, events: Sequence[Raw]) -> LastFailure | None:
    """What keeps a pod from starting; None where nothing is known to."""
    return _unschedulable(pod) or _waiting(pod) or _from_events(pod, events)


def what_delays(pod: Raw, events: Sequence[Raw]) -> str | None:
    """What a pod on a node does for longer than is usual before its first container runs, by the kubelet's latest Event;
    None if there is no such Event, as for a pod that starts in time."""
    latest = _latest(pod, events, set(STEPS))
    if not latest or slow_from(pod) is None:
        return None
    found = IMAGE.search(str(latest.get("message") or ""))
    image = f" {found[1]}" if found else ""
    where = f"pod {name_of(pod)} on node {(pod.get('spec') or {}).get('nodeName') or 'unknown'}"
    return f"{where} {STEPS[latest['reason']].format(image=image)}, since {_moment(latest)}"


def why_crashing(pod: Raw) -> LastFailure | None:
    """Why a container that is started again and again does not come up; None where none is."""
    for one in containers(pod):
        if one.exit_code not in (None, 0) and (one.waiting.get("reason") == "CrashLoopBackOff" or one.restarts):
            return _out_of_memory(pod, [one]) or _reported(pod, [one]) or _not_ready_in_time(pod, one)
    return None


def why_doomed(pod: Raw) -> LastFailure | None:
    """Why a running pod will never finish: its sidecar keeps ending, or its report names a permanent failure."""
    looping = any(
        one.sidecar and not one.running and (one.restarts >= CRASH_LOOP_RESTARTS or _is_permanent(one))
        for one in containers(pod)
    )
    return why_crashing(pod) if looping and not is_true(pod, "Initialized") else None


def _is_permanent(one: Container) -> bool:
    """Whether a container has ended and reported a failure that trying again does not mend."""
    reported = one.report.failure if one.report else None
    return reported is not None and FAILURES[reported.class_].retry is Retry.NEVER


def why_no_pod(job: Raw, events: Sequence[Raw]) -> LastFailure | None:
    """Why a Job has no pod: the Job controller tells it by Events only."""
    latest = _latest(job, events, {"FailedCreate"})
    return why_refused(str(latest.get("message") or ""), _namespace(job), kind_of(job)) if latest else None


def is_short_of_pods(job: Raw) -> bool:
    """Whether the Job controller has tried to make the pods of a Job and fewer are there, or were: it notes its first try
    (startTime) in the same write as the pods that came of it."""
    status = job.get("status") or {}
    counted = sum(int(status.get(name) or 0) for name in ("active", "terminating", "succeeded", "failed"))
    return bool(status.get("startTime")) and not status.get("uncountedTerminatedPods") and counted < pod_count(job)


def why_refused(message: str, namespace: str, kind: str) -> LastFailure:
    """Why the API server refused a child of a resource of `kind`."""
    in_words = words.meaning(words.ADMISSION, message, {"namespace": namespace})
    known = bounds.meaning(message, namespace, kind) or in_words
    class_ = known.class_ if known else None
    return failure(class_ or FailureClass.POD_REFUSED, message, known.hint if known else None, kind)


def is_slow_to_start(pod: Raw, now: datetime) -> bool:
    """Whether a pod has a node, and no container has run, for longer than is usual."""
    slow = slow_from(pod)
    return slow is not None and now > slow


def slow_from(pod: Raw) -> datetime | None:
    """When a pod that has a node, and of which no container has run, will be slow; None where it is not such a one, or
    says itself what it lacks."""
    started = parse_time((pod.get("status") or {}).get("startTime"))
    quiet = all(one.waiting and not one.terminated for one in containers(pod))
    return started + SLOW_START if started is not None and quiet and not _waiting(pod) else None


def _out_of_memory(pod: Raw, ended: Iterable[Container]) -> LastFailure | None:
    for one in ended:
        if one.terminated.get("reason") == "OOMKilled":
            limit = ((one.spec.get("resources") or {}).get("limits") or {}).get("memory")
            bar = f"its memory limit of {limit}" if limit else "the memory of its node"
            told = one.report.failure if one.report else None
            tail = told.log_tail if told else one.log_tail
            return _of(pod, one, FailureClass.OOM_KILLED, f"{describe(pod, one)} used more than {bar}", log_tail=tail)
    return None


def _reported(pod: Raw, ended: Sequence[Container]) -> LastFailure | None:
    """What a container said of itself: the engine's word first, as the evaluator only sees that it went silent."""
    for one in sorted(ended, key=lambda one: not one.sidecar):
        report = one.report
        told = report.failure if report else None
        if told and told.class_ is not FailureClass.PREEMPTED:
            return _sharpened(_of(pod, one, told.class_, told.message, told.hint, told.log_tail), pod, one)
    return None


def _sharpened(found: LastFailure, pod: Raw, one: Container) -> LastFailure:
    """The same, of the class that its message or the end of its log gives away, where its own says nothing of the cause."""
    if found.class_ not in VAGUE:
        return found
    known = recognise(found.message) or recognise(found.log_tail or "")
    if known is None:
        return found
    message = found.message if known.line in found.message else f"{found.message}: {known.line}"
    better = _of(pod, one, known.class_, message)
    return found.model_copy(update={"class_": better.class_, "message": better.message, "hint": better.hint})


def _disrupted(pod: Raw) -> LastFailure | None:
    target, status = condition(pod, "DisruptionTarget"), pod.get("status") or {}
    reason, said = str(status.get("reason") or ""), str(status.get("message") or "")
    class_ = POD_REASONS.get(reason) or (FailureClass.NODE_REFUSED if _is_rejected(reason, said) else None)
    if class_ is None and target.get("status") == "True":
        class_ = DISRUPTIONS.get(str(target.get("reason")))
    if class_ is None:
        return None
    text = said or str(target.get("message") or reason)
    rows = {FailureClass.EVICTED: words.EVICTION, FailureClass.NODE_REFUSED: words.REJECTION}.get(class_, ())
    known = words.meaning(rows, text, _facts(pod))
    return _of_pod(
        pod,
        (known.class_ if known else None) or class_,
        f"pod {name_of(pod)}: {text.strip()}",
        known.hint if known else None,
        time=target.get("lastTransitionTime"),
    )


def _is_rejected(reason: str, said: str) -> bool:
    return said.startswith(REJECTED) or reason.startswith("OutOf")


def _exited(pod: Raw, ended: Sequence[Container]) -> LastFailure | None:
    """The first container that ended badly. A sidecar is always stopped by a signal: that says nothing."""
    bad = [one for one in ended if one.exit_code and not (one.sidecar and one.exit_code in (SIGTERM, SIGKILL))]
    bad.sort(key=lambda one: one.sidecar)
    return _by_exit_code(pod, bad[0]) if bad else None


def _by_exit_code(pod: Raw, one: Container) -> LastFailure:
    code, reason = one.exit_code or 0, str(one.terminated.get("reason") or "Error")
    where, tail = describe(pod, one), one.log_tail
    if reason in START_ERRORS:
        return _not_started(pod, one, f"{where} cannot start: {tail or reason}", tail or reason)
    if reason == "ContainerStatusUnknown":
        return _of(pod, one, FailureClass.NODE_LOST, f"{where}: its node does not know what became of it")
    if code == SIGTERM or (code == SIGKILL and is_deleting(pod)):
        return _of(
            pod, one, FailureClass.PREEMPTED, f"{where} was stopped by a signal (exit code {code})", log_tail=tail
        )
    if code == SIGKILL:
        text = f"{where} was killed (exit code {code}) and the kubelet does not say why; it may be that memory ran out"
        return _sharpened(_of(pod, one, FailureClass.PROCESS_ERROR, text, KILLED_HINT, tail), pod, one)
    class_ = BY_EXIT_CODE.get(code, FailureClass.PROCESS_ERROR)
    signal, hint = SIGNALS.get(code, (None, None))
    how = f"exited with code {code}" + (f", which is {signal}" if signal else "")
    said = f": {tail.splitlines()[-1]}" if tail else ""
    return _sharpened(_of(pod, one, class_, f"{where} {how}{said}", hint, tail), pod, one)


def _not_ready_in_time(pod: Raw, one: Container) -> LastFailure:
    """By exit code; but who stops a container of a living pod is the kubelet, when its probes fail."""
    found = _by_exit_code(pod, one)
    if found.class_ is not FailureClass.PREEMPTED:
        return found
    text = f"{describe(pod, one)} was stopped (exit code {one.exit_code}), as its probes failed"
    return _of(pod, one, FailureClass.ENGINE_FAILED, text, PROBE_HINTS.get(kind_of(pod)), one.log_tail)


def _unknown(pod: Raw) -> LastFailure:
    text = (pod.get("status") or {}).get("message") or "nothing is known of how it ended"
    class_ = FailureClass.PREEMPTED if is_deleting(pod) else FailureClass.PROCESS_ERROR
    return _of_pod(pod, class_, f"pod {name_of(pod)} failed: {text}")


FULL = frozenset({FailureClass.OOM_KILLED, FailureClass.DEVICE_OUT_OF_MEMORY})
HINTS: dict[str, str] = {
    "prepare": "raise spec.resources.memory, or set it",
    "fetch": "raise spec.resources.memory, or set it",
    "export": "raise spec.resources.memory, or set it: a merge takes the model once more",
    "evaluate": "have the LimitRange's default limit of memory raised: the container has no limit of its own; or lower "
    "spec.benchmarks[].limit",
}
"""By container: hints for want of memory where that of the class, which knows what computes, does not fit."""
WORDY = VAGUE | {FailureClass.EVALUATION_FAILED}
"""Classes whose cause only the log knows."""


def _hint(pod: Raw, one: Container, class_: FailureClass) -> str:
    if class_ is FailureClass.DEVICE_OUT_OF_MEMORY and not _has_devices(one):
        class_ = FailureClass.OOM_KILLED  # it computes on the CPU, in the memory of the pod
    hint = FAILURES[class_].hint_for(kind_of(pod))
    if class_ in FULL:
        return HINTS.get(one.name, hint)
    if class_ not in WORDY:
        return hint
    before = " --previous" if one.running or one.waiting else ""
    command = f"kubectl --namespace {_namespace(pod)} logs {name_of(pod)} --container {one.name}{before}"
    return f"{hint}; the whole log: {command}"


def _has_devices(one: Container) -> bool:
    limits = (one.spec.get("resources") or {}).get("limits") or {}
    return bounds.devices(limits) > 0


def _of(
    pod: Raw, one: Container, class_: FailureClass, message: str, hint: str | None = None, log_tail: str | None = None
) -> LastFailure:
    return _of_pod(
        pod,
        class_,
        message,
        hint or _hint(pod, one, class_),
        container=one.name,
        exit_code=one.exit_code,
        log_tail=(log_tail or "")[-MESSAGE_LIMIT:] or None,
        time=one.terminated.get("finishedAt"),
    )


def _of_pod(pod: Raw, class_: FailureClass, message: str, hint: str | None = None, **more: Any) -> LastFailure:
    return failure(class_, message, hint, kind_of(pod), pod=name_of(pod), **more)


def _unschedulable(pod: Raw) -> LastFailure | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    if scheduled.get("reason") == "SchedulingGated":
        return _gated(pod, scheduled)
    if scheduled.get("reason") != "Unschedulable":
        return None
    text = PREEMPTION.split(str(scheduled.get("message") or "no node fits"))[0].strip(" .,")
    lacking = sorted(set(re.findall(r"Insufficient ([\w./-]+[\w])", text)))
    asked = "; ".join(f"no node has enough {name} (the pod asks for {_asked(pod, name)})" for name in lacking)
    message = f"{asked}: {text}" if asked else text
    known = words.meanings(words.SCHEDULING, text, _facts(pod))
    class_ = (known.class_ if known else None) or FailureClass.UNSCHEDULABLE
    hint = known.hint if known else None
    return _of_pod(pod, class_, message, hint, time=scheduled.get("lastTransitionTime"))


def _gated(pod: Raw, scheduled: Raw) -> LastFailure:
    gates = ", ".join(str(gate.get("name")) for gate in (pod.get("spec") or {}).get("schedulingGates") or [])
    return _of_pod(
        pod,
        FailureClass.UNSCHEDULABLE,
        f"pod {name_of(pod)} is held by scheduling gates: {gates or 'unnamed'}",
        "what has set the gates removes them: a queue, or a webhook that changes pods",
        time=scheduled.get("lastTransitionTime"),
    )


def _asked(pod: Raw, resource: str) -> str:
    requests = ((one.spec.get("resources") or {}).get("requests") or {} for one in containers(pod))
    return next((str(some[resource]) for some in requests if resource in some), "some")


def _waiting(pod: Raw) -> LastFailure | None:
    for one in containers(pod):
        class_ = WAITING_REASONS.get(str(one.waiting.get("reason")))
        if class_:
            said = str(one.waiting.get("message") or one.waiting.get("reason"))
            if class_ is FailureClass.IMAGE_PULL:
                return _not_pulled(pod, one, said)
            return _not_started(pod, one, f"{describe(pod, one)}: cannot start: {said}", said)
    return None


def _not_pulled(pod: Raw, one: Container, said: str) -> LastFailure:
    """The kubelet says the same in two forms by turns, while it pulls and while it waits: one of them is enough."""
    cause = WRAPPED_PULL.sub("", said)
    known = words.meaning(words.PULLING, cause, _facts(pod))
    message = f"{describe(pod, one)}: image {one.spec.get('image')}: {cause}"
    hint = known.hint if known else None
    return _of_pod(pod, FailureClass.IMAGE_PULL, message, hint, container=one.name)


def _not_started(pod: Raw, one: Container, message: str, said: str) -> LastFailure:
    """A container that the node cannot start: for want of something, or as its device or driver fails."""
    known, device = words.meaning(words.STARTING, said, _facts(pod)), recognise(said)
    if device and device.class_ is FailureClass.DEVICE_FAILED:
        return _of(pod, one, FailureClass.DEVICE_FAILED, message)
    class_ = (known.class_ if known else None) or FailureClass.POD_START
    return _of(pod, one, class_, message, known.hint if known else None)


def _from_events(pod: Raw, events: Sequence[Raw]) -> LastFailure | None:
    latest = _latest(pod, events, set(EVENT_REASONS))
    if not latest:
        return None
    said = str(latest.get("message") or latest["reason"])
    known = words.meaning(words.STARTING, said, _facts(pod))
    class_ = (known.class_ if known else None) or EVENT_REASONS[latest["reason"]]
    return _of_pod(pod, class_, f"pod {name_of(pod)}: {said}", known.hint if known else None)


def _facts(pod: Raw) -> dict[str, str]:
    """What hints name beside the cluster's words."""
    spec = pod.get("spec") or {}
    secrets = ", ".join(str(secret.get("name")) for secret in spec.get("imagePullSecrets") or [])
    return {
        "namespace": _namespace(pod),
        "node": str(spec.get("nodeName") or "of the pod"),
        "pull_secrets": secrets or "none now",
        "fewer_devices": _fewer_devices(pod),
    }


def _fewer_devices(pod: Raw) -> str:
    """How the pod asks for fewer devices; nothing where it has one."""
    counts = (bounds.devices((one.spec.get("resources") or {}).get("limits") or {}) for one in containers(pod))
    fewer = bounds.divisor(max(counts, default=0))
    return f", or lower {bounds.COUNT} to {fewer}" if fewer else ""


def _namespace(thing: Raw) -> str:
    return str(metadata(thing).get("namespace") or "default")


def _latest(about: Raw, events: Sequence[Raw], reasons: set[str]) -> Raw | None:
    def concerns(event: Raw) -> bool:
        involved = event.get("involvedObject") or {}
        return (
            event.get("reason") in reasons
            and uid_of(about) == involved.get("uid", uid_of(about))
            and involved.get("name") == name_of(about)
        )

    return max((event for event in events if concerns(event)), key=_moment, default=None)


def _moment(event: Raw) -> str:
    times: Iterator[Any] = (event.get(name) for name in ("lastTimestamp", "eventTime", "firstTimestamp"))
    return str(next((time for time in times if time), "") or metadata(event).get("creationTimestamp") or "")
