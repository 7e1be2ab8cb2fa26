"""Examples: token ids with labels, and how the turns of a record are joined into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith_runtime.multimodal.encoder import ReadImage

IGNORED = -100
"""The label of a token that no loss is taken on."""


@dataclass(frozen=True)
class Example:
    """`input_ids` and `labels` of equal length; a label is the token itself or IGNORED."""

    input_ids: list[int]
    labels: list[int]
    is_text: bool = False
    """Whether what is learned may begin anywhere. An answer is learned after its prompt."""
    value: float | None = None
    """Number that belongs to the answer: the margin of a preference, 1 or 0 for feedback that is good or bad."""
    columns: str | None = None
    """What else belongs to an example: of a prompt without an answer, a JSON object of its prompt, tools and columns, which rewards read;
    of a labelled text, its label as JSON; of texts that are compared, the role (`TextRole`)."""
    weights: list[float] | None = None
    """Factor of the loss of each token; None if all are 1."""
    media: list[str] | None = None
    """URIs of the images, in the order of their slots; None for text alone."""
    images: Sequence[ReadImage] = ()
    """What is known of these images; it is not stored."""

    @property
    def has_labels(self) -> bool:
        """Whether the loss is taken on any token. The first token is never predicted, so its label does not count."""
        return self.labels[1:].count(IGNORED) < len(self.labels) - 1


def last_answer_start(labels: Sequence[int]) -> int:
    """Return the index of the first token of the last answer: of the last run of labels; 0 without one."""
    end = next((at for at in range(len(labels), 0, -1) if labels[at - 1] != IGNORED), 0)
    return next((at for at in range(end, 0, -1) if labels[at - 1] == IGNORED), 0)


@dataclass(frozen=True)
class Turn:
    """Tokens of a prompt as a server builds it, and of the answer to it."""

    prompt: list[int]
    answer: list[int]
    learned: int
    """How many tokens of the answer are learned, from its start."""
    weight: float = 1.0
    """Factor of the loss of the answer's tokens."""


def join_turns(turns: Sequence[Turn]) -> list[Example]:
    """Turns as examples: a turn is added to the example before it if its prompt begins with that, token for token.

    Examples without a label are left out.
    """
    examples: list[Example] = []
    for turn in turns:
        before = examples.pop() if examples and starts_with(turn.prompt, examples[-1].input_ids) else Example([], [])
        context = [IGNORED] * (len(turn.prompt) - len(before.input_ids))
        answer = turn.answer[: turn.learned] + [IGNORED] * (len(turn.answer) - turn.learned)
        ids, labels = turn.prompt + turn.answer, [*before.labels, *context, *answer]
        examples.append(Example(ids, labels, weights=_weights(before, len(ids), turn.weight)))
    return [example for example in examples if example.has_labels]


def _weights(before: Example, length: int, weight: float) -> list[float] | None:
    """The weights of `length` tokens of which those behind an example have `weight`; None if all are 1."""
    if weight == 1 and before.weights is None:
        return None
    earlier = before.weights or [1.0] * len(before.input_ids)
    return earlier + [weight] * (length - len(earlier))


def part_of(example: Example, start: int, end: int) -> Example:
    """The tokens of an example from `start` to `end`."""
    part = slice(start, end)
    weights = example.weights[part] if example.weights else None
    return replace(example, input_ids=example.input_ids[part], labels=example.labels[part], weights=weights)


def keep_start(example: Example, length: int) -> Example:
    """The first `length` tokens of an example."""
    return part_of(example, 0, length)


def keep_end(example: Example, length: int) -> Example:
    """The last `length` tokens of an example; fewer where they would begin with an answer, which has lost its prompt."""
    start = max(0, len(example.input_ids) - length)
    while not example.is_text and 0 < start < len(example.labels) and example.labels[start] != IGNORED:
        start += 1
    return part_of(example, start, len(example.input_ids))


def pieces(example: Example, length: int) -> list[Example]:
    """An example in pieces of at most `length` tokens, which hold each of its tokens once.

    No piece has a single token, from which nothing would be learned.
    """
    starts = [*range(0, len(example.input_ids), length)]
    if len(starts) > 1 and len(example.input_ids) - starts[-1] == 1:
        starts[-1] -= 1
    ends = [*starts[1:], len(example.input_ids)]
    return [
        Example(example.input_ids[start:end], example.labels[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]


def starts_with(ids: list[int], start: list[int]) -> bool:
    """Whether `ids` begin with `start`."""
    return ids[: len(start)] == start
