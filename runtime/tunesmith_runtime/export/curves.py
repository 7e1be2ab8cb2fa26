"""The curves of a run: the losses, and what else its method logs."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS: Mapping[str, Mapping[str, str]] = {
    "loss": {"loss": "training", "eval_loss": "validation"},
    "reward": {"reward": "mean of completions", "rewards/margins": "margin of chosen answers"},
    "share": {
        "rewards/accuracies": "chosen answers with more reward",
        "sampling_share": "time for sampling",
        "loading_share": "time in which the device waited for images",
        "eval_accuracy": "validation rows classified or ranked right",
        "eval_recall": "validation rows whose positive is nearest",
        "eval_mrr": "reciprocal rank of positives of validation rows",
    },
    "KL divergence": {"kl": "from the reference"},
    "learning rate": {"learning_rate": ""},
}
"""Title of a panel -> metric of the log -> its name in the legend."""
MOST_POINTS = 2000
"""Points of a curve: a page with every step of a long run would have megabytes."""


def points(history: Sequence[Mapping[str, Any]], metric: str) -> tuple[list[int], list[float]]:
    """Return steps and values of a metric, at most MOST_POINTS at equal distances, and the last."""
    found = [(entry["step"], entry[metric]) for entry in history if isinstance(entry.get(metric), int | float)]
    stride = max(1, -(-len(found) // MOST_POINTS))
    kept = found[::-stride][::-1]
    return [step for step, _ in kept], [value for _, value in kept]


def draw(history: Sequence[Mapping[str, Any]], caches: Path) -> Figure | None:
    """Return the panels that have points, below each other; None without any. matplotlib writes its caches to `caches`."""
    os.environ.setdefault("MPLCONFIGDIR", str(caches))
    from matplotlib.figure import Figure

    panels = {
        title: curves
        for title, metrics in PANELS.items()
        if (curves := {name: xy for metric, name in metrics.items() if (xy := points(history, metric))[0]})
    }
    if not panels:
        return None
    figure = Figure(figsize=(8, 2.4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for panel, (title, curves) in zip(axes, panels.items(), strict=True):
        _draw_panel(panel, title, curves)
    axes[-1].set_xlabel("step")
    return figure


def _draw_panel(panel: Axes, title: str, curves: Mapping[str, tuple[list[int], list[float]]]) -> None:
    panel.set_ylabel(title)
    panel.grid(alpha=0.3)
    for name, (steps, values) in curves.items():
        panel.plot(steps, values, label=name, linewidth=1.2, marker="." if len(steps) < 40 else "")
    if any(curves):
        panel.legend(frameon=False, fontsize="small")


def as_svg(figure: Figure) -> str:
    """Return the figure as an SVG element for a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
