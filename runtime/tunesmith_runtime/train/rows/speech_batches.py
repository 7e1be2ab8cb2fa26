"""Batches of sounds with their texts: the sounds are read, and their features computed, when the batch is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.speech import Samples, SpeechEncoder
from tunesmith_runtime.train.rows.media_batches import MEDIA

FEATURES, WRITTEN = "input_features", "decoder_input_ids"
"""Inputs of a speech model: what it hears, and the tokens that its decoder reads."""
SILENCE = numpy.zeros(1, numpy.float32)
"""The sound of a blank row."""


@dataclass(frozen=True)
class SpeechCollator:
    """Collates rows by `text`, and adds the features of their sounds."""

    text: Callable[[list[dict[str, Any]]], dict[str, Any]]
    speech: SpeechEncoder

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch; with RunFailure (BadRow) in place of the features for a sound that can no longer be read."""
        batch = self.text([{name: value for name, value in row.items() if name != MEDIA} for row in rows])
        try:
            sounds = [self._read(row[MEDIA][0]) if row[MEDIA] else SILENCE for row in rows]
        except RunFailure as failure:  # a process of the DataLoader can return it, and cannot raise it with its class
            return {**batch, MEDIA: failure}
        return {**batch, MEDIA: {FEATURES: self.speech.processor.features(sounds), WRITTEN: batch["input_ids"]}}

    def _read(self, uri: str) -> Samples:
        try:
            return self.speech.samples(uri)
        except RowError as error:
            message = f"a sound changed after the rows were read: a row {error}"
            raise RunFailure(FailureClass.BAD_ROW, message, error.hint) from error
