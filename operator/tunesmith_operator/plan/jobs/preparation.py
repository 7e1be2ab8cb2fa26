"""Work that needs no device runs before devices are requested, in a small pod: adopt finished work, check that the inputs
exist, import the hub's model. Finished work is adopted on a cluster without a free device.

Preparation only saves time and devices. If its Job or pod can't start, the work is created beside it, and is still adopted if
it turns out to be finished before a container of the work has run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Resources
from tunesmith_api.run import Outcome, ResolvedModel, RunSpec, Verb
from tunesmith_operator.plan.jobs.attempts import Attempts, Role
from tunesmith_operator.plan.jobs.state import State
from tunesmith_operator.plan.pods.template import LIGHT_REQUESTS, PodPlan, Stage
from tunesmith_operator.plan.types import Key

BLOCKING = frozenset({FailureClass.UNSCHEDULABLE, FailureClass.QUOTA_EXCEEDED, FailureClass.POD_REFUSED})
"""Why a small pod may wait although the pod of the work, with its device, limits or runtime class, might start."""


def needs_preparation(role: Role, resources: Resources) -> bool:
    """Whether preparing the work pays: without devices, the pod of the work costs no more."""
    return role.holds_devices and resources.devices > 0


def preparation_pod(work: PodPlan, labels: Mapping[str, str]) -> PodPlan:
    """The pod that prepares the work of the pod `work`.

    It has neither devices nor a runtime class, which only their nodes may have, and is small unless it imports a model, or may find one
    whose weights are quantized.
    """
    models = work.run.models.values()
    return replace(
        work,
        init=(),
        main=Stage(
            Verb.PREPARE,
            work.plain_image,
            light=not any(map(_needs_import, models)),
            restores=_may_restore(work.run),
        ),
        run=work.run.model_copy(update={"world": None, "cache": None}),
        resources=work.resources.model_copy(update={"shared_memory": None, "cpu": LIGHT_REQUESTS["cpu"]}),
        settings=work.settings.model_copy(update={"runtime_class_name": None}),
        labels=labels,
        subdomain=None,
        affinity=None,
        shared_memory=None,
        cache_volume=None,
    )


def choose(work: Attempts, preparation: Attempts, is_refused: bool) -> Attempts:
    """Which of the two determines the outlook. `is_refused`: the API server has rejected the preparation's next Job.

    Work that was attempted is never prepared again, but can be adopted until one of its containers has run.
    """
    if _has_adopted(preparation) and not work.has_started:
        return preparation
    if work.number > 0 or preparation.state is State.SUCCEEDED or is_refused or _is_blocked(preparation):
        return work
    return preparation


def unneeded(current: tuple[Attempts, ...], others: tuple[Attempts, ...]) -> tuple[Key, ...]:
    """Jobs without a purpose: the preparation of work that has started, and work whose result was adopted."""
    started = {attempts.role for attempts in current if attempts.has_started}
    return tuple(
        key
        for attempts in others
        if not attempts.is_preparation or attempts.role in started
        for key in attempts.unfinished
    )


def _has_adopted(preparation: Attempts) -> bool:
    return preparation.state is State.SUCCEEDED and preparation.result.outcome is Outcome.ADOPTED


def _is_blocked(preparation: Attempts) -> bool:
    """Whether the preparation pod may be blocked indefinitely, for example by a queue that adopts unlabelled Jobs."""
    has_trouble = preparation.trouble is not None and preparation.trouble.class_ in BLOCKING
    return preparation.state is State.QUEUED or (preparation.state is State.STARTING and has_trouble)


def _may_restore(run: RunSpec) -> bool:
    """Whether a model of a run may turn out to be quantized, for a tuning or the engine transformers: those that a run has published are
    not."""
    restores = run.kind == "FineTuneJob" or run.spec.get("engine") == Engine.TRANSFORMERS
    return restores and any((model.base or model).digest is None for model in run.models.values())


def _needs_import(model: ResolvedModel) -> bool:
    """Whether the model may have to be imported: a name of the catalogue usually stands for a model of a hub."""
    return any(each.is_on_hub or each.is_on_web or each.is_named for each in model.with_bases())
