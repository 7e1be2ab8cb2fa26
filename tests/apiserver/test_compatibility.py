"""The API server and Python agree on which combinations of values a row of the table refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from itertools import product
from typing import Any
from unittest.mock import patch

import pytest
from kubernetes import client, config

from devcluster.standalone import ControlPlane
from tests.established import until_established
from tunesmith_api import VERSION
from tunesmith_api.choices import Choice
from tunesmith_api.crdgen.crd import KINDS, crd

GROUP = "table.example"
KIND = next(kind for kind in KINDS if kind.name == "FineTuneJob")
ROWS = (
    Choice("export.quantize.method", ("awq",), excludes={"tuner": ("full",)}, reason="a test"),
    Choice("datasets[].format", ("text",), excludes={"training.lossOn": ("answer",)}, reason="a test"),
    Choice("validation.uri", ("s3://data/held-out.jsonl",), excludes={"tuner": ("lora",)}, reason="a test"),
    Choice("tuner", ("lora",), excludes={"parallelism.near.topologyKey": ("rack",)}, reason="a test"),
    Choice("tuner", ("lora",), excludes={"export.quantize.method": ("gptq", "fp8")}, reason="a test"),
)
"""Rows on required fields, on fields with defaults, on items of lists and on fields of optional blocks; two for the same value."""
PARTS: tuple[tuple[dict[str, Any], ...], ...] = (
    ({}, {"tuner": "full"}),
    ({}, {"export": {"quantize": {"method": "awq"}}}, {"export": {"quantize": {"method": "gptq"}}}),
    ({}, {"training": {"lossOn": "all"}}),
    ({}, {"validation": {"fraction": 0.1}}, {"validation": {"uri": "s3://data/held-out.jsonl"}}),
    ({}, {"datasets": [{"uri": "s3://data/a.jsonl"}, {"uri": "s3://data/b.jsonl", "format": "text"}]}),
    ({}, {"parallelism": {"nodes": 2}}, {"parallelism": {"nodes": 2, "near": {"topologyKey": "rack"}}}),
)
SPEC: dict[str, Any] = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/train.jsonl"}]}


def definition() -> dict[str, Any]:
    """The CRD of a FineTuneJob with the rules of ROWS in place of the table's, in a group of its own."""
    with (
        patch("tunesmith_api.crdgen.rules.conflicts", lambda: list(ROWS)),
        patch("tunesmith_api.crdgen.rules.LIMITS", ()),
    ):
        made = crd(KIND)
    made["metadata"]["name"] = f"{KIND.plural}.{GROUP}"
    made["spec"]["group"] = GROUP
    return made


@pytest.fixture(scope="module")
def objects() -> Iterator[Any]:
    with ControlPlane() as cluster:
        kubectl = [str(cluster.program("kubectl")), "--kubeconfig", str(cluster.kubeconfig)]
        subprocess.run([*kubectl, "apply", "-f", "-"], input=json.dumps(definition()), text=True, check=True)
        until_established(lambda *words: subprocess.run([*kubectl, *words], check=True), "crd", "--all")
        yield client.CustomObjectsApi(config.new_client_from_config(str(cluster.kubeconfig)))  # type: ignore[no-untyped-call]


def is_admitted(objects: Any, spec: dict[str, Any]) -> bool:
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND.name, "metadata": {"name": "support"}, "spec": spec}
    try:
        objects.create_namespaced_custom_object(GROUP, VERSION, "default", KIND.plural, body, dry_run="All")
    except client.ApiException as error:
        if ": a test" not in str(error.body):
            raise
        return False
    return True


def test_the_api_server_and_python_refuse_the_same_combinations(objects: Any) -> None:
    outcomes = set()
    for parts in product(*PARTS):
        spec = {**SPEC}
        for part in parts:
            spec |= part
        filled = KIND.spec.model_validate(spec).to_dict()
        expected = not any(row.matches(filled) for row in ROWS)
        assert is_admitted(objects, spec) is expected, spec
        outcomes.add(expected)
    assert outcomes == {True, False}
