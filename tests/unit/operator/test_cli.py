"""The command line."""

from __future__ import annotations

import pytest

from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_operator import cli
from tunesmith_operator.version import VERSION


@pytest.mark.parametrize("failure", FailureClass)
def test_explain_knows_every_failure_by_class_and_by_exit_code(
    failure: FailureClass, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["explain", failure.lower()])
    by_class = capsys.readouterr().out
    assert FAILURES[failure].hint in by_class
    if (code := FAILURES[failure].exit_code) is not None:
        cli.main(["explain", str(code)])
        assert capsys.readouterr().out == by_class


def test_explain_lists_the_classes_if_it_does_not_know_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["explain", "Sadness"])
    assert "OOMKilled" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["version"])
    assert capsys.readouterr().out == f"{VERSION}\n"
