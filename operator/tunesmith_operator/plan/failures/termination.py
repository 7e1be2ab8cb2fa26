"""Why a pod or a container failed: memory, its own report, a disruption, its exit code, in this order of certainty.

Sources: reasons and exit codes of terminated containers (Pod v1), the runtime's reports, and the last lines of logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tunesmith_api.failures import BY_EXIT_CODE, EVAL, FAILURES, SERVE, FailureClass, Retry
from tunesmith_api.status import LastFailure
from tunesmith_api.symptoms import SIGNALS, find_symptom
from tunesmith_operator.plan.failures.hints import VAGUE, kind_of
from tunesmith_operator.plan.failures.last_failure import container_failure, pod_failure
from tunesmith_operator.plan.failures.pod_disruption import disruption_failure
from tunesmith_operator.plan.failures.pod_start import start_failure
from tunesmith_operator.plan.names import is_deleting, name_of
from tunesmith_operator.plan.pods.read import Container, containers, describe, is_true
from tunesmith_operator.plan.pods.reward_code import REWARD_CODE
from tunesmith_operator.plan.types import Raw

CRASH_LOOP_RESTARTS = 3
"""A sidecar that has ended this often will not come up."""
START_ERRORS = frozenset({"StartError", "ContainerCannotRun"})
SIGTERM, SIGKILL = 143, 137
PROBE_HINTS: dict[str, str] = {
    EVAL: "read the log tail to see how far the engine came; if the model loads slowly, raise spec.resources.cpu",
    SERVE: "read the log tail to see how far the engine came; if the model loads slowly, raise spec.rollout.readyTimeout or "
    "spec.resources.cpu",
}
MEMORY_HINTS: dict[str, str] = {REWARD_CODE: "raise code.memory in spec.rewards, or let the code take less memory"}
KILLED_HINT = (
    "read the log tail, and check the node's kernel log for out-of-memory kills: if there is one, set spec.resources.memory to "
    "what the pod needs"
)


def termination_failure(pod: Raw) -> LastFailure:
    """Return why a pod failed, from the most certain source that has an answer."""
    ended = [container for container in containers(pod) if container.terminated]
    sources: tuple[Callable[[], LastFailure | None], ...] = (
        lambda: _out_of_memory(pod, ended),
        lambda: _reported(pod, ended),
        lambda: disruption_failure(pod),
        lambda: _exited(pod, ended),
    )
    answers = (source() for source in sources)
    return next((answer for answer in answers if answer), _unknown(pod))


def crash_failure(pod: Raw) -> LastFailure | None:
    """Return why a container that keeps restarting does not come up; None if none does."""
    for container in containers(pod):
        restarts = container.waiting.get("reason") == "CrashLoopBackOff" or container.restarts
        if container.exit_code not in (None, 0) and restarts:
            return _out_of_memory(pod, [container]) or _reported(pod, [container]) or _not_ready_in_time(pod, container)
    return None


def permanent_failure(pod: Raw) -> LastFailure | None:
    """Return why a running pod will never finish: its sidecar keeps ending, or reports a failure that retries do not fix."""
    looping = any(
        container.sidecar
        and not container.running
        and (container.restarts >= CRASH_LOOP_RESTARTS or _reports_permanent_failure(container))
        for container in containers(pod)
    )
    return crash_failure(pod) if looping and not is_true(pod, "Initialized") else None


def _reports_permanent_failure(container: Container) -> bool:
    failure = container.report.failure if container.report else None
    return failure is not None and FAILURES[failure.class_].retry is Retry.NEVER


def _out_of_memory(pod: Raw, ended: Iterable[Container]) -> LastFailure | None:
    for container in ended:
        if container.terminated.get("reason") == "OOMKilled":
            limit = ((container.spec.get("resources") or {}).get("limits") or {}).get("memory")
            bound = f"its memory limit of {limit}" if limit else "the memory of its node"
            report = container.report.failure if container.report else None
            tail = report.log_tail if report else container.log_tail
            message = f"{describe(pod, container)} used more than {bound}"
            hint = MEMORY_HINTS.get(container.name)
            return container_failure(pod, container, FailureClass.OOM_KILLED, message, hint, tail)
    return None


def _reported(pod: Raw, ended: Sequence[Container]) -> LastFailure | None:
    """Return the failure that a container reported. An engine's comes first: the evaluator sees only a lost connection."""
    for container in sorted(ended, key=lambda container: not container.sidecar):
        report = container.report.failure if container.report else None
        if report and report.class_ is not FailureClass.PREEMPTED:
            found = container_failure(pod, container, report.class_, report.message, report.hint, report.log_tail)
            return _refined(found, pod, container)
    return None


