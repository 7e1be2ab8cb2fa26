"""The tables that `python -m tests.bench.scale` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from tests.bench.scale.race import Result

TUNESMITH = "Tunesmith"
TRAINER = "Kubeflow Trainer"
CELL = 24
"""Width of a column of the table of a race."""
FIGURES: tuple[tuple[str, int, Callable[[Result], float]], ...] = (
    ("accepted by the API server, s", 0, lambda result: result.accepted),
    ("every child Job exists, s", 0, lambda result: result.jobs),
    ("all have finished, s", 0, lambda result: result.finished),
    ("pod's end to resource's end, p50, s", 1, lambda result: result.delay(0.5)),
    ("pod's end to resource's end, p99, s", 1, lambda result: result.delay(0.99)),
    ("reads per job, by the managers", 1, lambda result: result.reads / result.count),
    ("object writes per job", 2, lambda result: result.writes / result.count),
    ("Events per job", 2, lambda result: result.events / result.count),
    ("CPU, s", 1, lambda result: result.cpu),
    ("CPU of the control plane, s", 0, lambda result: sum(result.plane_cpu.values())),
    ("RSS at the peak, MiB", 0, lambda result: result.rss),
)
"""The rows of the table of a race: name, digits after the point, value."""


def race_table(races: Sequence[Sequence[Result]]) -> Iterator[str]:
    """Yield a table with a column for each contestant. `races` has the results of the contestants, race by race."""
    first = races[0]
    times = "" if len(races) == 1 else f"; {len(races)} races, median (range)"
    yield f"\n{f'{first[0].count} at once{times}':<52}" + "".join(f"{result.name:>{CELL}}" for result in first)
    for name, digits, value in FIGURES:
        cells = (summary([value(result) for result in column], digits) for column in zip(*races, strict=True))
        yield f"{name:<52}" + "".join(f"{cell:>{CELL}}" for cell in cells)
    if {TRAINER, TUNESMITH} <= {result.name for result in first}:
        by_name = [{result.name: result for result in results} for results in races]
        shares = [results[TUNESMITH].jobs / results[TRAINER].jobs for results in by_name]
        yield f"{'child Jobs exist: share of the time of Trainer':<52}{summary(shares, 2)}"
    yield ""


def summary(values: Sequence[float], digits: int) -> str:
    """Return `median (minimum-maximum)`, or the only value."""
    texts = [f"{value:.{digits}f}" for value in (median(values), min(values), max(values))]
    return texts[0] if len(values) == 1 else f"{texts[0]} ({texts[1]}-{texts[2]})"


def row(cells: tuple[str, str]) -> str:
    return f"{cells[0]:<62}{cells[1]:>22}"
