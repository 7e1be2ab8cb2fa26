"""The changes of a job with which it fits: their order, their values, and those that are never proposed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.runtime.estimate.test_bill import job
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.training import Offload
from tunesmith_runtime.estimate.changes import Need, steps_to_fit

TWO_DEVICES: dict[str, Any] = {"resources": {"accelerator": "nvidia", "count": 2}}


def fields(spec: FineTuneJobSpec, need: Need, limit: int = 0) -> list[str]:
    """The fields of the changes of a job."""
    return [step.field for step in steps_to_fit(spec, need, limit)]


def rows(spec: FineTuneJobSpec) -> float:
    """A need that grows with the micro batch alone."""
    return spec.training.micro_batch_size or 64


@pytest.mark.parametrize(("limit", "size"), [(32, 32), (0, 2)])
def test_a_method_that_compares_rows_keeps_two_of_them_in_a_forward_pass(limit: int, size: int) -> None:
    spec = job(method="embed", training={"globalBatchSize": 64})
    assert fields(spec, rows, limit) == [f"training.microBatchSize: {size}"]


def test_the_micro_batch_of_other_methods_is_reduced_from_their_default_to_one_row() -> None:
    spec = job(training={"globalBatchSize": 64})
    assert fields(spec, rows, 8) == ["training.microBatchSize: 4"]
    assert fields(spec, rows) == ["training.microBatchSize: 1"]


def on_device(spec: FineTuneJobSpec) -> float:
    """A need that shrinks with what is offloaded."""
    return {Offload.NONE: 3, Offload.OPTIMIZER: 2, Offload.ALL: 1}[spec.parallelism.offload]


@pytest.mark.parametrize(
    ("limit", "change"),
    [
        (2, "parallelism.strategy: zero1 and spec.parallelism.offload: optimizer"),
        (1, "parallelism.strategy: zero3 and spec.parallelism.offload: all"),
    ],
)
def test_several_devices_offload_no_more_than_is_needed(limit: int, change: str) -> None:
    assert fields(job(**TWO_DEVICES), on_device, limit) == [change]


@pytest.mark.parametrize(
    "spec",
    [
        {"resources": {"accelerator": "nvidia"}},
        {"parallelism": {"nodes": 2}},
        {**TWO_DEVICES, "training": {"optimizer": "adafactor"}},
        {**TWO_DEVICES, "parallelism": {"tensorParallel": 2}},
    ],
)
def test_a_single_device_a_cpu_and_what_is_not_divided_offload_nothing(spec: dict[str, Any]) -> None:
    assert fields(job(**spec), on_device) == []


def shared(spec: FineTuneJobSpec) -> float:
    """A need that is divided among the devices."""
    return 100 / spec.resources.processes


def test_more_devices_come_last_and_as_few_as_are_enough() -> None:
    spec = job(resources={"accelerator": "nvidia"}, training={"globalBatchSize": 16})
    assert fields(spec, shared, 30) == ["resources.count: 4"]
    assert fields(spec, shared) == ["resources.count: 16"]
    both = fields(job(**TWO_DEVICES), lambda each: shared(each) * on_device(each))
    assert both == ["parallelism.strategy: zero3 and spec.parallelism.offload: all", "resources.count: 16"]


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        ({"resources": {"accelerator": "nvidia"}, "training": {"globalBatchSize": 6}}, ["resources.count: 2"]),
        ({"resources": {"accelerator": "nvidia"}, "training": {"globalBatchSize": 8, "microBatchSize": 8}}, []),
        ({"resources": {"accelerator": "nvidia", "profile": "mig-3g.40gb"}}, []),
        ({}, []),
    ],
)
def test_a_batch_a_part_of_a_device_and_a_cpu_bound_the_devices(spec: dict[str, Any], changes: list[str]) -> None:
    assert fields(job(**spec), shared) == changes
