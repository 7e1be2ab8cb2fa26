"""Parquet files, read in batches of rows from one row group at a time."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith_runtime.data.files.columns import arrow_failures, batch_rows, check_schema, check_start, rows_of
from tunesmith_runtime.data.files.file_type import FileType, Row
from tunesmith_runtime.data.files.place import Place
from tunesmith_runtime.data.files.source import BUFFER_BYTES, MAGIC_BYTES, Source

KIND = "a Parquet file"


def read(source: Source) -> Iterator[tuple[Place, Row]]:
    """Yield the rows of a Parquet file."""
    from pyarrow.parquet import ParquetFile

    with source.expanded() as path, arrow_failures(source, KIND) as progress:
        with path.open("rb") as start:
            check_start(source, start.read(MAGIC_BYTES), KIND)
        with ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
            check_schema(file.schema_arrow, source)
            for index in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(index)
                size = batch_rows(group.num_rows, group.total_byte_size)
                for batch in file.iter_batches(size, [index], use_threads=False):
                    yield from rows_of(batch, source, progress.rows)
                    progress.rows += batch.num_rows


def count(source: Source) -> int:
    """The number of rows, by the footer of the file."""
    from pyarrow.parquet import read_metadata

    with source.expanded() as path, arrow_failures(source, KIND):
        return int(read_metadata(path).num_rows)


PARQUET = FileType("Parquet", (".parquet", ".pq"), read, count)
