"""The generating thread: admits waiting rows to the batch, computes its steps, and emits each token to the row's reader."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch

from tunesmith_runtime.serve.generation.batch import NO_INPUTS, Batch, Forward, can_merge
from tunesmith_runtime.serve.generation.sampling import Choice, Sampling, choose, generator_for
from tunesmith_runtime.serve.generation.text import Decode, Detokenizer, StopMatcher

log = logging.getLogger(__name__)

MAX_ROWS = 32
"""Maximum number of rows in progress; further rows wait."""
MAX_WAITING = 1024
"""Maximum number of waiting rows; further rows are refused."""
MAX_JOINING_TOKENS = 8192
"""Maximum number of prompt tokens, with padding, admitted in one step. It bounds the delay of the rows in progress."""
MAX_WAITING_BYTES = 2 << 30
"""Size of the features of images in waiting rows above which further rows with images are refused."""


class Finish(StrEnum):
    """Why a row ended: the OpenAI API's finish_reason."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Piece:
    """Output of one step for a row. `choice` is None in the last piece of a row that failed."""

    text: str = ""
    choice: Choice | None = None
    begin: int = 0
    end: int = 0
    """Number of characters of the answer before and after `choice`."""
    finish: Finish | None = None
    error: str | None = None


@dataclass
class Row:
    """An answer to generate. The generating thread calls `emit` for each token; the last piece has a `finish` or an `error`."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    adapter: str | None
    stops: Sequence[str]
    emit: Callable[[Piece], None]
    inputs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Further inputs of the model for the prompt: the features of its images. The rows of a request share them."""
    cancelled: bool = False
    """Set by a reader that has disconnected; the row leaves the batch at the next step."""

    @property
    def inputs_bytes(self) -> int:
        """Size of the inputs."""
        return sum(value.nbytes for value in self.inputs.values())


class QueueFull(Exception):
    """Too many rows are waiting."""


@dataclass
class _ActiveRow:
    """A row in the batch, with its decoder, stop strings and random numbers."""

    row: Row
    text: Detokenizer
    stops: StopMatcher
    random: torch.Generator
    seen: Counter[int] = field(default_factory=Counter)
    last: int = 0
    done: bool = False


@dataclass
class _Group:
    """Rows that are computed in one batch."""

    batch: Batch
    rows: list[_ActiveRow]

    def halves(self) -> list[_Group]:
        """Return the rows as two groups."""
        middle = len(self.rows) // 2
        return [_Group(self.batch.part(rows), self.rows[rows]) for rows in (slice(middle), slice(middle, None))]


