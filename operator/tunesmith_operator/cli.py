"""What the operator's image prints by itself: its version, and explanations of failures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tunesmith_api.failures import FailureClass, explanation, failure_class
from tunesmith_api.release import VERSION


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 2 on invalid arguments."""
    options = _parser().parse_args(arguments)
    print(options.answer(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tunesmith", description="Tune, evaluate and serve models on Kubernetes.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(answer=lambda _: VERSION)
    explain = commands.add_parser(
        "explain", help="explain a failure: the class in status.lastFailure, or the exit code of a container"
    )
    explain.add_argument("failure", type=_failure_class, metavar="CLASS|EXIT_CODE")
    explain.set_defaults(answer=lambda options: explanation(options.failure))
    return parser


def _failure_class(text: str) -> FailureClass:
    try:
        return failure_class(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    main(sys.argv[1:])
