"""The files of a folder of data, which rows name by relative paths: images, videos, sounds."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith_runtime.data.records import Caption, Media, MultimodalConversation, Record
from tunesmith_runtime.data.row_error import RowError

ELSEWHERE = ("http://", "https://", "s3://", "data:")
"""Beginnings of references that are no paths."""


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

    def check(self, record: Record, uri: str) -> None:
        """Raise RowError for a file that a record of the file `uri` names, and that is neither in the folder of that file nor in `root`."""
        folder = str(PurePosixPath(uri.removeprefix(self.root).strip("/")).parent)
        for source in paths_of(record):
            path = posixpath.normpath(source.replace("\\", "/"))
            if self.paths.isdisjoint({path, posixpath.normpath(posixpath.join(folder, path))}):
                raise RowError(
                    f"names the file {source!r:.80}, which is not in {self.root}",
                    "upload it to the folder of the rows, or correct its path",
                )


def paths_of(record: Record) -> Iterator[str]:
    """Yield the relative paths of the media of a record."""
    for media in _media_of(record):
        yield from (source for source in media.sources if not source.startswith(ELSEWHERE))


def _media_of(record: Record) -> Iterator[Media]:
    if isinstance(record, Caption):
        yield record.media
    elif isinstance(record, MultimodalConversation):
        contents: Iterator[Any] = (message["content"] for message in record.conversation.messages)
        yield from (part for content in contents for part in content if isinstance(part, Media))
