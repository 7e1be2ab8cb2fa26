"""The thread that generates: it takes waiting rows into the batch, steps the batch, and tells each row's reader what came."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch

from tunesmith_runtime.serve.generation.batch import Batch, Forward, can_merge
from tunesmith_runtime.serve.generation.sampling import Choice, Sampling, choose, generator_for
from tunesmith_runtime.serve.generation.text import Decode, Detokenizer, StopStrings

log = logging.getLogger(__name__)

MAX_ROWS = 32
"""Rows that are generated at once; more wait."""
MAX_WAITING = 1024
"""Rows that may wait; more are refused."""
MAX_JOINING_TOKENS = 8192
"""Prompt tokens (with padding) that join in one step, so that long prompts do not hold up the rows under way for long."""


class Finish(StrEnum):
    """Why a row ended, in the words of the OpenAI API."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Piece:
    """What one step added to a row. `choice` is absent for the last piece of a row that was cut short."""

    text: str = ""
    choice: Choice | None = None
    finish: Finish | None = None
    error: str | None = None


@dataclass
class Row:
    """One answer to be generated. `emit` is called from the generating thread, once a token and with a `finish` or `error` last."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    adapter: str | None
    stops: Sequence[str]
    emit: Callable[[Piece], None]
    cancelled: bool = False
    """Set by the reader who went away; the row leaves at the next step."""


class Full(Exception):
    """Too many rows wait."""


@dataclass
class _Running:
    row: Row
    text: Detokenizer
    stops: StopStrings
    random: torch.Generator
    seen: Counter[int] = field(default_factory=Counter)
    last: int = 0
    done: bool = False


class Loop:
    """Continuous batching over one model. `start` it, `submit` rows from any thread, `close` it."""

    def __init__(self, forward: Forward, decode: Decode, eos: Collection[int]) -> None:
        self._forward, self._decode, self._eos = forward, decode, frozenset(eos)
        self._most = MAX_ROWS if can_merge(forward.config) else 1
        self._waiting: deque[Row] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it generates; False for good once its thread has ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to generate."""
        self._thread.start()

    def close(self) -> None:
        """End after the step under way; rows that are not done get an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def submit(self, rows: Sequence[Row]) -> None:
        """Let rows wait for their turn. Raises Full."""
        with self._changed:
            if self._closed or len(self._waiting) + len(rows) > MAX_WAITING:
                raise Full
            self._waiting.extend(rows)
            self._changed.notify()

    def _run(self) -> None:
        running: list[_Running] = []
        try:
            self._generate(running)
        finally:
            with self._changed:
                self._closed = True  # also where an error ended the thread: no row is to wait for ever
            message = "the server is shutting down"
            self._fail(running, message)
            for row in self._waiting:
                row.emit(Piece(error=message))

    def _generate(self, running: list[_Running]) -> None:
        batch = Batch(self._forward)
        while True:
            with self._changed:
                while not (self._closed or self._waiting or running):
                    self._changed.wait()
                if self._closed:
                    return
                joining = self._take(len(running))
            try:
                running[:] = self._step(batch, running, joining)
            except Exception as error:  # a step that fails (memory, say) fails its rows, not the server
                log.exception("a step of %d rows failed", len(running) + len(joining))
                self._fail(running + joining, f"{type(error).__name__}: {error}")
                batch = Batch(self._forward)
                running.clear()

    def _step(self, batch: Batch, running: list[_Running], joining: list[_Running]) -> list[_Running]:
        """Let rows join, or give each row that runs one more token; the rows that go on, as the batch has them then."""
        if joining:
            self._tell(joining, batch.join([one.row.prompt for one in joining], [one.row.adapter for one in joining]))
            running = running + joining
        elif running:
            self._tell(running, batch.step([one.last for one in running]))
        kept = [index for index, one in enumerate(running) if not (one.done or one.row.cancelled)]
        batch.keep(kept)
        return [running[index] for index in kept]

    def _take(self, under_way: int) -> list[_Running]:
        """The waiting rows that join now, in the order in which they came."""
        taken: list[_Running] = []
        widest = 0
        while self._waiting and under_way + len(taken) < self._most:
            row = self._waiting[0]
            widest = max(widest, len(row.prompt))
            if taken and widest * (len(taken) + 1) > MAX_JOINING_TOKENS:
                break
            self._waiting.popleft()
            if not row.cancelled:
                taken.append(
                    _Running(row, Detokenizer(self._decode), StopStrings(row.stops), generator_for(row.sampling))
                )
        return taken

    def _tell(self, running: Sequence[_Running], logits: torch.Tensor) -> None:
        for one, scores in zip(running, logits, strict=True):
            if one.row.cancelled:
                continue
            try:
                piece = self._advance(one, choose(scores, one.row.sampling, one.seen, one.random))
            except Exception as error:  # what is wrong with one row is not the others' matter
                log.exception("a row failed")
                self._fail([one], f"{type(error).__name__}: {error}")
                continue
            one.done = piece.finish is not None
            one.row.emit(piece)

    def _advance(self, one: _Running, choice: Choice) -> Piece:
        """Add a token to a row; what its reader gets to know."""
        one.last = choice.token
        one.seen[choice.token] += 1
        if choice.token in self._eos:
            return Piece(one.stops.push(one.text.finish()) + one.stops.finish(), choice, Finish.STOP)
        text = one.stops.push(one.text.push(choice.token))
        if one.stops.stopped:
            return Piece(text, choice, Finish.STOP)
        if one.seen.total() >= one.row.max_tokens:
            text += one.stops.push(one.text.finish())
            return Piece(text + one.stops.finish(), choice, Finish.STOP if one.stops.stopped else Finish.LENGTH)
        return Piece(text, choice)

    @staticmethod
    def _fail(running: Sequence[_Running], message: str) -> None:
        """Tell the readers of the rows that are not done."""
        for one in running:
            if not one.done:
                one.done = True
                one.row.emit(Piece(error=message))
