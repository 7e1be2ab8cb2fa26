"""Which stream downloads which parts of a file: long runs of consecutive parts, since each run costs one request."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Run:
    """The parts from number `next` to before `stop`, which no stream has begun."""

    next: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.next


def consecutive(numbers: Iterable[int]) -> list[Run]:
    """Return the runs of consecutive numbers in `numbers`, which are in ascending order."""
    runs: list[Run] = []
    for number in numbers:
        if runs and runs[-1].stop == number:
            runs[-1].stop += 1
        else:
            runs.append(Run(number, number + 1))
    return runs


class Runs:
    """The missing parts of a file, shared out among its streams. Safe to use from threads."""

    def __init__(self, missing: Iterable[int]) -> None:
        self._waiting = consecutive(missing)
        self._taken: list[Run] = []
        self._lock = threading.Lock()

    def take(self) -> Run | None:
        """Return a run for a stream that has none: the first that no stream has, or the second half of the longest one.

        None if all parts are begun.
        """
        with self._lock:
            if self._waiting:
                run = self._waiting.pop(0)
            else:
                longest = max(self._taken, key=len, default=Run(0, 0))
                run = Run(longest.stop - (len(longest) + 1) // 2, longest.stop)
                longest.stop = run.next
            self._taken = [each for each in [*self._taken, run] if each]
            return run if run else None

    def begin(self, run: Run) -> int | None:
        """Return the number of the next part of a run, which its stream now downloads. None at the run's end."""
        with self._lock:
            if not run:
                return None
            run.next += 1
            return run.next - 1

    def stop(self) -> None:
        """Let no stream begin a further part."""
        with self._lock:
            for run in self._taken:
                run.stop = run.next
            self._waiting.clear()
