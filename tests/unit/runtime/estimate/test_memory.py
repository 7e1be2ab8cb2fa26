"""The memory of a device: what makes it larger, what smaller, and that parts add up."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests import tinyvision
from tests.unit.runtime.estimate.test_architecture import LLAMA_3_1_8B, LLAMA_3_2_3B
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.training import Offload, Strategy
from tunesmith_api.tuners import Lora, Tuner
from tunesmith_runtime.estimate.adapter_size import ADAPTER_SIZES
from tunesmith_runtime.estimate.architecture import Linear, Place, Tensor, from_config, with_headers
from tunesmith_runtime.estimate.device_setup import FLOAT32, Batch, Numbers, Setup
from tunesmith_runtime.estimate.memory import NF4_DOUBLE_BYTES, collected, host, peak
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
    trained = full.weights + full.gradients + full.optimizer
    assert SIZES.is_tied  # so that its embedding has a second gradient, as the head
    assert trained == pytest.approx(16 * SIZES.parameters + 4 * SIZES.vocabulary * SIZES.hidden, rel=0.01)


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


def test_devices_that_share_layers_have_a_part_of_each_layer_and_whole_embeddings() -> None:
    whole, half = (peak(replace(SETUP, tuner=Tuner.FULL, devices=2, tensor_parallel=parts)) for parts in (1, 2))
    embeddings, norms = SIZES.vocabulary * SIZES.hidden, SIZES.hidden * (2 * SIZES.layers + 1)
    layers = SIZES.parameters - embeddings - norms
    assert half.weights - whole.weights == pytest.approx(-4 * layers / 2, rel=0.01)
    assert half.optimizer == pytest.approx(8 * (embeddings + layers / 2), rel=0.01)
    assert half.activations < 0.75 * whole.activations


def test_devices_that_have_a_part_of_each_row_keep_its_activations_and_the_keys_of_whole_rows() -> None:
    full = replace(SETUP, tuner=Tuner.FULL, devices=4, batch=Batch((8192,) * 4, 400))
    whole, part = peak(full), peak(replace(full, context_parallel=4))
    keys = 4 * 8192 * SIZES.layers * 2 * 2 * SIZES.key_size
    assert part.activations - keys == pytest.approx((whole.activations - keys) / 4, rel=0.05)
    assert part.weights == whole.weights


def test_the_stages_of_a_pipeline_have_some_layers_each_and_the_first_keeps_a_micro_batch_for_each_stage() -> None:
    full = replace(SETUP, tuner=Tuner.FULL, devices=4, micro_batches=8)
    whole, quarter = peak(replace(full, devices=1)), peak(replace(full, pipeline_parallel=4))
    table = SIZES.vocabulary * SIZES.hidden
    assert quarter.weights + quarter.optimizer == pytest.approx(12 * (table + (SIZES.parameters - table) / 4), rel=0.05)
    assert quarter.buffers == 0
    long = Batch((8192,) * 4, 400)
    kept, one = (
        peak(replace(full, batch=long, pipeline_parallel=4, micro_batches=count)).activations for count in (8, 1)
    )
    assert kept == pytest.approx(4 * one, rel=0.1)
    assert kept == pytest.approx(peak(replace(full, batch=long, devices=1)).activations, rel=0.1)
    assert quarter.total < 0.55 * whole.total


@pytest.mark.parametrize(
    ("strategy", "offload"),
    [(Strategy.ZERO1, Offload.OPTIMIZER), (Strategy.ZERO3, Offload.ALL), (Strategy.FSDP, Offload.ALL)],
)
def test_what_leaves_the_device_is_in_the_memory_of_the_pod(strategy: Strategy, offload: Offload) -> None:
    setup = replace(SETUP, tuner=Tuner.FULL, devices=4, strategy=strategy)
    moved = replace(setup, offload=offload)
    here, there = peak(setup), peak(moved)
    assert there.optimizer == 0
    assert there.total < here.total
    assert host(setup) == 0
    assert host(moved) >= here.optimizer + (here.weights if offload is Offload.ALL else 0)
    on_cpu = replace(moved, accelerator="cpu")
    assert (host(on_cpu), peak(on_cpu)) == (0, peak(replace(setup, accelerator="cpu")))


@pytest.mark.parametrize(
    ("tuner", "division", "numbers"),
    [
        (Tuner.FULL, {"strategy": Strategy.ZERO1}, 8),
        (Tuner.FULL, {"strategy": Strategy.FSDP}, 8),
        (Tuner.FULL, {"tensor_parallel": 4}, 8),
        (Tuner.FULL, {"strategy": Strategy.DDP}, 0),
    ],
)
def test_the_first_process_collects_the_state_of_a_divided_optimizer(
    tuner: Tuner, division: dict[str, Any], numbers: int
) -> None:
    """On a CPU it is in the memory of the process."""
    setup = replace(SETUP, tuner=tuner, devices=4, **division)
    assert collected(setup) == numbers * setup.trained
    assert collected(replace(setup, devices=1, tensor_parallel=1)) == 0
    on_cpu = peak(replace(setup, accelerator="cpu"))
    assert on_cpu.total > collected(setup) + 4 * setup.trained / 4


def test_the_whole_weights_of_a_divided_base_are_collected_at_the_end() -> None:
    setup = replace(SETUP, devices=4, strategy=Strategy.FSDP)
    alone = peak(replace(SETUP, devices=1))
    assert collected(setup) == alone.weights
    assert collected(replace(setup, strategy=Strategy.ZERO2)) == 8 * setup.trained


def test_weights_are_gathered_while_completions_are_sampled() -> None:
    setup = replace(SETUP, devices=4, strategy=Strategy.FSDP, sampled_rows=4096, batch=Batch((64,), 8))
    assert peak(setup).weights == peak(replace(setup, strategy=Strategy.DDP)).weights


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
    micro_batches=some.integers(1, 4),
    context_parallel=some.integers(1, 4),
    pipeline_parallel=some.integers(1, 4),
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


@pytest.mark.parametrize("tuner", ADAPTER_SIZES)
def test_the_trained_parameters_of_an_adapter_are_those_of_peft(tuner: Tuner) -> None:
    from peft import get_peft_model
    from torch import nn

    linear, lora = Linear("up", 96, 250, Place.MLP), Lora(rank=4)
    job = FineTuneJobSpec.model_validate({"model": {"name": "m"}, "datasets": [{"name": "d"}], "tuner": tuner})
    config = import_module(f"tunesmith_runtime.train.tuners.{tuner}").config(job, lora, ["up"])
    adapted = get_peft_model(nn.ModuleDict({"up": nn.Linear(linear.inputs, linear.outputs)}), config)
    rank = config.init_r if tuner is Tuner.ADALORA else 4
    assert ADAPTER_SIZES[tuner].trained(rank, linear) == sum(
        each.numel() for each in adapted.parameters() if each.requires_grad
    )


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


TINY = {
    "model_type": "qwen3", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 128,
}  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "lora",
    [
        {"modulesToSave": ["embed_tokens"]},
        {"modulesToSave": ["lm_head"]},
        {"modulesToSave": ["lm_head", "embed_tokens", "input_layernorm"]},
        {"trainableTokens": ["a", "b", "c"]},
    ],
    ids=str,
)
def test_what_lora_trains_beside_its_layers_is_counted_as_peft_trains_it(lora: dict[str, Any], tied: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = TINY | {"tie_word_embeddings": tied}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**sizes))
    job = FineTuneJobSpec.model_validate(
        {"model": {"uri": "s3://models/m"}, "datasets": [{"uri": "s3://data/d"}], "lora": lora}
    )
    trained = TUNERS[Tuner.LORA].apply(model, job, None, range(len(lora.get("trainableTokens", ()))))
    counted = setup_of(job, from_config(sizes), Workload(8, 8, (8,), (8,))).trained
    assert counted == sum(each.numel() for each in trained.parameters() if each.requires_grad)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "parts", [["embeddings"], ["embeddings", "head"], ["layers:0"], ["layers:0-1", "pattern:x"]], ids=str
)
def test_frozen_parts_have_neither_gradients_nor_optimizer_state(parts: list[str], tied: bool) -> None:
    sizes = from_config(LLAMA_3_2_3B | {"tie_word_embeddings": tied})
    job = {"model": {"uri": "s3://models/m"}, "datasets": [{"uri": "s3://data/d"}], "tuner": "full"}
    whole, less = (
        setup_of(FineTuneJobSpec.model_validate({**job, "training": training}), sizes, Workload(8, 8, (8,), (8,)))
        for training in ({}, {"freeze": parts})
    )
    table = sizes.vocabulary * sizes.hidden
    tables = {"embeddings": table, "head": 0 if tied else table}
    layers = {"layers:0": 1, "layers:0-1": 2}
    frozen = sum(tables.get(part, layers.get(part, 0) * sizes.largest_layer) for part in parts)
    assert whole.trained - less.trained == frozen
    assert peak(whole).weights == pytest.approx(peak(less).weights, rel=0.3)
    assert peak(whole).optimizer - peak(less).optimizer == 8 * frozen


@pytest.mark.parametrize("family", ["qwen3_vl", "llava"])
@pytest.mark.parametrize("tuner", ["lora", "full"])
@pytest.mark.parametrize("freeze", [["vision"], ["language", "aligner"]], ids=str)
def test_the_trained_weights_of_a_multimodal_model_are_those_of_the_parts_that_learn(
    family: str, tuner: str, freeze: list[str]
) -> None:
    job = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "s3://models/m"},
            "datasets": [{"uri": "s3://data/d"}],
            "tuner": tuner,
            "training": {"freeze": freeze, "precision": "fp32"},
        }
    )
    model = tinyvision.skeleton(family)
    files = {name: weight for name, weight in model.state_dict().items() if name not in model.all_tied_weights_keys}
    tensors = [Tensor(name, "F32", tuple(weight.shape)) for name, weight in files.items()]
    sizes = with_headers(from_config(model.config.to_dict()), tensors)
    setup = setup_of(job, sizes, Workload(8, 8, (8,), (8,)))
    trained = TUNERS[job.tuner].apply(model, job, None, ())
    assert setup.trained == sum(each.numel() for each in trained.parameters() if each.requires_grad)
    beside = sizes.other_parameters if tuner == "lora" else sizes.other_parameters - setup.trained_beside
    frozen = setup.frozen if tuner == "full" else sizes.parameters
    assert peak(setup).weights == FLOAT32 * (setup.trained + beside + frozen)


def test_a_start_that_changes_the_base_loads_it_in_float32() -> None:
    job = {
        "model": {"uri": "s3://models/m"},
        "datasets": [{"uri": "s3://data/d"}],
        "resources": {"accelerator": "nvidia"},
    }
    plain, changed = (
        setup_of(FineTuneJobSpec.model_validate({**job, "lora": {"init": start}}), SIZES, Workload(8, 8, (8,), (8,)))
        for start in ("default", "pissa")
    )
    assert peak(changed).weights - peak(plain).weights == 2 * SIZES.parameters
