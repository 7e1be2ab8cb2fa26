"""Reward of boxes: how far those that a completion writes cover those of its row, from 0 to 1 (mean IoU)."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith_api.rewards import Reward, RewardType
from tunesmith_runtime.answers.boxes import boxes_of, overlap, read_boxes
from tunesmith_runtime.answers.matching import answer_of
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.train.rewards.base import Completion, Scorer, answer_in, each
from tunesmith_runtime.workdir import Work


def score(completion: Completion, reward: Reward) -> float:
    """Compare the boxes after the thoughts of the model with those in the column; 0 without a box."""
    return overlap(read_boxes(answer_of(completion.text) or ""), boxes_of(completion.columns[reward.column]))


def check(reward: Reward, _: Work) -> Callable[[Prompt], None]:
    """Return what raises RowError for columns without a box, or with one that has no area."""

    def check_boxes(prompt: Prompt) -> None:
        value = answer_in(prompt, reward)
        boxes = boxes_of(value)
        flat = [box for box in boxes if box[0] >= box[2] or box[1] >= box[3]]
        if not boxes or flat:
            found = f"a box without area {list(flat[0])}" if flat else "no box"
            raise RowError(
                f"has {found} in {reward.column!r}, the column of reward {reward.name}: {str(value)[:80]!r}",
                "write boxes as [x1, y1, x2, y2], the upper left corner first, or set spec.onBadRow: Drop",
            )

    return check_boxes


OVERLAP = Scorer(RewardType.OVERLAP, each(score), check)
