"""The file of completions that are not learned yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith_runtime.train.rollouts.rollout import BLANK, Answer, load_rollout, save_rollout, to_bytes
from tunesmith_runtime.train.world.process_group import ALONE, ProcessGroup

LOG_PROBS = torch.tensor([-0.1, -2.0000002])
FULL = [
    Answer(4, [7, 8], 0.1 + 2**-24, True, LOG_PROBS),
    Answer(5, [], -1.0, False, torch.zeros(0)),
    Answer(0, [9], 0.5, True, torch.tensor([-3.0])),
    Answer(1, [3, 3, 2], -0.5, True, torch.tensor([-1.0, -2.0, -3.0])),
]
LAST = [Answer(2, [1], 1.0, True, torch.zeros(1)), Answer(3, [1], -1.0, True, torch.zeros(1))]


def plain(answers: list[Answer]) -> list[Any]:
    return [
        (
            each.index,
            each.tokens,
            torch.tensor(each.advantage).item(),
            each.is_learned,
            each.log_probs is not None and each.log_probs.tolist(),
        )
        for each in answers
    ]


def test_answers_come_back_to_the_bit(tmp_path: Path) -> None:
    save_rollout(tmp_path, [FULL, LAST], ALONE)
    full, last = load_rollout(tmp_path, 4, ALONE)
    assert plain(full) == plain(FULL)
    assert plain(last) == plain(LAST)
    assert load_rollout(tmp_path / "none", 4, ALONE) == []


def test_answers_without_old_probabilities_have_none(tmp_path: Path) -> None:
    save_rollout(tmp_path, [[Answer(0, [1], 0.5), Answer(1, [2, 3], -0.5)]], ALONE)
    assert [answer.log_probs for answer in load_rollout(tmp_path, 2, ALONE)[0]] == [None, None]


class Pair(ProcessGroup):
    """The leader of two processes, with what the other sends."""

    def __init__(self, rank: int, other: bytes) -> None:
        super().__init__(rank, 2)
        self._other = other

    def gather(self, content: bytes) -> list[bytes]:
        return [content, self._other]


@pytest.mark.parametrize("processes", [1, 2])
def test_another_number_of_processes_shares_the_same_answers(tmp_path: Path, processes: int) -> None:
    blank = Answer(BLANK, [], 0.0, is_learned=False)
    save_rollout(tmp_path, [FULL[:2], LAST], Pair(0, to_bytes([FULL[2:], [blank, blank]])))
    if processes == 1:
        full, last = load_rollout(tmp_path, 4, ALONE)
        assert (plain(full), plain(last)) == (plain(FULL), plain(LAST))
        return
    first, second = (load_rollout(tmp_path, 2, ProcessGroup(rank, 2)) for rank in range(2))
    assert [plain(step) for step in first] == [plain(FULL[:2]), plain(LAST)]
    assert [plain(step) for step in second] == [plain(FULL[2:]), [(BLANK, [], 0.0, False, False)] * 2]
