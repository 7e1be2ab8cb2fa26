"""`tunesmith estimate -f job.yaml`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunesmith_cli.tables import print_fields, print_json

if TYPE_CHECKING:
    from tunesmith_api.common import FurtherModel
    from tunesmith_api.finetunejob import FineTuneJobSpec
    from tunesmith_api.finetunejob_status import Estimate
    from tunesmith_runtime.estimate.architecture import Architecture

GIB = 1 << 30


@click.command("estimate")
@click.option("-f", "--filename", type=click.Path(path_type=Path), required=True, help="File with FineTuneJobs.")
@click.option("--model", type=click.Path(path_type=Path), help="Folder with config.json, instead of spec.model.")
@click.option("--rows", type=click.IntRange(1), help="Number of rows, where the data sets cannot be read from here.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Default: table.")
def COMMAND(filename: Path, model: Path | None, rows: int | None, output: str) -> None:
    """Estimate memory, disk, steps and hours of FineTuneJobs, without a cluster and without weights.

    Exits with 1 if a job will not fit, is refused, or has a model that is not known here.
    """
    from tunesmith_cli.jobfile import print_refusals, read_jobs
    from tunesmith_cli.sources import NotKnown, names_not_builtin

    found: dict[str, Estimate] = {}
    is_fine = True
    for job in read_jobs(filename):
        print_refusals(job.name, job.refused)
        is_fine = is_fine and not job.refused
        if job.spec is None:
            continue
        for sentence in names_not_builtin(job.spec):
            click.echo(f"{job.name}: {sentence}", err=True)
        try:
            found[job.name] = _estimate(job.name, job.spec, model, rows)
        except NotKnown as error:
            click.echo(f"{job.name}: no estimate: {error}", err=True)
            is_fine = False
    if output == "json":
        print_json([{"name": name, "estimate": each.to_dict()} for name, each in found.items()])
    else:
        for index, (name, each) in enumerate(found.items()):
            click.echo("\n" * bool(index), nl=False)
            print_fields({"job": name, **_fields(each)})
    sys.exit(0 if is_fine and not any(map(_is_over, found.values())) else 1)


def _is_over(found: Estimate) -> bool:
    return bool(found.device_memory_bytes) and (found.memory_bytes or 0) > (found.device_memory_bytes or 0)


def _estimate(name: str, spec: FineTuneJobSpec, model: Path | None, rows: int | None) -> Estimate:
    """Return the estimate of a job. Raises NotKnown if its model or its batch is unknown."""
    from tunesmith_cli.sources import NotKnown, assumed_rows, count_rows, find_architecture
    from tunesmith_runtime.estimate.bill import Inputs, estimate
    from tunesmith_runtime.estimate.setup import cpu_computes_in_bf16
    from tunesmith_runtime.estimate.workload import assume

    with tempfile.TemporaryDirectory(prefix="tunesmith-") as scratch:
        uri, architecture = find_architecture(spec, model, Path(scratch))
        teacher = _sizes(name, "teacher", spec, spec.gkd.teacher if spec.gkd else None, Path(scratch))
        reward_model = _sizes(name, "reward model", spec, spec.reward_model, Path(scratch))
        try:
            workload, size = count_rows(spec, uri, Path(scratch))
        except NotKnown as error:
            length, size = spec.training.max_length, 0
            workload = assume(rows or assumed_rows(spec), length)
            how = f"assuming {workload.rows:,} rows of training.maxLength {length} tokens"
            click.echo(f"{name}: the rows are not counted: {error}; {how}", err=True)
        else:
            if spec.training.chat_template:
                click.echo(f"{name}: training.chatTemplate is not read: counted with the model's own", err=True)
    try:
        return estimate(Inputs(spec, architecture, workload, size, cpu_computes_in_bf16(), teacher, reward_model))
    except ValueError as error:
        raise NotKnown(str(error)) from error


def _sizes(
    name: str, what: str, spec: FineTuneJobSpec, model: FurtherModel | None, scratch: Path
) -> Architecture | None:
    """Return the sizes of a further model of a job; None, with a line printed, where it cannot be read from here."""
    from tunesmith_cli.sources import NotKnown, find_architecture

    if model is None:
        return None
    try:
        return find_architecture(spec.model_copy(update={"model": model.source}), None, scratch / what)[1]
    except NotKnown as error:
        click.echo(f"{name}: the {what} is not counted: {error}", err=True)
        return None


def _fields(found: Estimate) -> dict[str, str]:
    """The lines of the table."""
    parts = found.memory.to_dict() if found.memory else {}
    about = "about " if found.sampled else ""
    return {
        "summary": found.summary or "",
        "memory": "\n".join(f"{name:<12} {size / GIB:8.2f} GiB" for name, size in parts.items()),
        "parameters": f"{found.parameters:,} of the model, {found.trained_parameters:,} are trained",
        "rows": f"{about}{found.rows:,}",
        "tokens": f"{about}{found.tokens:,}",
        "steps": f"{about}{found.steps:,}",
        "download": f"{(found.download_bytes or 0) / 1e9:.2f} GB",
        "disk": f"{(found.disk_bytes or 0) / 1e9:.2f} GB",
        "accelerator hours": ""
        if found.accelerator_hours is None
        else f"{found.accelerator_hours:.2f} of {found.device}",
        "to make it fit": "\n".join(f"set {each}" for each in found.changes or ()),
    }
