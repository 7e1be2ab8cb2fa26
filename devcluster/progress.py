"""A line for each step, with its elapsed time: `build kubernetes 1.36.3 ... 4m12s`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def elapsed(seconds: float) -> str:
    """0.4s, 12s, 4m12s."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def print_line(text: str) -> None:
    print(text, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print a step, and its duration when it ends. A terminal shows the running time, a log a mark for each full minute."""
    start = time.monotonic()
    over = threading.Event()
    ticker = threading.Thread(target=_tick, args=(what, start, over), daemon=True)
    print(f"{what} ...", end="", flush=True)
    ticker.start()
    result = "failed after "
    try:
        yield
        result = ""
    finally:
        over.set()
        ticker.join()
        begin = f"\r{what} ..." if sys.stdout.isatty() else ""
        print(f"{begin} {result}{elapsed(time.monotonic() - start)}", flush=True)


def _tick(what: str, start: float, over: threading.Event) -> None:
    terminal = sys.stdout.isatty()
    while not over.wait(1.0 if terminal else 60.0):
        passed = elapsed(time.monotonic() - start)
        print(f"\r{what} ... {passed}" if terminal else ".", end="", flush=True)
