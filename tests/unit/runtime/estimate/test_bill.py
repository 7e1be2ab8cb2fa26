"""The estimate of a job: its line, steps and tokens, and the changes with which it fits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.unit.runtime.estimate.test_architecture import LLAMA_3_1_8B, LLAMA_3_2_3B
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.finetunejob_status import Estimate
from tunesmith_api.training import Strategy
from tunesmith_runtime.estimate.architecture import from_config
from tunesmith_runtime.estimate.bill import Inputs, estimate, refusal
from tunesmith_runtime.estimate.device_setup import Setup
from tunesmith_runtime.estimate.duration import in_words
from tunesmith_runtime.estimate.memory import GIB, peak
from tunesmith_runtime.estimate.setup import setup_of
from tunesmith_runtime.estimate.workload import count

ON_L4: dict[str, Any] = {
    "resources": {"accelerator": "nvidia"},
    "pod": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}},
}


def job(**spec: Any) -> FineTuneJobSpec:
    whole = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/train.jsonl"}], **spec}
    return FineTuneJobSpec.model_validate(whole)


def estimated(config: dict[str, Any], rows: int, length: int, **spec: Any) -> tuple[FineTuneJobSpec, Estimate]:
    wanted = job(**spec)
    workload = count([length] * rows, [length // 4] * rows)
    return wanted, estimate(Inputs(wanted, from_config(config), workload, data_bytes=1000))


def test_the_line_names_memory_time_and_device() -> None:
    _, found = estimated(LLAMA_3_2_3B, 10_000, 1000, training={"microBatchSize": 2}, **ON_L4)
    assert found.summary is not None
    assert found.summary.startswith(f"needs {(found.memory_bytes or 0) / GIB:.1f} of 22.5 GiB on each device; about ")
    assert found.summary.endswith(" on one L4")
    assert found.device == "L4"
    assert found.hours == found.accelerator_hours
    assert sum((found.memory.to_dict() if found.memory else {}).values()) == found.memory_bytes


def test_a_device_that_nothing_names_is_the_smallest_that_holds_the_run() -> None:
    _, found = estimated(LLAMA_3_1_8B, 100, 500, resources={"accelerator": "nvidia", "count": 4})
    assert found.summary is not None
    assert " on 4 x " in found.summary
    assert found.summary.endswith(", the smallest known device with that memory")
    assert found.device_memory_bytes is None


def test_steps_and_tokens_of_counted_rows_are_exact() -> None:
    _, found = estimated(LLAMA_3_2_3B, 100, 50, training={"epochs": 3, "globalBatchSize": 16})
    assert (found.steps, found.tokens, found.sampled) == (21, 3 * 100 * 50, None)
    _, capped = estimated(LLAMA_3_2_3B, 100, 50, training={"maxSteps": 10, "globalBatchSize": 16})
    assert (capped.steps, capped.tokens) == (10, 100 * 50 + 3 * 16 * 50)


def test_a_cpu_job_is_compared_with_the_memory_of_its_pod_and_has_no_hours() -> None:
    _, found = estimated(LLAMA_3_2_3B, 100, 50, resources={"memory": "4Gi"})
    assert found.device_memory_bytes == 4 << 30
    assert found.hours is None
    assert found.summary is not None
    assert found.summary.startswith("will not fit: needs ")
    assert found.summary.endswith(" of 4 GiB; 7 steps")


def test_the_cheapest_changes_come_first_and_making_them_makes_the_job_fit() -> None:
    spec = {"training": {"globalBatchSize": 16, "microBatchSize": 16}, **ON_L4}
    wanted, found = estimated(LLAMA_3_1_8B, 100, 1000, **spec)
    assert found.changes is not None
    assert found.changes[0].startswith("spec.training.microBatchSize: ")
    size = int(found.changes[0].split()[1])
    changed = {"globalBatchSize": 16, "microBatchSize": size, "gradientCheckpointing": len(found.changes) > 1}
    _, again = estimated(LLAMA_3_1_8B, 100, 1000, **{**spec, "training": changed})
    assert (again.memory_bytes or 0) <= (again.device_memory_bytes or 0)
    assert again.changes is None
    refused = refusal(wanted, found)
    assert refused is not None
    assert "which has 22.5 GiB: " in refused.message
    assert refused.hint.startswith("set spec.training.microBatchSize: ")


def test_full_tuning_of_8_billion_parameters_on_a_small_device_ends_with_an_adapter() -> None:
    _, found = estimated(LLAMA_3_1_8B, 100, 512, tuner="full", **ON_L4)
    assert found.changes is not None
    assert found.changes[-1].startswith("spec.tuner: lora ")


def test_where_no_change_is_enough_the_hint_names_the_memory_that_is() -> None:
    spec = {"resources": {"accelerator": "nvidia", "deviceMemory": "4Gi"}}
    wanted, found = estimated(LLAMA_3_1_8B, 100, 512, **spec)
    refused = refusal(wanted, found)
    assert found.changes is None
    assert refused is not None
    gib = int(refused.hint.rsplit(" ", 1)[1].removesuffix("Gi"))
    enough, again = estimated(LLAMA_3_1_8B, 100, 512, resources={"accelerator": "nvidia", "deviceMemory": f"{gib}Gi"})
    assert refusal(enough, again) is None


def test_devices_that_share_layers_need_less_each_and_the_line_says_so() -> None:
    resources = {"accelerator": "nvidia", "count": 4}
    apart, shared = (
        estimated(LLAMA_3_1_8B, 64, 512, resources=resources, tuner="full", parallelism={"tensorParallel": sharing})[1]
        for sharing in (1, 4)
    )
    assert shared.summary
    assert shared.summary.endswith("; 4 devices share each layer")
    assert shared.strategy is Strategy.DDP
    assert (shared.memory_bytes or 0) < 0.5 * (apart.memory_bytes or 0)
    assert shared.trained_parameters == apart.trained_parameters == shared.parameters


def test_the_stages_of_a_pipeline_need_less_each_and_the_line_says_how_long_they_wait() -> None:
    spec = {"resources": {"accelerator": "nvidia", "count": 4}, "tuner": "full"}
    apart, few, many = (
        estimated(LLAMA_3_1_8B, 64, 512, **spec, training=training, parallelism={"pipelineParallel": stages})[1]
        for stages, training in ((1, {}), (4, {}), (4, {"globalBatchSize": 64, "microBatchSize": 1}))
    )
    assert few.summary
    assert many.summary
    assert few.summary.endswith("; 4 devices have some layers each, and wait for each other in 43% of a step")
    assert many.summary.endswith(" in 4% of a step")
    assert (few.memory_bytes or 0) < 0.5 * (apart.memory_bytes or 0)
    assert (few.hours or 0) > (apart.hours or 0)
    assert few.trained_parameters == few.parameters


def test_offloading_is_compared_with_the_memory_of_the_pod() -> None:
    resources = {"accelerator": "nvidia", "count": 4, "memory": "16Gi", "deviceMemory": "80Gi"}
    wanted, found = estimated(
        LLAMA_3_1_8B, 64, 512, tuner="full", resources=resources, parallelism={"strategy": "zero3", "offload": "all"}
    )
    assert found.summary
    assert "GiB of the pod's memory for each" in found.summary
    refused = refusal(wanted, found)
    assert refused
    assert refused.message.startswith("what is offloaded, and what the first pod collects")
    assert refused.message.endswith("GiB of the memory of a pod, and resources.memory is 16Gi")
    room = int(re.findall(r"(\d+)Gi", refused.hint)[0]) + 1
    enough = wanted.model_copy(update={"resources": wanted.resources.model_copy(update={"memory": f"{room}Gi"})})
    assert refusal(enough, found) is None


def test_a_job_that_fits_is_not_refused() -> None:
    wanted, found = estimated(LLAMA_3_2_3B, 10, 100, training={"microBatchSize": 1}, **ON_L4)
    assert refusal(wanted, found) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (45, "45 s"), (600, "10 min"), (11_400, "3 h 10 min"), (7200, "2 h"), (187_200, "2 d 4 h")],
)
def test_durations_are_written_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("qlora", "bytes_of_a_weight"),
    [({}, 0.516), ({"doubleQuantization": False}, 0.5625), ({"quantization": "int8"}, 1.0)],
)
def test_qlora_holds_quantized_layers_beside_embeddings_and_head_in_float32(
    qlora: dict[str, Any], bytes_of_a_weight: float
) -> None:
    sizes = from_config(LLAMA_3_1_8B)
    _, found = estimated(LLAMA_3_1_8B, 100, 8, tuner="qlora", qlora=qlora, lora={"rank": 1})
    quantized = sizes.layers * sum(each.parameters for each in sizes.linears)
    expected = bytes_of_a_weight * quantized + 4 * (sizes.parameters - quantized)
    assert found.memory is not None
    assert (found.memory.weights or 0) == pytest.approx(expected, rel=0.01)


def test_a_change_to_qlora_is_proposed_only_where_it_is_accepted() -> None:
    on = {"deviceMemory": "12Gi"}
    _, found = estimated(LLAMA_3_1_8B, 100, 500, resources={"accelerator": "nvidia", **on})
    assert any("tuner: qlora" in each for each in found.changes or [])
    _, refused = estimated(LLAMA_3_1_8B, 100, 500, resources={"accelerator": "ascend", **on})
    assert not any("qlora" in each for each in refused.changes or [])


TWO_L4: dict[str, Any] = {**ON_L4, "resources": {"accelerator": "nvidia", "count": 2}}


def test_auto_takes_the_strategy_with_the_least_communication_that_fits_and_says_why() -> None:
    _, small = estimated(LLAMA_3_2_3B, 100, 100, training={"microBatchSize": 1}, **TWO_L4)
    assert small.strategy is Strategy.DDP
    assert "strategy" not in (small.summary or "")
    _, large = estimated(LLAMA_3_1_8B, 100, 100, training={"microBatchSize": 1, "precision": "fp32"}, **TWO_L4)
    assert large.strategy is Strategy.FSDP
    assert (large.memory_bytes or 0) <= (large.device_memory_bytes or 0)
    assert re.search(r"; strategy fsdp, as ddp needs 3\d\.\d GiB$", large.summary or "")


def test_auto_divides_nothing_that_needs_whole_weights_or_without_a_limit() -> None:
    large = {"training": {"microBatchSize": 1, "precision": "fp32", "optimizer": "adafactor"}}
    _, whole = estimated(LLAMA_3_1_8B, 100, 100, **large, **TWO_L4)
    assert whole.strategy is Strategy.DDP
    _, unknown = estimated(LLAMA_3_1_8B, 100, 100, resources={"accelerator": "nvidia", "count": 2})
    assert unknown.strategy is Strategy.DDP
    _, alone = estimated(LLAMA_3_1_8B, 100, 100, **ON_L4)
    assert alone.strategy is None


def test_offloading_is_proposed_where_the_pod_has_room_for_it_and_makes_the_job_fit() -> None:
    settings = {"microBatchSize": 1, "gradientCheckpointing": True}

    def found(parallelism: dict[str, Any], **resources: Any) -> tuple[FineTuneJobSpec, Estimate]:
        on = {"accelerator": "ascend", "count": 2, "deviceMemory": "22.5Gi", **resources}
        spec = {"training": settings, "lora": {"rank": 256}, "parallelism": parallelism, "resources": on}
        return estimated(LLAMA_3_1_8B, 100, 100, **spec)

    (change,) = found({"strategy": "ddp"})[1].changes or []
    assert change.startswith("spec.parallelism.strategy: zero1 and spec.parallelism.offload: optimizer (needs ")
    assert refusal(*found({"strategy": "zero1", "offload": "optimizer"})) is None
    for memory in ("8Gi", "256Gi"):
        proposed = found({"strategy": "ddp"}, memory=memory)[1].changes
        assert (proposed is None) is (memory == "8Gi")


def test_muon_keeps_one_moment_of_matrices_and_two_of_embeddings() -> None:
    sizes = from_config(LLAMA_3_2_3B)
    _, found = estimated(LLAMA_3_2_3B, 100, 8, tuner="full", training={"optimizer": "muon"})
    assert found.memory is not None
    assert found.memory.optimizer == pytest.approx(4 * (sizes.parameters + 128256 * 3072), rel=0.001)


def test_ppo_has_a_value_head_a_reference_and_the_cache_of_a_rollout() -> None:
    rewards = [{"name": "short", "type": "length", "freeTokens": 4}]

    def setup(**ppo: Any) -> Setup:
        spec = job(method="ppo", ppo=ppo, rewards=rewards, training={"globalBatchSize": 4})
        return setup_of(spec, from_config(LLAMA_3_1_8B), count([64] * 32, [8] * 32))

    found = setup(minibatches=3)
    assert (found.has_value_head, found.has_reference, found.sampled_rows) == (True, True, 12)
    assert not setup(klCoefficient=0).has_reference


def test_a_precomputed_reference_takes_no_memory_and_one_pass_over_the_rows() -> None:
    def setup(epochs: int, **dpo: Any) -> Setup:
        training = {"globalBatchSize": 4, "epochs": epochs}
        spec = job(method="dpo", tuner="full", dpo=dpo, training=training)
        return setup_of(spec, from_config(LLAMA_3_1_8B), count([64] * 32, [8] * 32))

    copied, precomputed = setup(4), setup(4, precomputeReference=True)
    assert (copied.reference_passes, precomputed.reference_passes) == (1, 0.25)
    assert setup(4, referenceFree=True).reference_passes == 0
    assert peak(copied).weights - peak(precomputed).weights == 2 * from_config(LLAMA_3_1_8B).parameters
