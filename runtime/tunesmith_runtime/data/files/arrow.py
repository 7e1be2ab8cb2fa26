"""Arrow IPC files and streams (as `datasets` keeps them), read batch by batch from a memory map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunesmith_runtime.data.files.columns import arrow_failures, check_schema, check_start, rows_of
from tunesmith_runtime.data.files.file_type import FileType, Row
from tunesmith_runtime.data.files.place import Place
from tunesmith_runtime.data.files.source import MAGIC_BYTES, Source

KIND = "an Arrow file"


def read(source: Source) -> Iterator[tuple[Place, Row]]:
    """Yield the rows of an Arrow file or stream."""
    import pyarrow

    with source.expanded() as path, arrow_failures(source, KIND) as progress:
        with path.open("rb") as file:
            start = file.read(MAGIC_BYTES)
        check_start(source, start, KIND)
        with pyarrow.memory_map(str(path)) as content:
            for batch in _batches(content, start.startswith(b"ARROW1"), source):
                batch.validate(full=True)  # offsets of a damaged batch can point anywhere
                yield from rows_of(batch, source, progress.rows)
                progress.rows += batch.num_rows


def _batches(content: Any, is_file: bool, source: Source) -> Iterator[Any]:
    from pyarrow import ipc

    if not is_file:
        with ipc.open_stream(content) as stream:
            check_schema(stream.schema, source)
            yield from stream
        return
    with ipc.open_file(content) as file:
        check_schema(file.schema, source)
        for index in range(file.num_record_batches):
            yield file.get_batch(index)


ARROW = FileType("Arrow", (".arrow", ".feather"), read)
