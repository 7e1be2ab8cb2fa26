"""SIGKILL before and after each of the operator's writes, in lives of all three kinds: the end is the same.

A sweep plays one life after another. Each life kills the operator at the first write that no life before has killed it at,
so a point of the sweep is a write that occurs in that very life. The sweep ends with a life that has no point left.
"""

from __future__ import annotations

import signal
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import urllib3

from devcluster.standalone import ControlPlane
from tests.apiserver.proxy import Answer, Call, Dropped, Forward
from tests.apiserver.survival import (
    CHAIN,
    CHANGED,
    FAILING,
    Harness,
    Step,
    different,
    end_state,
    orphans,
    play,
    supervised_operator,
)

PARTS = 4
"""The sweep of the chain is split, so that a part can be run alone."""
MAX_LIVES = 150
"""Bound on a sweep: a chain has about 40 writes, with two points each."""


class Point(NamedTuple):
    """A write at which the operator is killed: before the API server has it, or before the operator has the response."""

    write: str
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} `{self.write}`"


CHAIN_WRITES = (
    "event InferenceService/support WaitingForModel",
    "status inferenceservices/support Waiting WaitingForModel",
    "event EvalJob/support WaitingForModel",
    "status evaljobs/support Waiting WaitingForModel",
    "create jobs/support-tune-1",
    "event FineTuneJob/support WaitingForPod",
    "status finetunejobs/support Pending WaitingForPod",
    "event FineTuneJob/support Running",
    "status finetunejobs/support Running Running",
    "event FineTuneJob/support Completed",
    "status finetunejobs/support Succeeded Completed",
    "create jobs/support-eval-model-1",
    "create jobs/support-eval-baseline-1",
    "event EvalJob/support GatesPassed",
    "status evaljobs/support Succeeded GatesPassed",
    "create controllerrevisions/support-…",
    "apply deployments/support",
    "apply services/support",
    "event InferenceService/support Serving",
    "status inferenceservices/support Ready Serving",
)
"""Writes that every sweep of the chain must reach. Other statuses occur or not, as the machine is slow or fast."""
OTHER_LIVES: dict[str, tuple[Sequence[Step], tuple[str, ...]]] = {
    "a training that is tried again": (
        FAILING,
        (
            "event FineTuneJob/support OOMKilled",
            "status finetunejobs/support Pending BackOff",
            "create jobs/support-tune-2",
        ),
    ),
    "suspended, resumed and changed": (
        CHANGED,
        (
            "event FineTuneJob/support Suspended",
            "status finetunejobs/support Suspended Suspended",
            "delete jobs/support-tune-1",
            "create jobs/support-tune-2",
            "create controllerrevisions/support-… (2)",
            "apply deployments/support (2)",
            "event InferenceService/support RollingOut",
            "status inferenceservices/support RollingOut RollingOut",
            "delete controllerrevisions/support-…",
        ),
    ),
}
"""Lives with writes that the chain does not have, and those that their sweeps must reach."""
SAMPLE = {
    Point("create jobs/support-tune-1", after=True),
    Point("status finetunejobs/support Succeeded Completed", after=False),
    Point("event EvalJob/support GatesPassed", after=True),
    Point("apply deployments/support", after=False),
}
"""The points of the short sweep: a write of each verb."""


@dataclass
class Sweep:
    """Kills the operator once in each life, at the first point that is wanted and not done. A fault of the proxy."""

    harness: Harness
    steps: Sequence[Step]
    end: dict[str, Any]
    """The end of a life without a kill."""
    is_wanted: Callable[[Point], bool]
    done: list[Point] = field(default_factory=list)

    def run(self) -> None:
        """Play lives until one has no point left."""
        restarts = self.harness.operator.restarts
        wrong: list[str] = []
        for _ in range(MAX_LIVES):
            kills = len(self.done)
            problems = self._play()
            if len(self.done) == kills:
                assert not problems, f"without a kill: {problems}"
                break
            wrong += [f"{self.done[-1]}: {line}" for line in problems]
        else:
            pytest.fail(f"new writes after {MAX_LIVES} lives: {self.done[-5:]}")
        assert not wrong, "\n".join(wrong)
        assert self.harness.operator.restarts - restarts == len(self.done), "the operator ended without a kill"

    def _play(self) -> list[str]:
        """Play one life. Returns how its end differs."""
        with self.harness.namespace() as cluster:
            self.namespace, self.kills_left = cluster.namespace, 1
            self.harness.proxy.fault = self
            try:
                play(cluster, self.steps)
            except AssertionError as error:
                return [str(error)]
            self.harness.come_to_rest(cluster.namespace)
            return [*different(end_state(cluster), self.end), *(f"orphan {child}" for child in orphans(cluster))]

    async def __call__(self, call: Call, forward: Forward) -> Answer:
        point = self._next_point(call)
        if point is None:
            return await forward()
        self.kills_left = 0
        self.done.append(point)
        if point.after:
            await forward()
        process = self.harness.operator.process
        process.send_signal(signal.SIGKILL)
        process.wait()
        raise Dropped

    def _next_point(self, call: Call) -> Point | None:
        """The point of this call, if the operator is to be killed at it."""
        if not (self.kills_left and call.what and call.namespace == self.namespace):
            return None
        points = (Point(call.what, after) for after in (False, True))
        return next((point for point in points if point not in self.done and self.is_wanted(point)), None)


@pytest.fixture(scope="module")
def harness(
    plane: ControlPlane, http: urllib3.PoolManager, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    with supervised_operator(plane, http, tmp_path_factory.mktemp("killed")) as harness:
        yield harness


Undisturbed = tuple[list[str], dict[str, Any]]


@pytest.fixture(scope="module")
def chain(harness: Harness) -> Undisturbed:
    """The writes and the end of a chain without a kill."""
    return harness.undisturbed(CHAIN)


def part_of(point: Point) -> int:
    """The part of the sweep that a point belongs to: the same in every run."""
    return zlib.crc32(str(point).encode()) % PARTS


def points(writes: Iterable[str]) -> set[Point]:
    return {Point(write, after) for write in writes for after in (False, True)}


def report(capsys: pytest.CaptureFixture[str], title: str, sweep: Sweep) -> None:
    with capsys.disabled():
        print(f"\nkill sweep, {title}: {len(sweep.done)} kills, each with the same end")


def test_a_kill_at_sampled_writes_changes_nothing_in_the_end(
    harness: Harness, chain: Undisturbed, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(harness, CHAIN, chain[1], SAMPLE.__contains__)
    sweep.run()
    assert set(sweep.done) == SAMPLE
    report(capsys, "sampled", sweep)


@pytest.mark.deep
@pytest.mark.parametrize("part", range(PARTS))
def test_a_kill_at_each_write_changes_nothing_in_the_end(
    harness: Harness, chain: Undisturbed, part: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(harness, CHAIN, chain[1], lambda point: part_of(point) == part)
    sweep.run()
    assert {point for point in points(CHAIN_WRITES) if part_of(point) == part} <= set(sweep.done)
    report(capsys, f"part {part + 1} of {PARTS}", sweep)


@pytest.mark.deep
@pytest.mark.parametrize("life", OTHER_LIVES)
def test_a_kill_at_each_write_of_other_lives_changes_nothing_in_the_end(
    harness: Harness, chain: Undisturbed, life: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps, required = OTHER_LIVES[life]
    _, end = harness.undisturbed(steps)
    sweep = Sweep(harness, steps, end, lambda point: point.write not in chain[0])
    sweep.run()
    assert points(required) <= set(sweep.done)
    report(capsys, life, sweep)
