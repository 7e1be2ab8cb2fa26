"""Rows that are read and encoded while a run trains: pass after pass, in windows of bounded size.

Each window is shuffled (or packed) by itself. The order depends on the rows, the seed, the pass and the number of the window
alone, so that a run resumes by reading its pass up to the window where it was, which encodes nothing. A thread encodes the next
windows during the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

from pydantic import Field, TypeAdapter

from tunesmith_api.base import ApiModel
from tunesmith_runtime.data.dropped_rows import DropLog
from tunesmith_runtime.data.example_file import RowWriter
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.row_counts import RowCounts
from tunesmith_runtime.errors import RunFailure

WINDOW_ROWS = 1024
"""Rows of a window at most."""
WINDOW_TOKENS = 1 << 20
"""Tokens after which a window ends."""
WINDOWS_AHEAD = 1
"""Windows that are encoded ahead, beside that which the thread works on."""
POLL_SECONDS = 0.2

COUNTS = TypeAdapter(RowCounts)

Sequence = dict[str, list[int]]
"""What a batch is made of: input_ids and labels of a row, or of packed rows with their seq_lengths."""
EncodeRows = Callable[[RowWriter, RowCounts], None]
"""Encodes all data sets once, from where the counts stand: writes the examples of each row that is kept, and counts the rows."""
Arrange = Callable[[list[Example], str], list[Sequence]]
"""Makes the sequences of a window, whose name seeds their order."""


class Place(ApiModel):
    """The beginning of a window, as a checkpoint keeps it."""

    passes: int = Field(0, ge=0, description="Passes over the data before.")
    window: int = Field(0, ge=0, description="Windows of the pass before.")
    sequences: int = Field(0, ge=0, description="Sequences before.")
    start: dict[str, Any] | None = Field(None, description="Counts of the rows of this pass before; None at its start.")
    counts: dict[str, Any] | None = Field(None, description="Counts of the rows of the first pass, once it is over.")
    so_far: dict[str, Any] | None = Field(None, description="Counts that status has, in a checkpoint.")
    dropped: list[dict[str, Any]] | None = Field(None, description="The first dropped rows, in a checkpoint.")


class Stream:
    """An endless sequence of windows over the rows of the data sets."""

    def __init__(
        self,
        encode: EncodeRows,
        arrange: Arrange,
        empty: Callable[[RowCounts], RunFailure],
        dropped: DropLog | None = None,
    ) -> None:
        """`empty`: the failure of data of which no row is kept. `dropped`: where `encode` keeps dropped rows."""
        self._encode, self._arrange, self._empty = encode, arrange, empty
        self.dropped = dropped or DropLog()
        self.counts = RowCounts()
        """Counts of the rows of the first pass, up to the window that was given last."""

    def windows(self, start: Place) -> Iterator[tuple[Place, list[Sequence]]]:
        """Yield the place and the sequences of each window, from `start` on.

        Raises RunFailure: EmptyDataset if a pass has no row, and those of the rows.
        """
        place = start
        while True:
            first = place
            with closing(_windows(self._encode, COUNTS.validate_python(place.start or {}))) as windows:
                for examples, counts in windows:
                    self.counts = counts if place.counts is None else COUNTS.validate_python(place.counts)
                    sequences = self._arrange(examples, f"{place.passes} {place.window}")
                    if sequences:
                        yield place, sequences
                    place = _following(place, len(sequences), counts)
            if not first.window and place.sequences == first.sequences:
                raise self._empty(COUNTS.validate_python(place.start or {}))
            place = Place(passes=place.passes + 1, sequences=place.sequences, counts=place.counts or place.start)


def _following(place: Place, sequences: int, counts: RowCounts) -> Place:
    """The place after a window. `counts`: those of its end."""
    start = COUNTS.dump_python(counts, mode="json")
    update = {"window": place.window + 1, "sequences": place.sequences + sequences, "start": start}
    return place.model_copy(update=update)


class _Stopped(BaseException):
    """The reader of the windows has left: no Exception, as the encoder turns those into errors of the row."""


class _WindowWriter:
    """Collects rows into windows, and hands each over with the counts up to its end."""

    def __init__(self, counts: RowCounts, windows: Queue[Any], stopped: Event) -> None:
        self.rows = counts.kept
        self._counts, self._windows, self._stopped = counts, windows, stopped
        self._window, self._first_row, self._tokens = list[Example](), self.rows, 0

    def write(self, examples: list[Example]) -> None:
        """Add a row with these examples."""
        self.rows += 1
        self._window += examples
        self._tokens += sum(len(example.input_ids) for example in examples)
        if self.rows - self._first_row >= WINDOW_ROWS or self._tokens >= WINDOW_TOKENS:
            self.flush()

    def flush(self) -> None:
        """Hand over the window, and its counts as they are now."""
        self._counts.kept = self.rows
        self.hand_over((self._window, COUNTS.validate_python(COUNTS.dump_python(self._counts))))
        self._window, self._first_row, self._tokens = [], self.rows, 0

    def hand_over(self, item: Any) -> None:
        """Wait until there is room for `item`."""
        while not self._stopped.is_set():
            try:
                return self._windows.put(item, timeout=POLL_SECONDS)
            except Full:
                continue
        raise _Stopped


def _windows(encode: EncodeRows, counts: RowCounts) -> Generator[tuple[list[Example], RowCounts], None, None]:
    """The windows of a pass after the rows in `counts`, encoded in a thread of their own; the last one may be empty."""
    windows, stopped = Queue[Any](WINDOWS_AHEAD), Event()
    writer = _WindowWriter(counts, windows, stopped)

    def work() -> None:
        with suppress(_Stopped):
            try:
                encode(writer, counts)
                writer.flush()
                writer.hand_over(None)
            except Exception as error:  # noqa: BLE001  # raised where the window is read
                writer.hand_over(error)

    thread = Thread(target=work, name="rows", daemon=True)
    thread.start()
    try:
        while (item := windows.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
