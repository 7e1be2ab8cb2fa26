"""What this version does not have is refused, with a hint that names what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.compatibility import CHOICES, LIMITS, METHODS, Choice, refusals, values_at
from tunesmith_api.crdgen.crd import KINDS, root_schema
from tunesmith_api.crdgen.rules import conflict_rule

SPEC: dict[str, Any] = {
    "model": {"uri": "s3://models/base"},
    "datasets": [{"uri": "s3://data/train.jsonl", "format": "auto"}],
    "method": "sft",
    "tuner": "lora",
    "training": {"packing": False, "lossOn": "answer"},
    "parallelism": {"nodes": 1, "strategy": "auto", "tensorParallel": 1},
    "resources": {"accelerator": "nvidia", "count": 1},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_spec_of_available_values_is_accepted(method: str) -> None:
    assert refusals("FineTuneJob", SPEC | {"method": method}) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"training": {"optimizer": "galore"}},
            (
                "training.optimizer galore: not available in this version; use adamw, adamw8bit, pagedAdamw8bit, adafactor, lion, "
                "lion8bit or muon"
            ),
        ),
        (
            {"parallelism": {"tensorParallel": 2}},
            "parallelism.tensorParallel 2: not available in this version; remove it",
        ),
        (
            {"export": {"quantize": {"method": "awq"}}},
            "export.quantize: not available in this version; remove the block",
        ),
        ({"output": {"uri": "pvc://claim/m"}}, "output.uri pvc://claim/m: not available in this version; use s3://"),
    ],
)
def test_an_unavailable_value_is_refused_with_the_alternative(change: dict[str, Any], sentence: str) -> None:
    assert [str(refusal) for refusal in refusals("FineTuneJob", SPEC | change)] == [sentence]


def test_values_that_cannot_go_together_are_refused() -> None:
    spec = SPEC | {"tuner": "qlora", "resources": {"accelerator": "ascend"}}
    refused = refusals("FineTuneJob", spec)
    assert (refused[-1].message, refused[-1].hint) == (
        "tuner qlora with accelerator ascend: bitsandbytes has no Ascend kernels",
        "use tuner lora",
    )


def test_all_problems_are_reported_together() -> None:
    assert (
        len(
            refusals(
                "FineTuneJob",
                SPEC
                | {
                    "training": {"optimizer": "galore"},
                    "qlora": {"quantization": "hqq"},
                    "export": {"quantize": {}},
                },
            )
        )
        == 3
    )


def field_at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of the field at a path of the table. Raises KeyError if there is none."""
    for part in path.split("."):
        schema = schema["properties"][part.removesuffix("[]")]
        schema = schema["items"] if part.endswith("[]") else schema
    return schema


SCHEMAS = {kind.name: root_schema(kind)["properties"]["spec"] for kind in KINDS}
TUNE = SCHEMAS["FineTuneJob"]


SETTINGS = {
    "export.weights",
    "lora.useRslora",
    "resources.accelerator",
    "training.truncation",
    "training.packing",
    "training.streaming",
    "training.lossOn",
}
"""Fields that have rows for the values alone that some method excludes."""


def test_every_limit_names_a_field_and_values_of_the_schema() -> None:
    for row in LIMITS:
        field = field_at(SCHEMAS[row.kind], row.field)
        assert set(row.allowed) <= set(field.get("enum", row.allowed)), row


def test_every_combination_names_fields_and_values_of_the_schema() -> None:
    for choice in CHOICES:
        for path, values in choice.excludes.items():
            assert set(values) <= set(values_of(TUNE, path)), choice


def values_of(schema: dict[str, Any], path: str) -> list[Any]:
    """The values that the field at a path can have."""
    field = field_at(schema, path)
    return [True, False] if field.get("type") == "boolean" else field["enum"]


@pytest.mark.parametrize("path", sorted({choice.field for choice in CHOICES if choice.field not in SETTINGS}))
def test_the_table_has_one_row_for_each_value_of_a_choice(path: str) -> None:
    """A row that excludes further values may come beside it."""
    rows = dict.fromkeys(choice.value for choice in CHOICES if choice.field == path)
    assert sorted(rows) == sorted(values_of(TUNE, path))


PATHS = ("method", "datasets[].format", "export.quantize.method", "training.lossOn", "lora.useRslora")


@given(st.sampled_from(PATHS), st.sampled_from(PATHS), st.data())
def test_an_absent_field_matches_no_combination(first: str, second: str, data: st.DataObject) -> None:
    """Two present fields match exactly if both have a listed value."""
    values = {path: data.draw(st.sampled_from(["a", "b", None])) for path in {first, second}}
    spec: dict[str, Any] = {}
    for path, value in values.items():
        if value is not None:
            put(spec, path.split("."), value)
    choice = Choice(first, "a", excludes={second: ("a",)})
    assert choice.matches(spec) is (set(values.values()) == {"a"})


def put(spec: dict[str, Any], path: list[str], value: str) -> None:
    """Write `value` at a path; a new list gets a single item."""
    *parents, leaf = path
    for part in parents:
        below = spec.setdefault(part.removesuffix("[]"), [{}] if part.endswith("[]") else {})
        spec = below[0] if isinstance(below, list) else below
    spec[leaf] = value


@pytest.mark.parametrize(
    ("choice", "rule"),
    [
        (
            Choice("export.quantize.method", "awq", excludes={"method": ("sft",)}),
            '!(self.method in ["sft"] && has(self.export.quantize) && self.export.quantize.method in ["awq"])',
        ),
        (
            Choice("datasets[].format", "text", excludes={"lora.useRslora": ("true",), "datasets[].maxRows": ("1",)}),
            (
                '!(self.datasets.exists(item, item.format in ["text"])'
                ' && has(self.lora) && self.lora.useRslora in ["true"]'
                ' && self.datasets.exists(item, has(item.maxRows) && item.maxRows in ["1"]))'
            ),
        ),
    ],
    ids=["block", "list"],
)
def test_the_cel_of_a_combination_asks_first_whether_optional_fields_are_set(choice: Choice, rule: str) -> None:
    assert conflict_rule(choice, TUNE).expression == rule


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", [{"b": 1}]),
        ("a.b", [1]),
        ("a.c", []),
        ("l[].x", [1, 2]),
        ("l[].y.z", [3]),
        ("absent[].x", []),
        ("null.x", []),
    ],
)
def test_a_path_finds_each_value_there_is(path: str, found: list[Any]) -> None:
    assert list(values_at({"a": {"b": 1}, "l": [{"x": 1}, {"x": 2, "y": {"z": 3}}], "null": None}, path)) == found
