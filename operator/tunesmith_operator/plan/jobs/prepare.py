"""What needs no device is done before one is asked for, by a small pod: is the work finished already, is all there that it
reads, is the hub's model in the store? Finished work is adopted on a cluster without a single free device.

Preparing only saves time and devices: where its Job or pod is not let in, the work waits for its devices beside it, and is
adopted all the same if it turns out to be finished before it has begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tunesmith_api.common import Resources
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome, ResolvedModel, Verb
from tunesmith_operator.plan.jobs.attempts import Course, State
from tunesmith_operator.plan.pods.template import LIGHT_REQUESTS, PodPlan, Stage
from tunesmith_operator.plan.types import Key

NOT_LET_IN = frozenset({FailureClass.UNSCHEDULABLE, FailureClass.QUOTA_EXCEEDED, FailureClass.POD_REFUSED})
"""Why a small pod may wait where that of the work, with its device, its limits or its runtime class, would not."""


def is_wanted(resources: Resources) -> bool:
    """Whether work is worth preparing: without devices its own pod costs no more."""
    return resources.devices > 0


def pod(work: PodPlan, labels: Mapping[str, str]) -> PodPlan:
    """The pod that prepares what the pod `work` is to do: as that one, but without devices and a runtime class, which may be
    on their nodes only; and small, but where it imports a model."""
    return replace(
        work,
        init=(),
        main=Stage(Verb.PREPARE, work.init[0].image, light=not _is_import(work.run.subject)),
        run=work.run.model_copy(update={"world": None}),
        resources=work.resources.model_copy(update={"shared_memory": None, "cpu": LIGHT_REQUESTS["cpu"]}),
        settings=work.settings.model_copy(update={"runtime_class_name": None}),
        labels=labels,
        subdomain=None,
        affinity=None,
        shared_memory=None,
    )


def in_charge(work: Course, preparation: Course, refused: bool) -> Course:
    """Which of the two says how things stand; `refused`: the API server has just refused the Job that would prepare.

    Work that was ever attempted is never prepared again; but until a container of it has run it can still be adopted.
    """
    if _has_adopted(preparation) and not work.has_begun:
        return preparation
    if work.number > 0 or preparation.state is State.SUCCEEDED or refused or _is_held_up(preparation):
        return work
    return preparation


def useless(courses: tuple[Course, ...], aside: tuple[Course, ...]) -> tuple[Key, ...]:
    """Jobs beside those in charge that nobody waits for: a preparation of what has begun, and work that was adopted."""
    begun = {course.role for course in courses if course.has_begun}
    return tuple(key for one in aside if not one.prepares or one.role in begun for key in one.unfinished)


def _has_adopted(preparation: Course) -> bool:
    return preparation.state is State.SUCCEEDED and preparation.result.outcome is Outcome.ADOPTED


def _is_held_up(preparation: Course) -> bool:
    """Whether its pod is not let in, for as long as nobody knows: by a queue that takes what was not given to it, say."""
    troubled = preparation.trouble is not None and preparation.trouble.class_ in NOT_LET_IN
    return preparation.state is State.QUEUED or (preparation.state is State.STARTING and troubled)


def _is_import(model: ResolvedModel) -> bool:
    return model.is_on_hub or (model.base is not None and _is_import(model.base))
