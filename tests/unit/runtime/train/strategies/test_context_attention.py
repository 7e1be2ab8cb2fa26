"""Parts of rows: which tokens a process has, and that its queries attend to what they attend to in whole rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.runtime.train.strategies.test_stages import SIZES, model_of
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.contexts import check_context
from tunesmith_runtime.modelcheck.stages import FAMILIES


@dataclass(frozen=True)
class Place:
    """The place of a process in its group."""

    index: int
    count: int

    def rank(self) -> int:
        return self.index

    def size(self) -> int:
        return self.count


def layouts(count: int, rows: list[list[int]]) -> list[Any]:
    from tunesmith_runtime.train.strategies.context_attention import Layout

    return [Layout(Place(index, count), rows) for index in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_token_is_in_one_process_and_the_parts_are_put_together_in_order(count: int) -> None:
    import torch

    whole = torch.arange(2 * 12).reshape(2, 12)
    all_layouts = layouts(count, [[12], [12]])
    parts = [layout.own(whole) for layout in all_layouts]
    assert sorted(torch.cat(parts, dim=1)[0].tolist()) == list(range(12))
    assert torch.equal(all_layouts[0].in_order(parts, 1), whole)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("rows", [[[12], [12]], [[5, 7], [1, 2, 9]]], ids=["whole", "packed"])
def test_parts_attend_to_what_whole_rows_attend_to(rows: list[list[int]], window: int | None) -> None:
    import torch

    from tunesmith_runtime.train.kernels.row_attention import by_rows
    from tunesmith_runtime.train.strategies.context_attention import of_block

    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 12, 8) for _ in range(3))
    expected = by_rows(query, key, value, rows, 0.0, None, window).transpose(1, 2)
    for layout in layouts(3, rows):
        for start in layout.starts:
            end = start + layout.block
            found = of_block(query[:, :, start:end], start, key, value, rows, 0.0, None, window)
            assert float((found - expected[:, :, start:end]).abs().max()) < 1e-6


def test_targets_are_those_of_the_next_token_of_the_row_also_behind_a_block() -> None:
    import torch

    from tunesmith_runtime.data.examples import IGNORED
    from tunesmith_runtime.train.strategies.context_attention import ARGUMENT, part_of

    ids = torch.arange(7).expand(2, 7)  # padded to 8 tokens
    found = [part_of({"input_ids": ids, "labels": ids + 100}, Place(index, 2)) for index in range(2)]
    assert [inputs["input_ids"][0].tolist() for inputs, _ in found] == [[0, 1, 6, 0], [2, 3, 4, 5]]
    assert [inputs["position_ids"][0].tolist() for inputs, _ in found] == [[0, 1, 6, 7], [2, 3, 4, 5]]
    assert [targets[0].tolist() for _, targets in found] == [[101, 102, IGNORED, IGNORED], [103, 104, 105, 106]]
    assert found[0][0][ARGUMENT].rows == [[8], [8]]


def test_weights_are_those_of_the_targets_of_a_process() -> None:
    import torch

    from tunesmith_runtime.data.examples import IGNORED
    from tunesmith_runtime.train.strategies.context_attention import ARGUMENT, own_weights, part_of

    ids = torch.arange(7).expand(2, 7)
    for index in range(2):
        inputs, targets = part_of({"input_ids": ids, "labels": ids + 100}, Place(index, 2))
        weights = own_weights(ids + 100.0, inputs[ARGUMENT])
        wanted = targets != IGNORED
        assert torch.equal(weights[wanted], targets[wanted].float())


def test_packed_rows_keep_their_positions() -> None:
    import torch

    from tunesmith_runtime.train.strategies.context_attention import ARGUMENT, part_of

    ids = torch.arange(6)[None]
    inputs, _ = part_of(
        {"input_ids": ids, "labels": ids, "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]])}, Place(1, 2)
    )
    assert inputs["position_ids"].tolist() == [[2, 0, 1, 2]]
    assert inputs[ARGUMENT].rows == [[3, 3, 2]]


@pytest.fixture
def alone() -> Iterator[Any]:
    """A group of this process."""
    from torch import distributed

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed.group.WORLD
    distributed.destroy_process_group()


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_logits_of_parts_are_those_of_whole_rows(kind: str, alone: Any) -> None:
    """Two blocks of a process: windows are shorter than its rows."""
    from tunesmith_runtime.train.strategies.context_attention import difference, use

    model = model_of(kind)
    use(model)
    assert difference(model, SIZES["vocab_size"], alone) < 1e-5


def test_a_family_whose_tokens_exchange_more_than_keys_and_values_is_refused() -> None:
    with pytest.raises(RunFailure, match=r"parallelism.contextParallel: rows of models of type 'mamba'") as refused:
        check_context("mamba", 2)
    assert refused.value.failure is FailureClass.BAD_SPEC
    check_context("mamba", 1)