class Loop:
    """Continuous batching over one model. `start` it, `submit` rows from any thread, `close` it.

    All rows share a batch while nothing fails. If the step of a group fails, its halves are computed separately, down to
    the single row that causes the failure. That row is dropped, and the others continue in smaller groups.
    """

    def __init__(
        self, forward: Forward, decode: Decode, eos: Collection[int], specials: Mapping[str, int] | None = None
    ) -> None:
        self._forward, self._decode, self._eos, self._specials = forward, decode, frozenset(eos), specials or {}
        self._max_rows = MAX_ROWS if can_merge(forward.config) else 1
        self._waiting: deque[deque[Row]] = deque()
        """Waiting rows of each request. Requests take turns, so that a request with many rows does not delay the others."""
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the generating thread runs. A thread that has ended never restarts."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the generating thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the current step. Unfinished rows receive an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def submit(self, rows: Sequence[Row]) -> None:
        """Queue the rows of a request. Raises QueueFull."""
        with self._changed:
            waiting = sum(not row.cancelled for request in self._waiting for row in request)
            waiting_bytes = sum(request[0].inputs_bytes for request in self._waiting)
            is_large = bool(rows[0].inputs) and waiting_bytes > MAX_WAITING_BYTES
            if self._closed or waiting + len(rows) > MAX_WAITING or is_large:
                raise QueueFull
            self._waiting.append(deque(rows))
            self._changed.notify()

    def _run(self) -> None:
        groups: list[_Group] = []
        try:
            self._generate(groups)
        finally:
            with self._changed:
                self._closed = True  # also after an error in this thread, so that no reader waits forever
            message = "the server is shutting down"
            for group in groups:
                self._fail(group.rows, message)
            for request in self._waiting:
                for row in request:
                    row.emit(Piece(error=message))

    def _generate(self, groups: list[_Group]) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._waiting or groups):
                    self._changed.wait()
                if self._closed:
                    return
                joining = self._next_rows(sum(len(group.rows) for group in groups))
            if joining:
                running, starting = groups.copy(), [_Group(Batch(self._forward), rows) for rows in _together(joining)]
                groups += starting  # an error in this thread fails them all
                begun = [kept for group in starting for kept in self._compute(group, _begin)]
                groups[:] = _merge_groups([*running, *begun])
            else:
                groups[:] = [kept for group in groups for kept in self._compute(group, _step)]

    def _compute(self, group: _Group, compute: Callable[[_Group], torch.Tensor]) -> list[_Group]:
        """Generate a token for each row and return the groups of unfinished rows. A group that fails is retried in halves.

        Raises AcceleratorError if the device itself has failed, which only a new process recovers from.
        """
        try:
            logits = compute(group)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if len(group.rows) == 1:
                log.exception("a row failed")
                self._fail(group.rows, f"{type(error).__name__}: {error}")
                return []
            log.warning("a step of %d rows failed; retrying in halves: %s", len(group.rows), error)
        else:
            self._emit_tokens(group.rows, logits)
            return [group] if self._drop_finished(group) else []
        return [kept for half in group.halves() for kept in self._compute(half, compute)]

    def _drop_finished(self, group: _Group) -> bool:
        """Remove finished rows from the group; return whether any are left."""
        kept = [index for index, active in enumerate(group.rows) if not (active.done or active.row.cancelled)]
        try:
            group.batch.keep(kept)
        except Exception as error:
            log.exception("cannot remove rows from a batch of %d", len(group.rows))
            self._fail(group.rows, f"{type(error).__name__}: {error}")
            return False
        group.rows = [group.rows[index] for index in kept]
        return bool(kept)

    def _next_rows(self, active_rows: int) -> list[_ActiveRow]:
        """Return the waiting rows to admit: a row of each request in turn, in the order of the requests."""
        taken: list[_ActiveRow] = []
        widest = 0
        while self._waiting and active_rows + len(taken) < self._max_rows:
            request = self._waiting[0]
            row = request[0]
            widest = max(widest, len(row.prompt))
            if taken and widest * (len(taken) + 1) > MAX_JOINING_TOKENS:
                break
            request.popleft()
            self._waiting.popleft()
            if request:
                self._waiting.append(request)
            if not row.cancelled:
                taken.append(
                    _ActiveRow(
                        row,
                        Detokenizer(self._decode),
                        StopMatcher(row.stops, self._specials),
                        generator_for(row.sampling),
                    )
                )
        return taken

    def _emit_tokens(self, rows: Sequence[_ActiveRow], logits: torch.Tensor) -> None:
        """Choose the next token of each row from logits [rows, vocabulary] and emit it."""
        for active, scores in zip(rows, logits, strict=True):
            if active.row.cancelled:
                continue
            try:
                piece = self._append(active, choose(scores, active.row.sampling, active.seen, active.random))
                active.done = piece.finish is not None
                active.row.emit(piece)
            except Exception as error:  # a failure of this row must not affect the others
                log.exception("a row failed")
                self._fail([active], f"{type(error).__name__}: {error}")

    def _append(self, active: _ActiveRow, choice: Choice) -> Piece:
        """Append a token to a row and return the piece to emit."""
        active.last = choice.token
        active.seen[choice.token] += 1
        begin = active.text.length
        if choice.token in self._eos:
            text = active.stops.push(active.text.finish(), choice.token)
            return Piece(
                text if active.stops.stopped else text + active.stops.finish(""), choice, begin, begin, Finish.STOP
            )
        text, finish = active.stops.push(active.text.push(choice.token), choice.token), None
        end = active.text.length
        if not active.stops.stopped and active.seen.total() >= active.row.max_tokens:
            text += active.stops.finish(active.text.finish())
            finish = Finish.LENGTH
        return Piece(text, choice, begin, end, Finish.STOP if active.stops.stopped else finish)

    @staticmethod
    def _fail(rows: Sequence[_ActiveRow], message: str) -> None:
        """Emit an error to the readers of unfinished rows."""
        for active in rows:
            if not active.done:
                active.done = True
                active.row.emit(Piece(error=message))


def _together(rows: Sequence[_ActiveRow]) -> list[list[_ActiveRow]]:
    """Return the rows in groups that begin together: those of text alone, and each row with images by itself."""
    text = [active for active in rows if not active.row.inputs]
    return [*([text] if text else []), *([active] for active in rows if active.row.inputs)]


def _begin(group: _Group) -> torch.Tensor:
    """Return logits for the first token of each row, and free the features of images."""
    rows = [active.row for active in group.rows]
    logits = group.batch.begin([row.prompt for row in rows], [row.adapter for row in rows], rows[0].inputs)
    for row in rows:
        row.inputs = NO_INPUTS
    return logits


def _step(group: _Group) -> torch.Tensor:
    """Return logits for the next token of each row."""
    return group.batch.step([active.last for active in group.rows])


def _merge_groups(groups: Sequence[_Group]) -> list[_Group]:
    """Merge the groups into as few as memory allows."""
    merged: list[_Group] = []
    for group in groups:
        if not (merged and _merge_into(merged[-1], group)):
            merged.append(group)
    return merged


def _merge_into(group: _Group, other: _Group) -> bool:
    """Add the rows of `other` to `group`; return False and change neither if that fails."""
    try:
        group.batch.merge(other.batch)
    except torch.AcceleratorError:
        raise
    except Exception as error:  # noqa: BLE001  # for example out of memory: the groups continue separately
        log.warning("cannot add %d rows to a batch of %d: %s", len(other.rows), len(group.rows), error)
        return False
    group.rows = group.rows + other.rows
    return True
