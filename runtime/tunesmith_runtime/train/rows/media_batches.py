"""Batches of rows with media: their images are read and processed when the batch is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image
from torch import Tensor

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.encoder import MediaEncoder
from tunesmith_runtime.multimodal.processor import TYPES
from tunesmith_runtime.train.rows.forms import TrainingRows, as_dataset
from tunesmith_runtime.train.rows.streaming import StreamedRows

MEDIA = "media"
"""Column of the URIs of images, and key of a batch with the inputs of the model beside its tokens."""
MOST_LOADERS = 4


def loader_arguments(rows: TrainingRows) -> dict[str, Any]:
    """Return the arguments of transformers.TrainingArguments by which processes of their own make batches with media, so that the device
    does not wait for pictures. Empty for rows of text alone."""
    if isinstance(rows, StreamedRows) or MEDIA not in as_dataset(rows).column_names:
        return {}
    processes = max(1, min(MOST_LOADERS, len(os.sched_getaffinity(0)) // 2))
    return {"dataloader_num_workers": processes, "dataloader_persistent_workers": True}


Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


def with_media(collate: Collate, media: MediaEncoder | None) -> Collate:
    """Return what collates rows by `collate`, with the features of their media; `collate` itself for models of text alone."""
    return MediaCollator(collate, media) if media else collate


@dataclass(frozen=True)
class MediaCollator:
    """Collates rows by `text`, and adds the features of the media of each sequence, in their order."""

    text: Collate
    media: MediaEncoder

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch; with RunFailure (BadRow) in place of the features for an image that can no longer be read."""
        if MEDIA not in rows[0]:
            return self.text(rows)
        batch = self.text([{name: value for name, value in row.items() if name != MEDIA} for row in rows])
        try:
            return {
                **batch,
                **features_of([uris for row in rows for uris in sequences_of(row)], batch["input_ids"], self.media),
            }
        except RunFailure as failure:  # a process of the DataLoader can return it, and cannot raise it with its class
            return {**batch, MEDIA: failure}


def features_of(uris: Sequence[Sequence[str]], ids: Tensor, media: MediaEncoder) -> dict[str, Any]:
    """Return the parts of a batch for the images of each sequence: their features, and the kinds of the tokens `ids`, (..., length).

    Raises RunFailure (BadRow) for an image that can no longer be read.
    """
    features = media.processor.features([[_read(uri, media) for uri in each] for each in uris])
    types = media.processor.token_types(ids) if features else None
    return {MEDIA: features, **({} if types is None else {TYPES: types})}


def _read(uri: str, media: MediaEncoder) -> Image:
    try:
        return media.source.picture(uri).pixels
    except RowError as error:
        message = f"an image changed after the rows were read: a row {error}"
        raise RunFailure(FailureClass.BAD_ROW, message, error.hint) from error


def sequences_of(row: Mapping[str, Any]) -> list[list[str]]:
    """Return the URIs of the images of each sequence of a row: of one, or of several answers to a prompt."""
    is_single = not row["input_ids"] or isinstance(row["input_ids"][0], int)
    return [each or [] for each in ([row[MEDIA]] if is_single else row[MEDIA])]


def by_sequence(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch of rows of several sequences, (rows, sequences, ...), as one of sequences. Features are by sequence already."""
    return {name: value if name == MEDIA else value.flatten(0, 1) for name, value in inputs.items()}
