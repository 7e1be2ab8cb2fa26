"""Which batches devices can share, and that the CRD's rule agrees."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.batches import batch_refusal, batch_rule, group_rule, largest_micro_batch, sharing_rule
from tunesmith_api.method_facts import Method


@pytest.mark.parametrize(
    ("batch", "devices", "advice"), [(16, 3, "to 15 or 18"), (16, 6, "to 12 or 18"), (16, 32, "to 32")]
)
def test_a_batch_that_the_devices_do_not_divide_is_refused_with_the_nearest_that_they_do(
    batch: int, devices: int, advice: str
) -> None:
    refusal = batch_refusal(batch, devices)
    assert refusal is not None
    assert refusal.message.startswith(f"training.globalBatchSize {batch} is not a multiple of the {devices} devices")
    assert refusal.hint == f"set spec.training.globalBatchSize {advice}"
    for size in map(int, re.findall(r"\d+", advice)):
        assert batch_refusal(size, devices) is None


@pytest.mark.parametrize(
    ("devices", "micro", "refusal"),
    [(1, 5, "training.microBatchSize 5"), (4, 8, "training.microBatchSize 8 on each of 4 devices"), (4, 2, None)],
)
def test_a_micro_batch_must_divide_the_share_of_a_device(devices: int, micro: int, refusal: str | None) -> None:
    found = batch_refusal(16, devices, micro)
    assert (found and found.message.removeprefix("training.globalBatchSize 16 is not a multiple of ")) == refusal


@given(batch=st.integers(0, 64), nodes=st.integers(0, 6), devices=st.integers(0, 6), sharing=st.integers(0, 6))
def test_the_rules_of_the_crd_refuse_what_the_function_refuses(
    batch: int, nodes: int, devices: int, sharing: int
) -> None:
    in_bounds = "nodes >= 1 && devices >= 1 && sharing >= 1"
    rules = [each(in_bounds, "nodes", "devices", "sharing") for each in (batch_rule, sharing_rule)]
    python = {"self.training.globalBatchSize": "batch", "!(": "not (", "||": "or", "&&": "and", " / ": " // "}
    for cel, term in python.items():
        rules = [rule.replace(cel, term) for rule in rules]
    names = {"batch": batch, "nodes": nodes, "devices": devices, "sharing": sharing}
    admitted = all(eval(rule, {}, names) for rule in rules)
    if min(nodes, devices, sharing) < 1:
        assert admitted
    elif batch < 1:
        assert admitted == (nodes * devices % sharing == 0)
    else:
        assert admitted == (batch_refusal(batch, nodes * devices, sharing=("tensorParallel", sharing)) is None)


@pytest.mark.parametrize(
    ("devices", "stages", "refused"),
    [
        (3, 2, "parallelism.pipelineParallel 2 does not divide the 3 devices"),
        (12, 2, "16 is not a multiple of the 6 groups"),
        (8, 4, None),
    ],
)
def test_the_devices_of_a_pipeline_take_the_same_rows(devices: int, stages: int, refused: str | None) -> None:
    found = batch_refusal(16, devices, sharing=("pipelineParallel", stages))
    assert (refused in found.message) if found and refused else found is refused


@pytest.mark.parametrize(("rows", "stages", "largest"), [(16, 1, 8), (16, 2, 8), (16, 4, 4), (3, 4, 1)])
def test_a_pipeline_has_as_many_micro_batches_as_stages_where_there_are_so_many_rows(
    rows: int, stages: int, largest: int
) -> None:
    assert largest_micro_batch(Method.SFT, rows, stages) == largest


@pytest.mark.parametrize(("devices", "group", "advice"), [(1, 5, "5"), (2, 16, "32"), (4, 4, None)])
def test_a_device_takes_whole_groups_of_completions(devices: int, group: int, advice: str | None) -> None:
    refusal = batch_refusal(16, devices, None, Method.RLOO, group)
    assert (refusal and refusal.hint) == (advice and f"set spec.training.globalBatchSize to a multiple of {advice}")


@given(batch=st.integers(0, 64), nodes=st.integers(0, 4), group=st.integers(0, 9))
def test_the_rule_of_groups_refuses_what_the_function_refuses(batch: int, nodes: int, group: int) -> None:
    rule = group_rule("nodes >= 1", "nodes", "2", "1")
    for cel, python in (
        ("(has(self.grpo) ? self.grpo.numGenerations : has(self.rloo) ? self.rloo.numGenerations : 8)", "group"),
        ("self.training.globalBatchSize", "batch"), ("!(self.method in ['grpo', 'rloo'])", "False"), ("!(", "not ("), ("||", "or"), (" / ", " // "),
    ):  # fmt: skip
        rule = rule.replace(cel, python)
    admitted = eval(rule, {}, {"batch": batch, "nodes": nodes, "group": group})
    is_valid = batch >= 1 and nodes >= 1 and group >= 1
    refused = is_valid and (batch % (2 * nodes) or batch_refusal(batch, 2 * nodes, None, Method.GRPO, group))
    assert admitted == (not refused)
