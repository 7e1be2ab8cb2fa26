"""The memory of a device: what makes it larger, what smaller, and that parts add up."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.unit.runtime.estimate.test_architecture import LLAMA_3_1_8B, LLAMA_3_2_3B
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.training import Lora, Strategy, Tuner
from tunesmith_runtime.estimate.architecture import Linear, Place, from_config
from tunesmith_runtime.estimate.memory import NF4_DOUBLE_BYTES, Batch, Numbers, Setup, adapter_size, peak
from tunesmith_runtime.estimate.setup import setup_of
from tunesmith_runtime.estimate.workload import Workload
from tunesmith_runtime.train.tuners import TUNERS

SIZES = from_config(LLAMA_3_2_3B)
BF16 = Numbers(base=2, compute=2)
SETUP = Setup(SIZES, Tuner.LORA, Batch((1024,) * 4, 400), BF16, "nvidia")


def total(**changes: Any) -> int:
    return peak(replace(SETUP, **changes)).beyond_runtime


def test_a_frozen_base_takes_two_bytes_a_parameter_and_trained_weights_sixteen() -> None:
    tiny = {"batch": Batch((8,), 1)}
    lora, full = peak(replace(SETUP, **tiny)), peak(replace(SETUP, tuner=Tuner.FULL, **tiny))
    assert lora.weights == 2 * SIZES.parameters + 4 * SETUP.trained
    assert full.weights + full.gradients + full.optimizer == pytest.approx(16 * SIZES.parameters, rel=0.01)


def test_an_adapter_has_rank_times_the_sides_of_each_layer_it_is_added_to() -> None:
    only = replace(SETUP, targets=("q_proj", "model.layers.0.self_attn.v_proj"), rank=8)
    assert only.trained == 28 * 8 * ((3072 + 3072) + (3072 + 1024))


def test_checkpointing_a_smaller_batch_and_shorter_rows_each_need_less() -> None:
    whole = total()
    assert total(checkpointing=True) < whole
    assert total(batch=Batch((1024,) * 2, 200)) < whole
    assert total(batch=Batch((512,) * 4, 400)) < whole


def test_padding_counts_as_the_longest_row() -> None:
    assert total(batch=Batch((1024, 10, 10, 10), 400)) >= total()


def test_on_a_cpu_logits_grow_with_the_labelled_tokens_alone_until_they_are_computed_in_chunks() -> None:
    cpu = replace(SETUP, accelerator="cpu")
    few, more, chunked = (peak(replace(cpu, batch=Batch((1024,) * 4, labels))) for labels in (100, 200, 4000))
    assert more.logits == pytest.approx(2 * few.logits, rel=0.01)
    assert chunked.logits < 12 * 4000 * SIZES.vocabulary / 4


def test_a_model_with_a_head_has_no_logits_of_the_vocabulary_and_no_output_layer() -> None:
    job = {
        "model": {"uri": "s3://models/m"},
        "datasets": [{"uri": "s3://data/d.jsonl"}],
        "resources": {"accelerator": "nvidia"},
    }
    workload = Workload(64, 64 * 512, (512,) * 8, (512,) * 8, answers=2)
    dpo, reward = (
        setup_of(FineTuneJobSpec.model_validate({**job, "method": method}), from_config(LLAMA_3_1_8B), workload)
        for method in ("orpo", "reward")
    )
    assert peak(dpo).logits > 0
    assert peak(reward).logits == 0
    assert dpo.architecture.parameters - reward.architecture.parameters == 128256 * 4096


def test_the_base_of_qlora_takes_about_half_a_byte_a_parameter() -> None:
    base = from_config(LLAMA_3_1_8B)
    numbers = Numbers(base=2, quantized=NF4_DOUBLE_BYTES, compute=2)
    found = peak(Setup(base, Tuner.QLORA, Batch((8,), 1), numbers, "nvidia"))
    assert found.weights / base.parameters == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("strategy", [Strategy.ZERO2, Strategy.ZERO3, Strategy.FSDP])
def test_sharding_needs_less_than_copies_on_each_device(strategy: Strategy) -> None:
    full = {"tuner": Tuner.FULL, "devices": 8}
    assert total(strategy=strategy, **full) < total(strategy=Strategy.DDP, **full)


def test_fsdp_divides_weights_gradients_and_optimizer_by_the_devices() -> None:
    alone = peak(replace(SETUP, tuner=Tuner.FULL, batch=Batch((8,), 1)))
    shard = peak(replace(SETUP, tuner=Tuner.FULL, batch=Batch((8,), 1), devices=8, strategy=Strategy.FSDP))
    assert 8 * (shard.weights + shard.optimizer) == pytest.approx(alone.weights + alone.optimizer, rel=0.01)


@given(
    lengths=some.lists(some.integers(1, 8192), min_size=1, max_size=16),
    share=some.floats(0, 1),
    tuner=some.sampled_from([Tuner.LORA, Tuner.FULL, Tuner.QLORA]),
    compute=some.sampled_from([2, 4]),
    accelerator=some.sampled_from(["cpu", "nvidia", "ascend"]),
    checkpointing=some.booleans(),
    accumulates=some.booleans(),
    devices=some.integers(1, 64),
    strategy=some.sampled_from([each for each in Strategy if each is not Strategy.AUTO]),
)
def test_no_part_is_negative_and_one_more_row_never_needs_less(
    lengths: list[int], share: float, compute: int, **rest: Any
) -> None:
    labelled = int(share * sum(lengths))
    setup = Setup(SIZES, batch=Batch(tuple(lengths), labelled), numbers=Numbers(base=compute, compute=compute), **rest)
    found = peak(setup)
    assert all(size >= 0 for size in vars(found).values())
    longer = Batch((*lengths, max(lengths)), labelled)
    assert peak(replace(setup, batch=longer)).total >= found.total


@pytest.mark.parametrize("tuner", [each for each in TUNERS if each is not Tuner.FULL])
def test_the_trained_parameters_of_an_adapter_are_those_of_peft(tuner: Tuner) -> None:
    from peft import get_peft_model
    from torch import nn

    linear, lora = Linear("up", 96, 250, Place.MLP), Lora(rank=4)
    job = FineTuneJobSpec.model_validate({"model": {"name": "m"}, "datasets": [{"name": "d"}], "tuner": tuner})
    config = import_module(f"tunesmith_runtime.train.tuners.{tuner}").config(job, lora, ["up"])
    adapted = get_peft_model(nn.ModuleDict({"up": nn.Linear(linear.inputs, linear.outputs)}), config)
    rank = config.init_r if tuner is Tuner.ADALORA else 4
    assert adapter_size(tuner, rank, linear) == sum(each.numel() for each in adapted.parameters() if each.requires_grad)


def test_sampling_caches_the_keys_and_values_of_all_completions() -> None:
    few, many = (total(sampled_rows=rows, checkpointing=True) for rows in (1024, 1025))
    cache = 1024 * 28 * 2 * 8 * 128 * BF16.compute  # tokens, layers, keys and values, heads, their size
    assert cache <= many - few < 2 * cache
    assert few > total(checkpointing=True)


def test_a_value_head_is_trained_in_float32_beside_the_adapter() -> None:
    plain, valued = SETUP, replace(SETUP, has_value_head=True)
    assert valued.trained == plain.trained + SIZES.hidden + 1
    hidden_states = SETUP.batch.labelled * SIZES.hidden * (2 + 4)  # as the head receives them, and in float32
    assert peak(valued).logits == peak(plain).logits + hidden_states
