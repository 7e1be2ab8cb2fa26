"""What this version cannot do is refused with a sentence that says what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.compatibility import CONFLICTS, LIMITS, refusals, values_at
from tunesmith_api.crdgen.crd import KINDS, root_schema

SPEC: dict[str, Any] = {
    "model": {"uri": "s3://models/base"},
    "datasets": [{"uri": "s3://data/train.jsonl", "format": "auto"}],
    "method": "sft",
    "tuner": "lora",
    "training": {"packing": False, "lossOn": "answer"},
    "parallelism": {"nodes": 1, "strategy": "auto", "tensorParallel": 1},
    "resources": {"accelerator": "nvidia", "count": 1},
}


@pytest.mark.parametrize("method", ["sft", "pretrain"])
def test_what_this_version_can_do_is_not_refused(method: str) -> None:
    assert refusals("FineTuneJob", SPEC | {"method": method}) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"method": "kto"},
            "method kto: not available in this version; use sft or pretrain, and remove the block of the other method",
        ),
        ({"training": {"packing": True}}, "training.packing true: not available in this version; set packing: false"),
        (
            {"parallelism": {"strategy": "zero3"}},
            "parallelism.strategy zero3: not available in this version; use strategy: auto or ddp",
        ),
        (
            {"parallelism": {"tensorParallel": 2}},
            "parallelism.tensorParallel 2: not available in this version; remove it",
        ),
        (
            {"export": {"quantize": {"method": "awq"}}},
            "export.quantize: not available in this version; remove the block",
        ),
        ({"model": {"uri": "pvc://claim/m"}}, "model.uri pvc://claim/m: not available in this version; use s3://"),
        (
            {"datasets": [{"uri": "s3://d/a"}, {"uri": "pvc://claim/b"}]},
            "datasets[].uri pvc://claim/b: not available in this version; use s3://",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_with_what_to_write_instead(change: dict[str, Any], sentence: str) -> None:
    assert refusals("FineTuneJob", SPEC | change) == [sentence]


def test_values_that_cannot_go_together_are_refused() -> None:
    spec = SPEC | {"tuner": "qlora", "resources": {"accelerator": "ascend"}}
    assert "tuner qlora with accelerator ascend: bitsandbytes has no Ascend kernels; use tuner lora" in refusals(
        "FineTuneJob", spec
    )


def test_every_problem_is_told_at_once() -> None:
    assert len(refusals("FineTuneJob", SPEC | {"method": "kto", "tuner": "qlora", "training": {"packing": True}})) == 3


def test_rows_speak_of_fields_that_exist() -> None:
    schemas = {kind.name: root_schema(kind)["properties"]["spec"] for kind in KINDS}
    paths = [(row.kind, row.field) for row in LIMITS]
    paths += [("FineTuneJob", field) for row in CONFLICTS for field in row.given]
    for kind, path in paths:
        schema = schemas[kind]
        for part in path.split("."):
            schema = schema["properties"][part.removesuffix("[]")]
            if part.endswith("[]"):
                schema = schema["items"]


def test_the_values_in_the_tables_are_values_of_the_enums() -> None:
    schemas = {kind.name: root_schema(kind)["properties"]["spec"] for kind in KINDS}
    for row in LIMITS:
        schema = schemas[row.kind]
        for part in row.field.split("."):
            schema = schema["properties"][part.removesuffix("[]")]
            schema = schema["items"] if part.endswith("[]") else schema
        assert set(row.allowed) <= set(schema.get("enum", row.allowed)), row


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
