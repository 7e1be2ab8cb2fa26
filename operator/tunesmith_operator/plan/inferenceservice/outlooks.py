"""The outlook of each state of an InferenceService: phase, reason and message."""

from __future__ import annotations

from dataclasses import replace

from tunesmith_api.failures import FailureClass
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.failures.hints import with_hint
from tunesmith_operator.plan.failures.last_failure import failure
from tunesmith_operator.plan.failures.pod_start import start_progress
from tunesmith_operator.plan.inferenceservice.context import KIND, ServiceContext
from tunesmith_operator.plan.inferenceservice.promotion import Blocked
from tunesmith_operator.plan.inferenceservice.rollout import Rollout, is_permanent, why_late
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.spec.references import Refused, Waiting
from tunesmith_operator.plan.status.outlook import Outlook
from tunesmith_operator.plan.types import Raw


def outlook_of(context: ServiceContext) -> Outlook:
    """The outlook of the first state that applies."""
    rollout, target = context.rollout, context.target
    if context.spec.suspend:
        return _suspended(rollout)
    if context.giving_up or (target.given_up and not target.obstacle):
        return _rolled_back(context)
    if target.obstacle:
        return _held_up(context, target.obstacle)
    if rollout.is_done:
        return _done(rollout)
    if is_permanent(context.trouble) and context.versions.served != rollout.version:
        return _can_not_start(context)
    if rollout.timed_out:
        return _late(context)
    return _rolling_out(context)


def failed(class_: FailureClass, message: str, hint: str = "") -> Outlook:
    """The service does not come up unless something is changed."""
    trouble = failure(class_, message, hint or None, KIND)
    return Outlook(Phase.FAILED, str(class_), with_hint(message, hint), stalled=True, trouble=trouble)


def _suspended(rollout: Rollout) -> Outlook:
    left = rollout.total + rollout.stopping
    pods = f"pods that still finish their requests: {left}" if left else "no pods"
    text = f"spec.suspend is true: {pods}; set it to false to serve again"
    return Outlook(Phase.SUSPENDED, Reason.SUSPENDED, text, reconciling=not rollout.is_done)


def _rolled_back(context: ServiceContext) -> Outlook:
    """The spec's version was given up; the version before it is rolled out again."""
    record = context.given_up
    assert record is not None
    done = context.rollout.is_done and not context.giving_up
    text = (
        f"version {record.version} was given up: {record.message}. "
        f"{'Rolled' if done else 'Rolling'} back to version {context.versions.served}: {_ready(context.rollout)}. "
        "It is not retried: change the spec or the model, or set spec.restart to another text"
    )
    kept = None if context.trouble else _last_failure(context.status)
    return Outlook(Phase.ROLLED_BACK, Reason.ROLLED_BACK, text, ready=context.is_answering, stalled=True, trouble=kept)


def _last_failure(status: Raw) -> LastFailure | None:
    """The failure in status, which stays there after its pod is gone."""
    try:
        return LastFailure.model_validate(status["lastFailure"])
    except (KeyError, ValueError):
        return None


def _held_up(context: ServiceContext, obstacle: Waiting | Blocked | Refused) -> Outlook:
    """The spec's version is not rolled out. The deployed version continues to answer, even if its model failed."""
    answers, is_deployed = context.is_answering, context.target.candidate_is_deployed
    which = "it is deployed already and" if is_deployed else "the previous version"
    text = f"{obstacle.text}; {which} continues to answer" if answers else obstacle.text
    if isinstance(obstacle, Waiting):
        return Outlook(
            Phase.ROLLING_OUT if answers and not is_deployed else Phase.WAITING,
            obstacle.reason,
            f"waiting for {text}",
            ready=answers,
            reconciling=not obstacle.is_stalled,
            stalled=obstacle.is_stalled,
            waiting_for=obstacle.text,
        )
    if isinstance(obstacle, Blocked):
        return Outlook(Phase.BLOCKED, Reason.PROMOTION_BLOCKED, text, ready=answers, stalled=True)
    return replace(failed(FailureClass.BAD_SPEC, text, obstacle.hint), ready=answers)


def _done(rollout: Rollout) -> Outlook:
    if rollout.desired == 0:
        return Outlook(Phase.READY, Reason.SCALED_TO_ZERO, "spec.replicas is 0: no pods")
    return Outlook(Phase.READY, Reason.SERVING, _ready(rollout), ready=True)


def _can_not_start(context: ServiceContext) -> Outlook:
    """The version can't become ready, and there is none to roll back to."""
    trouble = context.trouble
    assert trouble is not None
    text = why_late(context.spec, trouble)
    return Outlook(Phase.FAILED, str(trouble.class_), text, ready=context.is_answering, stalled=True, trouble=trouble)


def _late(context: ServiceContext) -> Outlook:
    """The version is not ready in time, and there is none to roll back to."""
    was_ready = context.versions.served == context.rollout.version
    before = "It was ready before" if was_ready else "No other version was ready before"
    text = f"{before}, so it is not given up: {why_late(context.spec, context.trouble)}"
    return Outlook(Phase.ROLLING_OUT, Reason.ROLLOUT_TIMEOUT, text, ready=context.is_answering, stalled=True)


def _rolling_out(context: ServiceContext) -> Outlook:
    rollout, trouble, served = context.rollout, context.trouble, context.versions.served
    reason, text = (str(trouble.class_) if trouble else None), _progress(context)
    if served is not None and served != rollout.version:
        text = f"version {rollout.version} replaces {served}: {text}"
        return Outlook(
            Phase.ROLLING_OUT, reason or Reason.ROLLING_OUT, text, ready=context.is_answering, reconciling=True
        )
    phase = Phase.READY if context.is_answering else Phase.PENDING
    return Outlook(phase, reason or Reason.STARTING, text, ready=context.is_answering, reconciling=True)


def _progress(context: ServiceContext) -> str:
    """How many pods are ready, and what keeps or delays the others."""
    pods, trouble, observed = _ready(context.rollout), context.trouble, context.observed
    if trouble:
        return with_hint(f"{pods}; {trouble.message}", trouble.hint)
    delays = (start_progress(pod, observed.events) for pod in sorted(observed.pods, key=name_of))
    delay = next((text for text in delays if text), None)
    return f"{pods}: {delay}" if delay else pods


def _ready(rollout: Rollout) -> str:
    return f"{rollout.ready} of {rollout.desired} pods are ready"
