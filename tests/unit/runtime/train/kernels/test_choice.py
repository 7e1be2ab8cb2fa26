"""Fast paths compute what the plain ones do, each device gets its own, and a path that differs on a model is not taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tinymodel
from tests.unit.runtime.train.rows.test_packing import CPU, MIXING, SEPARATE, collate, gradients, make, packed
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.kernels import Attention, Loss, Step
from tunesmith_api.pods import Accelerator
from tunesmith_runtime import train
from tunesmith_runtime.data.packing import PackedRows
from tunesmith_runtime.train.kernels import choice, row_attention
from tunesmith_runtime.train.kernels.choice import Choice, choose, settle
from tunesmith_runtime.train.kernels.row_attention import ARGUMENT, NAMES, no_masks, row_lengths
from tunesmith_runtime.train.losses.cross_entropy import answer_loss, plain_loss
from tunesmith_runtime.train.rows.packing import two_rows, without_mask

__all__ = ["packed"]

ROWS = Choice(Attention.ROWS, Loss.LABELLED, Step.FUSED)
PACKED = {"packing": True, "globalBatchSize": 4, "microBatchSize": 2, "maxSteps": 6}
TOLERANCE = 1e-4
"""Relative difference of the losses of a fast and a plain run, in float32."""


def job(training: dict[str, Any] | None = None, accelerator: str = "cpu", **spec: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "s3://models/tiny"}, "datasets": [{"uri": "s3://data/train.jsonl"}],
            "training": training or {}, "resources": {"accelerator": accelerator}, **spec,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("training", "accelerator", "bf16", "expected"),
    [
        ({}, "cpu", False, (Attention.SDPA, Loss.LABELLED, Step.FUSED)),
        ({"packing": True}, "cpu", False, (Attention.ROWS, Loss.LABELLED, Step.FUSED)),
        ({"packing": True}, "nvidia", True, (Attention.VARLEN, Loss.CHUNKED, Step.FUSED)),
        ({"packing": True}, "nvidia", False, (Attention.SDPA, Loss.CHUNKED, Step.FUSED)),
        ({"packing": True}, "ascend", True, (Attention.SDPA, Loss.LABELLED, Step.FUSED)),
        ({"packing": True, "compile": True}, "cpu", False, (Attention.SDPA, Loss.LABELLED, Step.FUSED)),
        ({"optimizer": "adafactor"}, "amd", True, (Attention.SDPA, Loss.CHUNKED, None)),
        ({"packing": True, "kernels": "plain"}, "nvidia", True, (Attention.EAGER, Loss.ALL, Step.PLAIN)),
    ],
)
def test_each_device_has_its_fast_paths_and_plain_has_none(
    training: dict[str, Any], accelerator: str, bf16: bool, expected: tuple[Any, ...]
) -> None:
    choice = choose(job(training, accelerator), is_sharded=False, bf16=bf16)
    assert (choice.attention, choice.loss, choice.step, choice.compiled) == (*expected, "compile" in training)


def test_divided_models_and_other_losses_take_fewer_paths() -> None:
    assert choose(job({"packing": True}), is_sharded=True, bf16=False).attention is Attention.SDPA
    assert choose(job(method="dpo"), is_sharded=False, bf16=False).to_dict() == {
        "attention": "sdpa", "optimizer": "fused", "compile": "false",
    }  # fmt: skip


@pytest.mark.parametrize("accelerator", Accelerator)
def test_the_table_names_a_path_for_every_device(accelerator: Accelerator) -> None:
    assert all(path.fast[accelerator] for path in choice.FAST_PATHS)


@pytest.mark.parametrize("family", SEPARATE)
def test_rows_one_by_one_have_the_loss_and_gradients_of_a_mask(packed: PackedRows, family: str) -> None:
    model = make(family, SEPARATE[family])
    head = model.get_output_embeddings()
    batch = without_mask(collate([packed[index] for index in range(len(packed))]))
    expected = answer_loss(model, head, batch, 20)
    expected_gradients = gradients(model, [expected])
    assert settle(ROWS, model, two_rows(packed), CPU) == ROWS
    assert model.config._attn_implementation == NAMES[Attention.ROWS]
    with no_masks():
        loss = answer_loss(model, head, {**batch, ARGUMENT: row_lengths(batch["position_ids"])}, 20)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients(model, [loss]), expected_gradients, atol=1e-5, rtol=1e-4)


def test_texts_are_generated_as_without_rows_one_by_one(packed: PackedRows) -> None:
    model = make("qwen3", SEPARATE["qwen3"])
    prompts = {
        "input_ids": torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1] * 5]),
    }
    expected = model.generate(**prompts, max_new_tokens=4, do_sample=False)
    settle(ROWS, model, two_rows(packed), CPU)
    assert torch.equal(model.generate(**prompts, max_new_tokens=4, do_sample=False), expected)


@pytest.mark.parametrize("family", MIXING)
def test_a_model_that_does_not_take_the_rows_keeps_sdpa(packed: PackedRows, family: str) -> None:
    assert settle(ROWS, make(family, MIXING[family]), two_rows(packed), CPU).attention is Attention.SDPA


def test_attention_that_mixes_rows_is_not_taken(packed: PackedRows, monkeypatch: pytest.MonkeyPatch) -> None:
    def mixing(query: Any, key: Any, value: Any, rows: Any, *rest: Any) -> torch.Tensor:
        return row_attention.by_rows(query, key, value, [[sum(lengths)] for lengths in rows], *rest)

    model = make("qwen3", SEPARATE["qwen3"])
    monkeypatch.setattr(choice, "register", lambda: row_attention.register(mixing))
    assert settle(ROWS, model, two_rows(packed), CPU).attention is Attention.SDPA
    assert model.config._attn_implementation == "sdpa"


def test_padding_at_the_end_of_a_sequence_is_one_row() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6, 7]])
    assert row_lengths(positions) == [[3, 2, 3], [8]]


def test_the_loss_of_all_logits_is_that_of_the_labelled_ones(packed: PackedRows) -> None:
    model = make("llama", SEPARATE["llama"])
    batch = without_mask(collate([packed[index] for index in range(len(packed))]))
    for tokens in (None, 20):
        lean = answer_loss(model, model.get_output_embeddings(), batch, tokens)
        torch.testing.assert_close(plain_loss(model, batch, tokens), lean)


def losses(run: Run) -> list[float]:
    run.do(train.run)
    return [entry["loss"] for entry in run.log_history()]


@pytest.mark.parametrize("training", [{"maxSteps": 4, "microBatchSize": 8}, PACKED])
def test_a_fast_run_has_the_losses_of_a_plain_one(tmp_path: Path, tiny: Path, training: dict[str, Any]) -> None:
    fast, plain = (
        make_run(tmp_path / kind, tiny, tinymodel.rows(60), {**training, "kernels": kind}, tuner="lora")
        for kind in ("auto", "plain")
    )
    assert losses(fast) == pytest.approx(losses(plain), rel=TOLERANCE)
    attention = "rows" if "packing" in training else "sdpa"
    assert kernels_of(fast) == {
        "attention": attention, "loss": "logits of labels", "optimizer": "fused", "compile": "false",
    }  # fmt: skip
    assert kernels_of(plain) == {
        "attention": "eager", "loss": "all logits", "optimizer": "not fused", "compile": "false",
    }  # fmt: skip


def kernels_of(run: Run) -> dict[str, str] | None:
    from tunesmith_runtime.train.training_result import read_result

    result = read_result(run.directory)
    assert result
    return result.kernels


@pytest.mark.deep
def test_compiled_layers_have_the_losses_of_others(tmp_path: Path, tiny: Path) -> None:
    compiled, other = (
        make_run(tmp_path / name, tiny, tinymodel.rows(60), {"maxSteps": 4, "compile": flag}, tuner="lora")
        for name, flag in (("compiled", True), ("other", False))
    )
    assert losses(compiled) == pytest.approx(losses(other), rel=TOLERANCE)
    assert (kernels_of(compiled) or {})["compile"] == "true"
