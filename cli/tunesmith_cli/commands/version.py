"""`tunesmith version`."""

from __future__ import annotations

import click

from tunesmith_api.release import VERSION


@click.command("version")
def COMMAND() -> None:
    """Print the version."""
    click.echo(VERSION)
