from __future__ import annotations

import pytest

from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.release import VERSION
from tunesmith_operator import cli


@pytest.mark.parametrize("failure", FailureClass)
def test_every_failure_is_explained_by_class_and_by_exit_code(
    failure: FailureClass, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["explain", failure.lower()])
    by_class = capsys.readouterr().out
    assert FAILURES[failure].hint in by_class
    if (code := FAILURES[failure].exit_code) is not None:
        cli.main(["explain", str(code)])
        assert capsys.readouterr().out == by_class


def test_an_unknown_failure_is_refused_with_the_list_of_classes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["explain", "Sadness"])
    assert "OOMKilled" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["version"])
    assert capsys.readouterr().out == f"{VERSION}\n"