def _refined(found: LastFailure, pod: Raw, container: Container) -> LastFailure:
    """Return `found`, if its class is vague with the class of a known symptom in its message or log."""
    if found.class_ not in VAGUE:
        return found
    symptom = find_symptom(found.message) or find_symptom(found.log_tail or "")
    if symptom is None:
        return found
    message = found.message if symptom.line in found.message else f"{found.message}: {symptom.line}"
    better = container_failure(pod, container, symptom.class_, message)
    return found.model_copy(update={"class_": better.class_, "message": better.message, "hint": better.hint})


def _exited(pod: Raw, ended: Sequence[Container]) -> LastFailure | None:
    """Return the failure of the first container with a bad exit code. A signal is how every sidecar is stopped: ignore it."""
    bad = [
        container
        for container in ended
        if container.exit_code and not (container.sidecar and container.exit_code in (SIGTERM, SIGKILL))
    ]
    bad.sort(key=lambda container: container.sidecar)
    return _by_exit_code(pod, bad[0]) if bad else None


def _by_exit_code(pod: Raw, container: Container) -> LastFailure:
    code, reason = container.exit_code or 0, str(container.terminated.get("reason") or "Error")
    where, tail = describe(pod, container), container.log_tail
    if reason in START_ERRORS:
        return start_failure(pod, container, f"{where} cannot start: {tail or reason}", tail or reason)
    if reason == "ContainerStatusUnknown":
        return container_failure(pod, container, FailureClass.NODE_LOST, f"{where}: its node lost track of it")
    if code == SIGTERM or (code == SIGKILL and is_deleting(pod)):
        text = f"{where} was stopped by a signal (exit code {code})"
        return container_failure(pod, container, FailureClass.PREEMPTED, text, log_tail=tail)
    if code == SIGKILL:
        text = f"{where} was killed (exit code {code}) and the kubelet reports no reason; the node may have run out of memory"
        return _refined(
            container_failure(pod, container, FailureClass.PROCESS_ERROR, text, KILLED_HINT, tail), pod, container
        )
    class_ = BY_EXIT_CODE.get(code, FailureClass.PROCESS_ERROR)
    signal, hint = SIGNALS.get(code, (None, None))
    exit_ = f"exited with code {code}" + (f", which is {signal}" if signal else "")
    last_line = f": {tail.splitlines()[-1]}" if tail else ""
    return _refined(
        container_failure(pod, container, class_, f"{where} {exit_}{last_line}", hint, tail), pod, container
    )


def _not_ready_in_time(pod: Raw, container: Container) -> LastFailure:
    """Return the failure by exit code. If it is a stop: in a pod that lives on, the kubelet stops a container for its probes."""
    found = _by_exit_code(pod, container)
    if found.class_ is not FailureClass.PREEMPTED:
        return found
    text = f"{describe(pod, container)} was stopped (exit code {container.exit_code}) because its probes failed"
    hint = PROBE_HINTS.get(kind_of(pod))
    return container_failure(pod, container, FailureClass.ENGINE_FAILED, text, hint, container.log_tail)


def _unknown(pod: Raw) -> LastFailure:
    text = (pod.get("status") or {}).get("message") or "the cause is unknown"
    class_ = FailureClass.PREEMPTED if is_deleting(pod) else FailureClass.PROCESS_ERROR
    return pod_failure(pod, class_, f"pod {name_of(pod)} failed: {text}")
