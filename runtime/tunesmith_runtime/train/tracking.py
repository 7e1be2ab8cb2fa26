"""Reports a training to the tracker of spec.tracking."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_api.hashing import decisive
from tunesmith_api.run import Outcome, RunSpec
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train.reporting import tag
from tunesmith_runtime.train.trackers import TRACKERS
from tunesmith_runtime.train.trackers.base import Point, RunState, TrackedRun
from tunesmith_runtime.train.trackers.feed import Feed

STATES: Mapping[Outcome | None, RunState] = {
    Outcome.SUCCEEDED: RunState.FINISHED,
    Outcome.PREEMPTED: RunState.INTERRUPTED,
}


class Track(TrainerCallback):  # type: ignore[misc]
    """Queues each logged metric for the tracker, under its name in TensorBoard."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.outcome: Outcome | None = None
        """How the training ended; None: it failed."""

    @property
    def page(self) -> str | None:
        """URL of the run's page, once it is known."""
        return self.feed.page

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Queue a point."""
        values = {tag(name): float(value) for name, value in logs.items() if is_number(value)}
        if values:
            self.feed.put(Point(state.global_step, time.time(), values))


@contextmanager
def tracked(spec: RunSpec, run: RunDirectory, is_leader: bool) -> Iterator[Track | None]:
    """Yield the callback that reports to the tracker; None without one, and in all processes but the leader.

    After the block, the run gets the state that follows from the callback's `outcome`.
    """
    tracking = spec.fine_tune_job().tracking
    if tracking is None or not is_leader:
        yield None
        return
    tracker = TRACKERS[tracking.to]
    connect = partial(tracker.connect, tracking, tracked_run(spec, run.uri))
    track = Track(Feed(str(tracking.to), connect, tracker.batch))
    try:
        yield track
    finally:
        track.feed.close(STATES.get(track.outcome, RunState.FAILED))


def tracked_run(spec: RunSpec, uri: str) -> TrackedRun:
    """Return the description of a run for a tracker. Its parameters are the fields of the spec that decide the result."""
    tracking = spec.fine_tune_job().tracking
    tags = {"namespace": spec.namespace, "name": spec.name, "uid": spec.uid}
    return TrackedRun(
        identity=uri,
        name=spec.name,
        experiment=(tracking and tracking.experiment) or spec.namespace,
        parameters=flattened(decisive(spec.kind, spec.spec)),
        tags={f"tunesmith.{key}": value for key, value in tags.items()},
    )


def flattened(value: Any, path: str = "") -> dict[str, str]:
    """Return the scalars below `value` by their paths, such as datasets.0.uri."""
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return {path: str(value).lower() if isinstance(value, bool) else str(value)}
    below = (flattened(item, f"{path}.{key}" if path else str(key)) for key, item in items)
    return {name: text for each in below for name, text in each.items()}


def is_number(value: Any) -> bool:
    """Whether a logged value is a finite number, which JSON can hold."""
    return isinstance(value, int | float) and math.isfinite(value)
