"""`tunesmith check -f job.yaml`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunesmith_cli.tables import print_json

if TYPE_CHECKING:
    from tunesmith_api.finetunejob import FineTuneJobSpec
    from tunesmith_api.refusal import Refusal
    from tunesmith_cli.jobfile import JobFile
    from tunesmith_cli.rowcheck import DatasetReport
    from tunesmith_runtime.data.row_encoder import RecordEncoder

CHARACTERS = 160
"""Characters of a row that are shown."""


@click.command("check")
@click.option("-f", "--filename", type=click.Path(path_type=Path), required=True, help="File with FineTuneJobs.")
@click.option("--model", type=click.Path(path_type=Path), help="Folder with the tokenizer, instead of spec.model.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File or folder to read instead of a data set; the first one instead of spec.datasets[0].",
)
@click.option(
    "--chat-template",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the chat template, instead of that of the job or its model.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Default: table.")
def COMMAND(
    filename: Path, model: Path | None, data: tuple[Path, ...], chat_template: Path | None, output: str
) -> None:
    """Check the spec and every row of FineTuneJobs, without a cluster.

    Of data sets on a hub or a web server with more than 16 MB, the first rows are read.
    Prints the counts of each data set and its first bad rows with file, line and fix. Exits with 1 if a job would fail.
    """
    from tunesmith_cli.jobfile import read_jobs

    template = _text_of(chat_template) if chat_template else None
    results = [_checked(job, model, data, template) for job in read_jobs(filename)]
    if output == "json":
        print_json(results)
    else:
        click.echo("\n\n".join("\n".join(_lines(each)) for each in results))
    sys.exit(1 if any(each["problems"] for each in results) else 0)


def _text_of(file: Path) -> str:
    """The text of a file. Raises click.ClickException."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: {error}") from error


def _checked(job: JobFile, model: Path | None, data: tuple[Path, ...], template: str | None) -> dict[str, Any]:
    """The result of a job, as JSON."""
    from tunesmith_cli.sources import names_not_builtin

    problems, notes = [*job.refused], list[str]()
    reports: list[DatasetReport] = []
    if job.spec is not None:
        spec = _with_data(job.spec, data)
        notes += names_not_builtin(spec)
        notes += [
            f"{uri}: pods read file:// only where the chart's store is file://" for uri in _local_uris(spec, data)
        ]
        reports, further = _read(spec, model, template, notes)
        problems += further
    return {
        "name": job.name,
        "problems": [asdict(each) for each in problems],
        "notes": notes,
        "datasets": [_as_json(each) for each in reports],
    }


def _with_data(spec: FineTuneJobSpec, data: tuple[Path, ...]) -> FineTuneJobSpec:
    """The spec with local files in the place of its first data sets. Raises click.UsageError for too many."""
    if len(data) > len(spec.datasets):
        raise click.UsageError(f"{len(data)} times --data, and the job has {len(spec.datasets)} datasets")
    replaced = [
        each.model_copy(update={"name": None, "uri": path.resolve().as_uri()})
        for each, path in zip(spec.datasets, data, strict=False)
    ]
    return spec.model_copy(update={"datasets": [*replaced, *spec.datasets[len(data) :]]})


def _local_uris(spec: FineTuneJobSpec, data: tuple[Path, ...]) -> Iterator[str]:
    """Yield the file:// URIs of a spec that are not by --data."""
    from tunesmith_api.spec_fields import URI_FIELDS, values_at

    content = spec.model_copy(update={"datasets": spec.datasets[len(data) :]}).to_dict()
    for kind, field in URI_FIELDS:
        if kind == "FineTuneJob":
            yield from (str(uri) for uri in values_at(content, field) if str(uri).startswith("file://"))


def _read(
    spec: FineTuneJobSpec, model: Path | None, template: str | None, notes: list[str]
) -> tuple[list[DatasetReport], list[Refusal]]:
    """Read the rows of a job: what becomes of them, and why the job would fail. Adds to `notes` what is not known."""
    from tunesmith_cli.sources import NotKnown, missing_package, storage_of, with_builtin_data
    from tunesmith_runtime.errors import RunFailure

    try:
        from tunesmith_cli.rowcheck import check_rows, missing_rows, refusal_of, unlearnable_rows

        spec = with_builtin_data(spec)
        with tempfile.TemporaryDirectory(prefix="tunesmith-") as scratch:
            encoder = _encoder(spec, model, template, Path(scratch), notes)
            reports = check_rows(spec, storage_of(spec), encoder, Path(scratch))
            unlearnable = unlearnable_rows(spec, reports, Path(scratch))
    except RunFailure as error:
        return [], [refusal_of(error)]
    except NotKnown as error:
        notes.append(str(error))
        return [], []
    except ImportError as error:
        notes.append(f"the rows are not read: {missing_package(error)}")
        return [], []
    failures = [each.failure for each in reports if each.failure]
    return reports, [*failures, *missing_rows(spec, reports), *unlearnable]


def _encoder(
    spec: FineTuneJobSpec, model: Path | None, template: str | None, scratch: Path, notes: list[str]
) -> RecordEncoder:
    """The encoder of the training, or one that reads formats alone, with a note."""
    from tunesmith_cli.rowcheck import FormatsOnly
    from tunesmith_cli.sources import NotKnown, find_encoder

    try:
        return find_encoder(spec, model, scratch / "model", template)
    except NotKnown as error:
        notes.append(f"rows are read by their formats alone, without lengths and chat template: {error}")
        return FormatsOnly(f"training.maxLength is {spec.training.max_length}")


def _as_json(report: DatasetReport) -> dict[str, Any]:
    """A report without its empty fields."""
    fields = {**asdict(report), "rows": report.rows}
    return {name: value for name, value in fields.items() if value is not False and value not in (None, (), [], {})}


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """The lines of a job."""
    is_read = any("unknown" not in each for each in result["datasets"])
    fine = "no problem found" if is_read else "no problem found in the spec, and no rows were read"
    yield f"{result['name']}: {'would fail' if result['problems'] else fine}"
    for each in result["problems"]:
        yield f"  {each['message']}"
        if each["hint"]:
            yield f"    fix: {each['hint']}"
    yield from (f"  note: {note}" for note in result["notes"])
    for each in result["datasets"]:
        yield from _dataset_lines(each)


def _dataset_lines(report: dict[str, Any]) -> Iterator[str]:
    """The lines of a data set."""
    if "unknown" in report:
        yield f"  {report['field']} {report['source']}: not read: {report['unknown']}"
        return
    dropped = [f"{count:,} {reason}" for reason, count in report.get("dropped", {}).items()]
    truncated = [f"{report['truncated']:,} of them truncated"] if report["truncated"] else []
    first = "the first " if report.get("sampled") else ""
    counts = [
        f"{first}{report['rows']:,} row{'' if report['rows'] == 1 else 's'}",
        f"{report['kept']:,} kept",
        *truncated,
    ]
    yield f"  {report['field']} {report['source']}: {', '.join(counts)}" + (
        f", dropped {', '.join(dropped)}" if dropped else ""
    )
    if ignored := report.get("ignored"):
        yield "    keys that are not read: " + ", ".join(f"{key} ({count:,} rows)" for key, count in ignored.items())
    for each in report.get("examples", ()):
        yield f"    {each['reason']}: {each['file'].rsplit('/', 1)[-1]} {each['place']}: {each['sentence']}"
        if each.get("hint"):
            yield f"      fix: {each['hint']}"
        if each["row"]:
            yield f"      row: {each['row'][:CHARACTERS]}"
