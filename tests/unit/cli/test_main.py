"""The command `tunesmith`: what it imports, how fast it is, and its short commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.release import VERSION
from tunesmith_cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import json, resource, sys
from tunesmith_cli.main import main
main(sys.argv[1:], standalone_mode=False)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": used.ru_utime + used.ru_stime, "modules": [*sys.modules]}), file=sys.stderr)
"""
HEAVY = {"torch", "transformers", "kopf", "kubernetes", "pydantic", "boto3", "numpy"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["version"], ["models", "qwen3"], ["datasets"], ["estimate", "--help"], ["check", "--help"]],
    ids=" ".join,
)
def test_a_command_is_done_in_less_than_300_ms_of_cpu_time_without_large_packages(arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}

    def once() -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=True
        )
        return dict(json.loads(done.stderr))

    runs = [once() for _ in range(3)]
    assert min(float(str(run["seconds"])) for run in runs) < 0.3
    modules = runs[0]["modules"]
    assert isinstance(modules, list)
    assert HEAVY & set(modules) == set()


def test_the_console_script_is_this_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"tunesmith": "tunesmith_cli.main:main"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(main, ["version"]).stdout == f"{VERSION}\n"


def test_a_failure_is_explained_by_class_and_by_exit_code() -> None:
    by_class = CliRunner().invoke(main, ["explain", "badrow"]).stdout
    assert FAILURES[FailureClass.BAD_ROW].hint in by_class
    assert CliRunner().invoke(main, ["explain", str(FAILURES[FailureClass.BAD_ROW].exit_code)]).stdout == by_class


def test_an_unknown_failure_is_refused_with_the_list_of_classes() -> None:
    result = CliRunner().invoke(main, ["explain", "Sadness"])
    assert result.exit_code == 2
    assert "OOMKilled" in result.stderr
