"""The files of a folder of data, which rows name by relative paths: images, videos, sounds."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith_runtime.data.records import (
    Answered,
    Media,
    MultimodalConversation,
    Record,
    Transcription,
    answers_of,
    with_answers,
)
from tunesmith_runtime.data.row_error import RowError

ELSEWHERE = ("http://", "https://", "s3://", "data:")
"""Beginnings of references that are no paths."""
STORED = ("s3://", "file://", "pvc://")
"""Beginnings of the URIs of stores, whose objects are read by their URIs."""


@dataclass(frozen=True)
class MediaFiles:
    """The files below the folder `root`, a URI."""

    root: str
    paths: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> MediaFiles:
        """Return what `write` has left."""
        content = json.loads(path.read_text())
        return cls(content["root"], frozenset(content["paths"]))

    def write(self, path: Path) -> None:
        """Write the listing to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"root": self.root, "paths": sorted(self.paths)}))

    def uri_of(self, source: str, uri: str) -> str:
        """Return the URI of the file that the path `source` of a row of the file `uri` names: in the folder of that file, or in `root`.

        Raises RowError where there is none.
        """
        folder = str(PurePosixPath(uri.removeprefix(self.root).strip("/")).parent)
        path = normalized(source)
        beside = posixpath.normpath(posixpath.join(folder, path))
        found = next((each for each in (beside, path) if each in self.paths), None)
        if found is None:
            raise RowError(
                f"names the file {source!r:.80}, which is not in {self.root}",
                "upload it to the folder of the rows, or correct its path",
            )
        return f"{self.root}/{found}"


def has_media(record: Record) -> bool:
    """Return whether a record has images, videos or sounds."""
    return any(isinstance(answer, MultimodalConversation) for answer in answers_of(record))


def resolved(record: Record, files: MediaFiles | None, uri: str) -> Record:
    """Return a record of the file `uri` with URIs in place of the paths of its media.

    Raises RowError for a file that is not in the folder, and for addresses: what a row names must not decide what a pod connects to.
    """

    def placed(part: Any) -> Any:
        if not isinstance(part, Media):
            return part
        return replace(part, sources=tuple(_located(source, files, uri) for source in part.sources))

    if isinstance(record, Transcription):
        return replace(record, media=placed(record.media))
    return with_answers(record, lambda answer: _placed(answer, placed))


def _placed(answer: Answered, placed: Callable[[Any], Any]) -> Answered:
    if not isinstance(answer, MultimodalConversation):
        return answer
    messages = [{**each, "content": [*map(placed, each["content"])]} for each in answer.conversation.messages]
    return MultimodalConversation(replace(answer.conversation, messages=messages))


def _located(source: str, files: MediaFiles | None, uri: str) -> str:
    if source.startswith("data:"):
        return source
    if source.startswith(ELSEWHERE):
        raise RowError(
            f"names {source:.80}, and media are read from the folder of the rows alone",
            "copy it into the folder of the rows, and name it by its path",
        )
    if files is not None:
        return files.uri_of(source, uri)
    if not uri.startswith(STORED):
        raise RowError(
            f"names the file {source!r:.80}, and the files beside {uri} are not read",
            "copy rows and files into a folder of the store, and name it in spec.datasets[].uri",
        )
    return f"{uri.rpartition('/')[0]}/{normalized(source)}"


def normalized(path: str) -> str:
    """Return a path of a row with slashes and without steps to the folder above where it has others before them."""
    return posixpath.normpath(path.replace("\\", "/"))
