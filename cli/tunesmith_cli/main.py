"""The command `tunesmith` and its subcommands.

Exit codes: 0, 1 if the answer is no (nothing is found, a check fails), 2 for a wrong command line.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

COMMANDS: Mapping[str, tuple[str, str]] = {
    "check": ("tunesmith_cli.commands.check", "Check the spec and the rows of FineTuneJobs in a file."),
    "datasets": ("tunesmith_cli.commands.datasets", "List the data sets of the catalogue, or show one."),
    "estimate": ("tunesmith_cli.commands.estimate", "Estimate memory, disk and hours of FineTuneJobs in a file."),
    "explain": ("tunesmith_cli.commands.explain", "Explain a failure class, or the exit code of a container."),
    "models": ("tunesmith_cli.commands.models", "List the models of the catalogue, or show one."),
    "version": ("tunesmith_cli.commands.version", "Print the version."),
}
"""Name -> the module that has its COMMAND, and its line in the help."""


class LazyGroup(click.Group):
    """A group that imports a command when it runs, so that each starts with its own packages only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).COMMAND
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in sorted(COMMANDS.items())])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Tune, evaluate and serve models on Kubernetes."""
