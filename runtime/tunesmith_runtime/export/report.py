"""report.html in the run's folder: one page about a run, for people. It needs no network and runs no script."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import yaml

from tunesmith_api.finetunejob_status import Metrics, Rows
from tunesmith_api.hashing import decisive
from tunesmith_api.run import RunSpec
from tunesmith_api.status import Artifact
from tunesmith_runtime.export.curves import as_svg, draw
from tunesmith_runtime.rundirectory import RunDirectory, versions
from tunesmith_runtime.sample_files import read_samples
from tunesmith_runtime.storage import join
from tunesmith_runtime.train.training_result import TrainingResult
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)

PAGE, CURVES = "report.html", "loss.png"
LOG = "logs/metrics.jsonl"
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } pre { overflow-x: auto; padding: .8rem; border: 1px solid #8885; border-radius: 4px; }
figure { margin: 0; background: white; border-radius: 4px; } svg { width: 100%; height: auto; }
"""


def publish_report(
    spec: RunSpec, work: Work, run: RunDirectory, result: TrainingResult, artifacts: Sequence[Artifact]
) -> str | None:
    """Upload the page and the curves as PNG; return the page's URI. None if the page cannot be made: the run succeeds without it."""
    history = [json.loads(line) for line in (run.read_bytes(LOG) or b"").splitlines()]
    folder = work.run / "report"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        figure = draw(history, work.root / "matplotlib")
        if figure is not None:
            figure.savefig(folder / CURVES, dpi=120)
        content = page(spec, result, artifacts, as_svg(figure) if figure else None, read_samples(run))
        (folder / PAGE).write_text(content, encoding="utf-8")
    except Exception as error:  # noqa: BLE001  # a finished training must not fail by its page
        log.warning("%s cannot be made: %s: %s", PAGE, type(error).__name__, error)
        return None
    for path in sorted(folder.iterdir()):
        run.upload_file(path, path.name)
    return join(run.uri, PAGE)


def page(
    spec: RunSpec,
    result: TrainingResult,
    artifacts: Sequence[Artifact],
    curves: str | None,
    samples: Sequence[dict[str, Any]] = (),
) -> str:
    """Return the page (HTML). `curves` is an SVG element; `samples` are rounds of answers, of which the first and the last are shown."""
    job = spec.fine_tune_job()
    devices = job.parallelism.nodes * (job.resources.count or 1)
    settings = yaml.safe_dump(decisive(spec.kind, spec.spec), allow_unicode=True, sort_keys=False)
    title = f"{spec.namespace}/{spec.name}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(f'Method {job.method}, tuner {job.tuner}, on {spec.base.uri}.')}</p>",
        _table("Figures", figures(result.metrics, devices, job.resources.accelerator)),
        _section("Curves", f"<figure>{curves}</figure>") if curves else "",
        answers(samples[0], samples[-1]) if samples else "",
        _table("Rows", row_counts(result.rows)),
        _table("Artifacts", [(artifact.name, f"{artifact.uri}  sha256 {artifact.digest}") for artifact in artifacts]),
        _section("Settings", f"<p>Fields that have their default are left out.</p><pre>{escape(settings)}</pre>"),
        _table("Versions", versions().items()),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(sections) + "\n</body></html>\n"
    )


def answers(first: dict[str, Any], last: dict[str, Any]) -> str:
    """Return a table of the prompts with the answers of two rounds."""
    head = f"<tr><th>Prompt</th><th>Step {first['step']}</th><th>Step {last['step']}</th></tr>"
    rows = (
        (before["prompt"], before["answer"], after["answer"])
        for before, after in zip(first["answers"], last["answers"], strict=True)
    )
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return _section("Answers before and after", f"<table>{head}{body}</table>")


def figures(metrics: Metrics, devices: int, accelerator: str) -> list[tuple[str, str]]:
    """Return name and value of each figure that is known."""
    seconds, tokens, memory = metrics.train_seconds, metrics.tokens, metrics.peak_memory_bytes
    known = [
        ("Training loss", _number(metrics.train_loss)),
        ("Validation loss", _number(metrics.eval_loss)),
        ("Lowest validation loss", metrics.best_step is not None and f"{_number(metrics.best_eval_loss)} in step {metrics.best_step}"),
        ("Validation accuracy", _number(metrics.eval_accuracy)),
        ("Validation F1", _number(metrics.eval_f1)),
        ("Validation correlation", _number(metrics.eval_correlation)),
        ("Validation recall at 1", _number(metrics.eval_recall)),
        ("Validation mean reciprocal rank", _number(metrics.eval_mrr)),
        ("Steps", metrics.steps is not None and f"{metrics.steps:,}"),
        ("Tokens", tokens is not None and f"{tokens:,}"),
        ("Time", seconds is not None and f"{seconds / 3600:.2f} h on {devices} x {accelerator}"),
        ("Throughput", bool(seconds and tokens) and f"{(tokens or 0) / (seconds or 1):,.0f} tokens/s"),
        ("Device hours", seconds is not None and f"{seconds * devices / 3600:.2f}"),
        ("Peak memory", memory is not None and f"{memory / 2**30:.2f} GiB of a {'process' if accelerator == 'cpu' else 'device'}"),
    ]  # fmt: skip
    return [(name, value) for name, value in known if isinstance(value, str)]


def row_counts(rows: Rows) -> list[tuple[str, str]]:
    """Return the counts of the rows by what became of them."""
    counts: list[tuple[str, int | None]] = [
        ("Trained on", rows.kept),
        ("Truncated among them", rows.truncated),
        ("Held out for validation", rows.validation),
        *((f"Dropped: {each.reason}", each.count) for each in rows.dropped or ()),
    ]
    return [(name, f"{count:,}") for name, count in counts if count is not None]


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _table(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return _section(title, f"<table>{body}</table>")


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}"
