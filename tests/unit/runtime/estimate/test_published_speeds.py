"""Throughputs that others have measured on GPUs and published, beside the estimate of the same setup.

Sources: NeMo Automodel's performance summary (2026-06), torchtitan's docs, fms-fsdp's and torchtune's READMEs, fms-acceleration's
benchmark tables, PEFT's method_comparison (2026-07: 840 tokens a step in 4 rows). `python -m` prints the table of docs/estimate.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.runtime.estimate.test_architecture import LLAMA_3_1_8B, LLAMA_3_2_3B, MISTRAL_7B, QWEN2_5_7B
from tests.unit.runtime.estimate.test_published import ADAPTER_FP32, BF16
from tunesmith_api.tuners import Tuner
from tunesmith_runtime.estimate.architecture import from_config
from tunesmith_runtime.estimate.device_setup import Batch, Setup
from tunesmith_runtime.estimate.devices import DEVICES
from tunesmith_runtime.estimate.duration import seconds

LLAMA_2_7B = {**MISTRAL_7B, "intermediate_size": 11008, "num_key_value_heads": 32}
LLAMA_3_70B = {
    **LLAMA_3_1_8B, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
}  # fmt: skip
QWEN2_5_32B = {
    **QWEN2_5_7B, "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40,
    "num_key_value_heads": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A published throughput in tokens per second and GPU, and the setup that it was measured with."""

    name: str
    tokens_per_second: float
    device: str
    config: dict[str, Any]
    tuner: Tuner
    rows: int = 2
    length: int = 4096
    more: tuple[tuple[str, Any], ...] = ()


CHECKPOINTING = ("checkpointing", True)
NARROW = (("rank", 32), ("targets", ("q_proj", "v_proj")))
ONE_GPU = [
    Published("NeMo Automodel, Llama 3 8B, LoRA", 12473, "H100", LLAMA_3_1_8B, Tuner.LORA),
    Published("NeMo Automodel, Qwen2.5 7B, LoRA", 14110, "H100", QWEN2_5_7B, Tuner.LORA),
    Published("torchtune, Llama 3.2 3B, full, packed", 7075, "A100 80 GB", LLAMA_3_2_3B, Tuner.FULL),
    Published(
        "fms-acceleration, Mistral 7B, full, checkpointing", 2775, "A100 80 GB", MISTRAL_7B, Tuner.FULL, 4,
        more=(CHECKPOINTING,),
    ),
    Published(
        "fms-acceleration, Mistral 7B, LoRA, checkpointing", 3598, "A100 80 GB", MISTRAL_7B, Tuner.LORA, 4,
        more=(CHECKPOINTING,),
    ),
    Published(
        "fms-acceleration, Mistral 7B, QLoRA, checkpointing", 2749, "A100 80 GB", MISTRAL_7B, Tuner.QLORA, 4,
        more=(CHECKPOINTING,),
    ),
    Published("PEFT, Llama 3.2 3B, LoRA, short rows", 4457, "L40S", LLAMA_3_2_3B, Tuner.LORA, 4, 210, NARROW),
    Published("PEFT, Llama 3.2 3B, full, short rows", 1955, "L40S", LLAMA_3_2_3B, Tuner.FULL, 4, 210),
]  # fmt: skip
"""One GPU, without torch.compile: the trainings that the constants are fitted to."""
OTHERS = [
    Published("NeMo Automodel, Llama 3 70B, LoRA, 8 GPUs", 1092, "H100", LLAMA_3_70B, Tuner.LORA, 1),
    Published("NeMo Automodel, Qwen2.5 32B, LoRA, 8 GPUs", 2250, "H100", QWEN2_5_32B, Tuner.LORA, 1),
    Published("torchtitan, Llama 3.1 8B, full, 8 GPUs", 5762, "H100", LLAMA_3_1_8B, Tuner.FULL, 1, 8192),
    Published("fms-fsdp, Llama 2 7B, full, many GPUs", 7500, "H100", LLAMA_2_7B, Tuner.FULL),
    Published("fms-fsdp, Llama 2 7B, full, many GPUs", 3700, "A100 80 GB", LLAMA_2_7B, Tuner.FULL),
    Published("torchtune, Llama 3.2 3B, full, compiled", 8998, "A100 80 GB", LLAMA_3_2_3B, Tuner.FULL),
    Published(
        "torchtune, Llama 3.2 3B, LoRA, compiled, checkpointing", 8210, "A100 80 GB", LLAMA_3_2_3B, Tuner.LORA,
        more=(CHECKPOINTING, ("rank", 64)),
    ),
]  # fmt: skip
"""What the model leaves out: communication between GPUs, and fused kernels."""


def estimated(figure: Published) -> float:
    """The estimated tokens per second and GPU, over a step of one micro batch."""
    tokens = figure.rows * figure.length
    numbers = BF16 if figure.tuner is Tuner.FULL else ADAPTER_FP32
    setup = Setup(
        architecture=from_config(figure.config),
        tuner=figure.tuner,
        batch=Batch((figure.length,) * figure.rows, tokens),
        numbers=numbers,
        accelerator="nvidia",
        **dict(figure.more),
    )
    device = next(each for each in DEVICES if each.name == figure.device)
    return tokens / seconds(setup, tokens, figure.length, 1, device)


@pytest.mark.parametrize("figure", ONE_GPU, ids=lambda figure: figure.name)
def test_published_throughputs_of_one_gpu_are_estimated_within_a_quarter(figure: Published) -> None:
    assert estimated(figure) == pytest.approx(figure.tokens_per_second, rel=0.25)


@pytest.mark.parametrize("figure", OTHERS, ids=lambda figure: f"{figure.name}, {figure.device}")
def test_published_throughputs_with_communication_or_fused_kernels_are_estimated_within_two_fifths(
    figure: Published,
) -> None:
    assert estimated(figure) == pytest.approx(figure.tokens_per_second, rel=0.4)


if __name__ == "__main__":
    for each in (*ONE_GPU, *OTHERS):
        found = estimated(each)
        error = 100 * (found / each.tokens_per_second - 1)
        print(f"| {each.name} | {each.device} | {each.tokens_per_second:,.0f} | {found:,.0f} | {error:+.0f} % |")
