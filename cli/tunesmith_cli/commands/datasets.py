"""`tunesmith datasets [SEARCH]` and `tunesmith datasets show NAME`."""

from __future__ import annotations

import click

from tunesmith_api.catalogue.builtin import datasets
from tunesmith_api.catalogue.entries import DatasetEntry, DatasetTask
from tunesmith_cli.browse import Browser, group

BROWSER: Browser[DatasetEntry] = Browser(
    noun="data set",
    entries=datasets,
    table={
        "NAME": lambda entry: entry.name,
        "TASK": lambda entry: entry.task,
        "ROWS": lambda entry: "" if entry.rows is None else f"{entry.rows:,}",
        "HUBS": lambda entry: ",".join(entry.hubs),
    },
    wide={
        "HUGGINGFACE": lambda entry: entry.huggingface or "",
        "MODELSCOPE": lambda entry: entry.modelscope or "",
        "SUBSETS": lambda entry: ",".join(entry.subsets),
        "SPLIT": lambda entry: entry.split or "",
        "COLUMNS": lambda entry: ", ".join(f"{theirs}: {ours}" for theirs, ours in entry.columns.items()),
        "TAGS": lambda entry: ",".join(entry.tags),
    },
    usage=lambda entry: f"datasets: [{{name: {entry.name}}}]",
)

COMMAND = group(
    BROWSER,
    "datasets",
    "List the data sets of the catalogue.",
    click.option(
        "--task", type=click.Choice([task.value for task in DatasetTask]), help="Only data sets for this task."
    ),
)
