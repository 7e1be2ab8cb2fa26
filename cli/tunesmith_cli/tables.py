"""Output for people, as kubectl's tables, and for programs, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

OUTPUTS = ("table", "wide", "json")


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option --output to a command."""
    option = click.option("-o", "--output", type=click.Choice(OUTPUTS), default="table", help="Default: table.")
    return option(function)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns as wide as their longest value."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        click.echo("   ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values, one a line; values of several lines are indented. Empty values are left out."""
    width = max(map(len, fields)) + 2
    for name, value in fields.items():
        if value:
            click.echo(f"{name + ':':{width}}" + value.replace("\n", "\n" + " " * width))


def print_json(value: Any) -> None:
    """Print JSON with an indentation of two."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def as_json(entry: Any) -> dict[str, Any]:
    """Return a dataclass as JSON-ready data without its empty fields."""
    return {name: value for name, value in asdict(entry).items() if value not in (None, "", (), [], {})}
