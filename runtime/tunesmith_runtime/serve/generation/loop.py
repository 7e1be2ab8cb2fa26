"""The thread that generates: it takes waiting rows into the batch, steps the batch, and tells each row's reader what came."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch

from tunesmith_runtime.serve.generation.batch import Batch, Forward, can_merge
from tunesmith_runtime.serve.generation.sampling import Choice, Sampling, choose, generator_for
from tunesmith_runtime.serve.generation.text import Decode, Detokenizer, StopMatcher

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
    begin: int = 0
    end: int = 0
    """Characters of the answer before `choice`, and with what it completed."""
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
    stops: StopMatcher
    random: torch.Generator
    seen: Counter[int] = field(default_factory=Counter)
    last: int = 0
    done: bool = False


@dataclass
class _Group:
    """Rows that are computed together."""

    batch: Batch
    running: list[_Running]

    def halves(self) -> list[_Group]:
        """The same rows in two groups."""
        middle = len(self.running) // 2
        return [_Group(self.batch.part(rows), self.running[rows]) for rows in (slice(middle), slice(middle, None))]


class Loop:
    """Continuous batching over one model. `start` it, `submit` rows from any thread, `close` it.

    All rows share one batch as long as nothing fails. A group of rows whose step fails is computed in halves until the row
    that is the cause stands alone and is dropped; the others go on in groups of their own.
    """

    def __init__(
        self, forward: Forward, decode: Decode, eos: Collection[int], specials: Mapping[str, int] | None = None
    ) -> None:
        self._forward, self._decode, self._eos, self._specials = forward, decode, frozenset(eos), specials or {}
        self._most = MAX_ROWS if can_merge(forward.config) else 1
        self._waiting: deque[deque[Row]] = deque()
        """The rows of each request that wait. Requests take turns, so that one with many rows does not delay the others."""
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
        """Let the rows of a request wait for their turn. Raises Full."""
        with self._changed:
            waiting = sum(not row.cancelled for request in self._waiting for row in request)
            if self._closed or waiting + len(rows) > MAX_WAITING:
                raise Full
            self._waiting.append(deque(rows))
            self._changed.notify()

    def _run(self) -> None:
        groups: list[_Group] = []
        try:
            self._generate(groups)
        finally:
            with self._changed:
                self._closed = True  # also where an error ended the thread: no row is to wait for ever
            message = "the server is shutting down"
            for group in groups:
                self._fail(group.running, message)
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
                joining = self._take(sum(len(group.running) for group in groups))
            if joining:
                groups.append(_Group(Batch(self._forward), joining))
                begun = self._advanced(groups[-1], _begin)
                groups[:] = _merged([*groups[:-1], *begun])
            else:
                groups[:] = [kept for group in groups for kept in self._advanced(group, _step)]

    def _advanced(self, group: _Group, compute: Callable[[_Group], torch.Tensor]) -> list[_Group]:
        """Give each row one more token; the groups of those that go on. A group that fails is tried again in halves.

        Raises AcceleratorError where the device itself has failed, which only a new process mends.
        """
        try:
            logits = compute(group)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if len(group.running) == 1:
                log.exception("a row failed")
                self._fail(group.running, f"{type(error).__name__}: {error}")
                return []
            log.warning("a step of %d rows failed, trying its halves: %s", len(group.running), error)
        else:
            self._tell(group.running, logits)
            return [group] if self._left(group) else []
        return [kept for half in group.halves() for kept in self._advanced(half, compute)]

    def _left(self, group: _Group) -> bool:
        """Let the rows that have ended leave; whether others go on."""
        kept = [index for index, one in enumerate(group.running) if not (one.done or one.row.cancelled)]
        try:
            group.batch.keep(kept)
        except Exception as error:
            log.exception("rows can't leave a batch of %d", len(group.running))
            self._fail(group.running, f"{type(error).__name__}: {error}")
            return False
        group.running = [group.running[index] for index in kept]
        return bool(kept)

    def _take(self, under_way: int) -> list[_Running]:
        """The waiting rows that join now: one of each request in turn, in the order in which the requests came."""
        taken: list[_Running] = []
        widest = 0
        while self._waiting and under_way + len(taken) < self._most:
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
                    _Running(
                        row,
                        Detokenizer(self._decode),
                        StopMatcher(row.stops, self._specials),
                        generator_for(row.sampling),
                    )
                )
        return taken

    def _tell(self, running: Sequence[_Running], logits: torch.Tensor) -> None:
        for one, scores in zip(running, logits, strict=True):
            if one.row.cancelled:
                continue
            try:
                piece = self._advance(one, choose(scores, one.row.sampling, one.seen, one.random))
                one.done = piece.finish is not None
                one.row.emit(piece)
            except Exception as error:  # what is wrong with one row is not the others' matter
                log.exception("a row failed")
                self._fail([one], f"{type(error).__name__}: {error}")

    def _advance(self, one: _Running, choice: Choice) -> Piece:
        """Add a token to a row; what its reader gets to know."""
        one.last = choice.token
        one.seen[choice.token] += 1
        begin = one.text.length
        if choice.token in self._eos:
            text = one.stops.push(one.text.finish(), choice.token)
            return Piece(text if one.stops.stopped else text + one.stops.finish(""), choice, begin, begin, Finish.STOP)
        text, finish = one.stops.push(one.text.push(choice.token), choice.token), None
        end = one.text.length
        if not one.stops.stopped and one.seen.total() >= one.row.max_tokens:
            text += one.stops.finish(one.text.finish())
            finish = Finish.LENGTH
        return Piece(text, choice, begin, end, Finish.STOP if one.stops.stopped else finish)

    @staticmethod
    def _fail(running: Sequence[_Running], message: str) -> None:
        """Tell the readers of the rows that are not done."""
        for one in running:
            if not one.done:
                one.done = True
                one.row.emit(Piece(error=message))


def _begin(group: _Group) -> torch.Tensor:
    """Logits for the first token of each row."""
    prompts, adapters = [one.row.prompt for one in group.running], [one.row.adapter for one in group.running]
    return group.batch.begin(prompts, adapters)


def _step(group: _Group) -> torch.Tensor:
    """Logits for the next token of each row."""
    return group.batch.step([one.last for one in group.running])


def _merged(groups: Sequence[_Group]) -> list[_Group]:
    """The same rows in one group, or in as many as memory asks for."""
    merged: list[_Group] = []
    for group in groups:
        if not (merged and _joined(merged[-1], group)):
            merged.append(group)
    return merged


def _joined(group: _Group, other: _Group) -> bool:
    """Add the rows of `other` to a group; False where that fails, which leaves both as they were."""
    try:
        group.batch.merge(other.batch)
    except torch.AcceleratorError:
        raise
    except Exception as error:  # noqa: BLE001  # for want of memory, say: they go on side by side
        log.warning("%d rows can't join a batch of %d: %s", len(other.running), len(group.running), error)
        return False
    group.running = group.running + other.running
    return True
