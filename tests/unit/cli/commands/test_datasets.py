"""`tunesmith datasets`: list, filter, show."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from tunesmith_api.catalogue.builtin import datasets
from tunesmith_cli.main import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["datasets", *arguments])


def test_a_task_filters_the_list() -> None:
    found = json.loads(run("--task", "preference", "-o", "json").stdout)
    assert [entry["name"] for entry in found] == [
        name for name, entry in datasets().items() if entry.task == "preference"
    ]
    assert len(found) > 5


def test_show_prints_subsets_columns_and_what_to_write() -> None:
    shown = run("show", "gsm8k").stdout
    assert "subsets:     main\n" in shown
    assert "columns:     question: instruction, answer: output\n" in shown
    assert "use:         datasets: [{name: gsm8k}]\n" in shown


def test_an_unknown_data_set_exits_with_1_and_the_nearest_names() -> None:
    result = run("show", "alpaca_zh")
    assert result.exit_code == 1
    assert "the nearest names: alpaca-zh, " in result.stderr
