"""What needs no device is done before one is asked for, by a small pod: is the work finished already, is all there that it
reads, is the hub's model in the store? Finished work is adopted on a cluster without a single free device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tunesmith_api.common import Resources
from tunesmith_api.run import Outcome, Verb
from tunesmith_operator.plan.attempts import Course, State
from tunesmith_operator.plan.pods import PodPlan, Stage


def is_wanted(resources: Resources) -> bool:
    """Whether work is worth preparing: without devices its own pod costs no more."""
    return resources.devices > 0


def pod(work: PodPlan, labels: Mapping[str, str]) -> PodPlan:
    """The pod that prepares what the pod `work` is to do: as that one, but small, without devices and what goes with them:
    a runtime class such as `nvidia` is on their nodes only."""
    return replace(
        work,
        init=(),
        main=Stage(Verb.PREPARE, work.init[0].image, light=True),
        run=work.run.model_copy(update={"world": None}),
        resources=work.resources.model_copy(update={"shared_memory": None}),
        settings=work.settings.model_copy(update={"runtime_class_name": None}),
        labels=labels,
        subdomain=None,
        affinity=None,
        shared_memory=None,
    )


def in_charge(work: Course, preparation: Course) -> Course:
    """Which of the two says how things stand. Work that has begun is never prepared again.

    A preparation that somebody holds back is passed over: a queue that takes what nobody has given it, say.
    """
    if work.number > 0 or preparation.state is State.QUEUED:
        return work
    if preparation.state is not State.SUCCEEDED:
        return preparation
    return preparation if preparation.result.outcome is Outcome.ADOPTED else work
