"""The operator is killed before and after each of its writes in a chain of all three kinds: the end is the same."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import urllib3

from devcluster.controlplane import ControlPlane
from tests.apiserver.proxy import Answer, Call, Dropped, Forward
from tests.apiserver.survival import (
    CHAIN,
    CHANGED,
    FAILING,
    Range,
    Step,
    Supervised,
    different,
    end_state,
    orphans,
    play,
    shooting_range,
)

TRIES = 3
"""How often a kill is tried whose write did not come: two statuses in a row may become one."""


PARTS = 4
"""In which the whole sweep comes, so that a part of it can be run alone."""
LIVES = {"a training that is tried again": FAILING, "what is suspended, resumed and changed": CHANGED}
"""With writes that the chain does not have."""
Undisturbed = tuple[list[str], dict[str, Any]]
"""What is written in a chain to which nothing is done, and its end."""


@dataclass
class Kill:
    """SIGKILLs the operator when it is about to write `what`: before the API server has it, or before the operator
    knows that it has."""

    operator: Supervised
    namespace: str
    what: str
    after: bool
    done: bool = False

    async def __call__(self, call: Call, forward: Forward) -> Answer:
        if self.done or (call.namespace, call.what) != (self.namespace, self.what):
            return await forward()
        self.done = True
        if self.after:
            await forward()
        process = self.operator.process
        process.send_signal(signal.SIGKILL)
        process.wait()
        raise Dropped

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} `{self.what}`"


@pytest.fixture(scope="module")
def field(plane: ControlPlane, http: urllib3.PoolManager, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    with shooting_range(plane, http, tmp_path_factory.mktemp("killed")) as field:
        yield field


def killed(field: Range, steps: Sequence[Step], what: str, after: bool, wanted: dict[str, Any]) -> list[str]:
    """What is wrong in the end when the operator is killed at that write."""
    for _ in range(TRIES):
        with field.namespace() as cluster:
            kill = Kill(field.operator, cluster.namespace, what, after)
            field.proxy.fault = kill
            try:
                play(cluster, steps)
            except AssertionError as error:
                return [f"{kill}: {error}"]
            if kill.done:
                field.come_to_rest(cluster.namespace)
                wrong = [*different(end_state(cluster), wanted), *(f"orphan {child}" for child in orphans(cluster))]
                return [f"{kill}: {line}" for line in wrong]
    return [f"{kill}: there was no such write in {TRIES} chains"]


def steady(field: Range, steps: Sequence[Step]) -> Undisturbed:
    """What is written in each of two chains to which nothing is done, and their end, which is the same."""
    once, first = field.undisturbed(steps)
    writes, again = field.undisturbed(steps)
    assert different(first, again) == [], "nothing could be told from a disturbed one"
    return [what for what in writes if what in once], again  # a slow machine has a status that others pass over


@pytest.fixture(scope="module")
def undisturbed(field: Range) -> Undisturbed:
    """Of the chain of all three kinds."""
    return steady(field, CHAIN)


def sweep(field: Range, steps: Sequence[Step], writes: Sequence[str], wanted: dict[str, Any], part: slice) -> str:
    """Kill at a part of all points, of which each write has two. Returns what was done."""
    points = [(what, after) for what in writes for after in (False, True)][part]
    before = field.operator.restarts
    wrong = [line for what, after in points for line in killed(field, steps, what, after, wanted)]
    assert not wrong, "\n".join(wrong)
    assert field.operator.restarts - before == len(points), "it ended where nobody killed it"
    return f"{len(writes)} writes, {len(points)} kills, each with the same end"


def test_a_kill_at_any_write_changes_nothing_in_the_end(
    field: Range, undisturbed: Undisturbed, capsys: pytest.CaptureFixture[str]
) -> None:
    told = sweep(field, CHAIN, *undisturbed, slice(7, None, 21))
    with capsys.disabled():
        print(f"\nkill sweep, sampled: {told}")


@pytest.mark.deep
@pytest.mark.parametrize("part", range(PARTS))
def test_a_kill_at_each_write_changes_nothing_in_the_end(
    field: Range, undisturbed: Undisturbed, part: int, capsys: pytest.CaptureFixture[str]
) -> None:
    told = sweep(field, CHAIN, *undisturbed, slice(part, None, PARTS))
    with capsys.disabled():
        print(f"\nkill sweep, part {part + 1} of {PARTS}: {told}")


@pytest.mark.deep
@pytest.mark.parametrize("life", LIVES)
def test_a_kill_at_each_write_of_other_lives_changes_nothing_in_the_end(
    field: Range, undisturbed: Undisturbed, life: str, capsys: pytest.CaptureFixture[str]
) -> None:
    writes, wanted = steady(field, LIVES[life])
    new = [what for what in writes if what not in undisturbed[0]]
    told = sweep(field, LIVES[life], new, wanted, slice(None))
    with capsys.disabled():
        print(f"\nkill sweep, {life}: {told}")
