"""How answers about pictures are scored, by the type of the rows. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith_api.evaljob import BenchmarkType
from tunesmith_runtime.answers import boxes, captions, recognition, vqa

Scores = dict[str, float]
"""Metric in the spelling of EvalScope, which is snake_case, -> score."""
References = Sequence[str]
"""The right answers to a question, of which there is at least one."""


def _none(_: Sequence[str], __: Sequence[References]) -> Scores:
    return {}


@dataclass(frozen=True)
class Measure:
    """The scores of a type of rows."""

    primary: str
    """The metric that stands first in the results."""
    unit: str
    """What an answer must have to be read."""
    is_readable: Callable[[str], bool]
    """Whether a text has it."""
    rate: Callable[[str, References], Scores]
    """Scores of an answer. Their mean is the score of the benchmark."""
    rate_all: Callable[[Sequence[str], Sequence[References]], Scores] = _none
    """Scores of all answers together, which are no means."""
    needs_end: bool = False
    """Whether an answer that was cut off and is not right counts as unreadable: its end may have been the answer."""


def _has_text(text: str) -> bool:
    return bool(text.strip())


def _rate_vqa(answer: str, references: References) -> Scores:
    return {"accuracy": vqa.accuracy(answer, references)}


def _rate_caption(answer: str, references: References) -> Scores:
    return {"rouge_l": captions.rouge_l([answer], [references])}


def _rate_captions(answers: Sequence[str], references: Sequence[References]) -> Scores:
    return {"cider": captions.cider(answers, references), "bleu": captions.bleu(answers, references)}


def _rate_text(answer: str, references: References) -> Scores:
    return {"edit_similarity": max(recognition.similarity(answer, each) for each in references)}


def _rate_texts(answers: Sequence[str], references: Sequence[References]) -> Scores:
    closest = [
        max(each, key=lambda reference: recognition.similarity(answer, reference))
        for answer, each in zip(answers, references, strict=True)
    ]
    return {"character_error_rate": recognition.character_error_rate(zip(answers, closest, strict=True))}


def _rate_boxes(answer: str, references: References) -> Scores:
    """Compare boxes as they are written. The share that two boxes overlap is the same in all coordinates."""
    found, right = boxes.read_boxes(answer), boxes.read_boxes(references[0])
    return {"iou50": boxes.accuracy(found, right), "iou": boxes.overlap(found, right)}


MEASURES: Mapping[BenchmarkType, Measure] = {
    BenchmarkType.VQA: Measure("accuracy", "word", lambda text: bool(vqa.normalized(text)), _rate_vqa, needs_end=True),
    BenchmarkType.CAPTION: Measure("cider", "text", _has_text, _rate_caption, _rate_captions),
    BenchmarkType.OCR: Measure("edit_similarity", "text", _has_text, _rate_text, _rate_texts),
    BenchmarkType.GROUNDING: Measure("iou50", "box", lambda text: bool(boxes.read_boxes(text)), _rate_boxes),
}

MEANINGS: Mapping[str, str] = {
    "accuracy": "quality.accuracy.ratio",
    "rouge_l": "quality.rouge.ratio",
    "cider": "quality.cider.unbounded",
    "bleu": "quality.bleu.ratio",
    "edit_similarity": "quality.similarity.ratio",
    "character_error_rate": "quality.cer.ratio",
    "iou50": "quality.accuracy.ratio",
    "iou": "quality.iou.ratio",
}
"""Metric -> the unit and the direction in which EvalScope's reports show it."""
