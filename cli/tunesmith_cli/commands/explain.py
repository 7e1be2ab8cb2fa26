"""`tunesmith explain CLASS`."""

from __future__ import annotations

from typing import Any

import click

from tunesmith_api.failures import FailureClass, explanation, failure_class


class Failure(click.ParamType[FailureClass]):
    """A failure class by its name in any case, or by an exit code."""

    name = "failure"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> FailureClass:
        """Return the class. Raises click.BadParameter with the known classes."""
        try:
            return failure_class(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("explain")
@click.argument("failure", type=Failure(), metavar="CLASS|EXIT_CODE")
def COMMAND(failure: FailureClass) -> None:
    """Explain a failure: the class in status.lastFailure, or the exit code of a container."""
    click.echo(explanation(failure))
