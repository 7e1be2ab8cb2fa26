"""The `tunesmith` command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tunesmith_api.failures import BY_EXIT_CODE, FAILURES, FailureClass
from tunesmith_operator.version import VERSION


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 2 for what it does not understand."""
    options = _parser().parse_args(arguments)
    print(options.answer(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tunesmith", description="Tune, evaluate and serve models on Kubernetes.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(answer=lambda _: VERSION)
    explain = commands.add_parser(
        "explain", help="say what a failure means: the class in status.lastFailure, or a container's exit code"
    )
    explain.add_argument("failure", type=_failure_class, metavar="CLASS|EXIT_CODE")
    explain.set_defaults(answer=lambda options: explanation(options.failure))
    return parser


def _failure_class(text: str) -> FailureClass:
    if text.isdecimal() and int(text) in BY_EXIT_CODE:
        return BY_EXIT_CODE[int(text)]
    found = {name.lower(): name for name in FailureClass}.get(text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"no such failure: {text}; the classes are {', '.join(FailureClass)}")
    return found


def explanation(failure: FailureClass) -> str:
    """What is known of a class of failures, for people."""
    row = FAILURES[failure]
    code = "no process of ours exits with it" if row.exit_code is None else f"exit code {row.exit_code}"
    retry = {
        "Waits": "the pod starts by itself when it is over",
        "Never": "it is not tried again",
        "Counted": "it is tried again, up to spec.retries",
        "Always": "it is tried again",
    }
    hints = "\n".join((row.hint, *(f"{kind}: {hint}" for kind, hint in row.hints.items())))
    return f"{failure}: {row.meaning} ({code}; {retry[row.retry]})\n{hints}"


if __name__ == "__main__":
    main(sys.argv[1:])
