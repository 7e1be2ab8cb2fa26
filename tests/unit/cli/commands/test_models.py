"""`tunesmith models`: list, filter, show."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from tunesmith_api.catalogue.builtin import models
from tunesmith_cli.main import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def names(*arguments: str) -> list[str]:
    result = run(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    return [entry["name"] for entry in json.loads(result.stdout)]


def test_without_arguments_it_lists_every_model() -> None:
    assert names() == list(models())


def test_every_word_of_the_search_is_in_the_name_the_ids_the_family_or_the_tags() -> None:
    assert names("qwen3-8b") == [
        "qwen3-8b-base",
        "qwen3-8b",
        "qwen3-8b-fp8",
        "qwen3-8b-awq",
        "deepseek-r1-0528-qwen3-8b",
    ]
    assert names("SMILINGWOLF", "v3", "swin") == ["wd-swinv2-tagger-v3"]


@pytest.mark.parametrize(
    ("option", "value", "holds"),
    [
        ("--task", "reward", lambda entry: entry.task == "reward"),
        ("--family", "qwen3-moe", lambda entry: entry.family == "qwen3-moe"),
        ("--modality", "image", lambda entry: entry.modality == "image"),
        ("--hub", "modelscope", lambda entry: entry.modelscope is not None),
        ("--hub", "huggingface", lambda entry: entry.huggingface is not None),
    ],
)
def test_an_option_filters_the_list(option: str, value: str, holds: object) -> None:
    assert callable(holds)
    assert names(option, value) == [name for name, entry in models().items() if holds(entry)]


def test_the_table_has_a_line_for_each_model_and_wide_has_the_ids() -> None:
    header, line = run("flux.1-schnell").stdout.splitlines()
    assert header.split() == ["NAME", "TASK", "FAMILY", "HUBS"]
    assert line.split() == ["flux.1-schnell", "diffusion", "flux", "huggingface,modelscope"]
    assert "black-forest-labs/FLUX.1-schnell" in run("flux.1-schnell", "-o", "wide").stdout


def test_show_prints_the_ids_and_what_to_write() -> None:
    shown = run("show", "qwen3-8b").stdout
    assert "modelscope:  Qwen/Qwen3-8B\n" in shown
    assert "use:         model: {name: qwen3-8b}\n" in shown
    assert json.loads(run("show", "qwen3-8b", "-o", "json").stdout)["needs"] == ["transformers>=4.51"]


@pytest.mark.parametrize("arguments", [("show", "qwen3-8bb"), ("qwen3-8bb",)])
def test_an_unknown_model_exits_with_1_and_the_nearest_names(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr == (
        "no model 'qwen3-8bb' in the catalogue\nthe nearest names: qwen3-8b, qwen3-8b-base, qwen3-8b-awq\n"
    )


def test_a_wrong_command_line_exits_with_2() -> None:
    assert run("--task", "cooking").exit_code == 2
    assert run("show").exit_code == 2
