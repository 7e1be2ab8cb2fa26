"""`tunesmith explain CLASS`."""

from __future__ import annotations

from typing import Any

import click

from tunesmith_api.failures import BY_EXIT_CODE, FailureClass, explanation


class Failure(click.ParamType[FailureClass]):
    """A failure class by its name in any case, or by an exit code."""

    name = "failure"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> FailureClass:
        """Return the class. Raises click.BadParameter with the known classes."""
        if isinstance(value, FailureClass):
            return value
        if value.isdecimal() and int(value) in BY_EXIT_CODE:
            return BY_EXIT_CODE[int(value)]
        found = {name.lower(): name for name in FailureClass}.get(value.lower())
        if found is None:
            self.fail(f"unknown failure {value!r} (failure classes: {', '.join(FailureClass)})", param, ctx)
        return found


@click.command("explain")
@click.argument("failure", type=Failure(), metavar="CLASS|EXIT_CODE")
def COMMAND(failure: FailureClass) -> None:
    """Explain a failure: the class in status.lastFailure, or the exit code of a container."""
    click.echo(explanation(failure))
