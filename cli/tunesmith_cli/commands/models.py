"""`tunesmith models [SEARCH]` and `tunesmith models show NAME`."""

from __future__ import annotations

import click

from tunesmith_api.catalogue.builtin import models
from tunesmith_api.catalogue.entries import Modality, ModelEntry, ModelTask
from tunesmith_cli.browse import Browser, group

BROWSER: Browser[ModelEntry] = Browser(
    noun="model",
    entries=models,
    table={
        "NAME": lambda entry: entry.name,
        "TASK": lambda entry: entry.task,
        "FAMILY": lambda entry: entry.family,
        "HUBS": lambda entry: ",".join(entry.hubs),
    },
    wide={
        "MODALITY": lambda entry: entry.modality,
        "HUGGINGFACE": lambda entry: entry.huggingface or "",
        "MODELSCOPE": lambda entry: entry.modelscope or "",
        "NEEDS": lambda entry: ", ".join(entry.needs),
        "TAGS": lambda entry: ",".join(entry.tags),
    },
    usage=lambda entry: f"model: {{name: {entry.name}}}",
)

COMMAND = group(
    BROWSER,
    "models",
    "List the models of the catalogue.",
    click.option("--task", type=click.Choice([task.value for task in ModelTask]), help="Only models for this task."),
    click.option("--family", help="Only models of this family, such as qwen3."),
    click.option(
        "--modality",
        type=click.Choice([modality.value for modality in Modality]),
        help="Only models of text, multimodal ones, or image models.",
    ),
)
