"""Memory that others have measured on GPUs and published, beside the estimate of the same setup: within 25 %.

Sources: torchtune's README (bd2a0fc), fms-acceleration's benchmark tables, PEFT's method_comparison (2026-07). Figures are peaks
of torch's allocator, without the context of the device. Where a source leaves the length of rows open, the assumption is named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.unit.runtime.estimate.test_architecture import LLAMA_3_2_3B, MISTRAL_7B
from tunesmith_api.tuners import Tuner
from tunesmith_runtime.estimate.architecture import from_config
from tunesmith_runtime.estimate.device_setup import Batch, Numbers, Setup
from tunesmith_runtime.estimate.memory import GIB, NF4_DOUBLE_BYTES, peak

BF16 = Numbers(base=2, compute=2, trained=2, gradient=2, optimizer=4)
"""Everything in bfloat16, as torchtune and PEFT's comparison train."""
ADAPTER_FP32 = Numbers(base=2, compute=2)
"""A base in bfloat16 with adapters in float32, as PEFT's autocast_adapter_dtype makes them."""

QUANTIZED = replace(ADAPTER_FP32, quantized=NF4_DOUBLE_BYTES)
"""The same with linear layers in NF4, with double quantization."""


@dataclass(frozen=True)
class Published:
    """A published figure in GiB, and the setup that it was measured with."""

    name: str
    gib: float
    config: dict[str, Any]
    tuner: Tuner
    rows: int
    length: int
    numbers: Numbers
    labelled: float = 1.0
    """Share of the tokens with a label."""
    more: tuple[tuple[str, Any], ...] = ()


GB = 1e9 / GIB
FIGURES = [
    Published("torchtune full, packed", 60.0, LLAMA_3_2_3B, Tuner.FULL, 2, 4096, BF16),
    Published("torchtune full, packed, chunked loss", 42.9, LLAMA_3_2_3B, Tuner.FULL, 2, 4096, BF16, 0.0),
    Published(
        "torchtune full, packed, chunked loss, checkpointing", 24.9, LLAMA_3_2_3B, Tuner.FULL, 2, 4096, BF16, 0.0,
        (("checkpointing", True),),
    ),
    Published(
        "torchtune LoRA, packed, chunked loss, checkpointing", 8.5, LLAMA_3_2_3B, Tuner.LORA, 2, 4096, BF16, 0.0,
        (("checkpointing", True), ("rank", 64)),
    ),
    Published(
        "torchtune QLoRA, packed, chunked loss, checkpointing", 4.6, LLAMA_3_2_3B, Tuner.QLORA, 2, 4096,
        replace(BF16, quantized=NF4_DOUBLE_BYTES), 0.0,
        (("checkpointing", True), ("rank", 64)),
    ),
    Published(
        "fms-acceleration Mistral 7B LoRA, 4 rows", 26.1 * GB, MISTRAL_7B, Tuner.LORA, 4, 4096, ADAPTER_FP32, 1.0,
        (("checkpointing", True),),
    ),
    Published(
        "fms-acceleration Mistral 7B LoRA, 8 rows", 37.1 * GB, MISTRAL_7B, Tuner.LORA, 8, 4096, ADAPTER_FP32, 1.0,
        (("checkpointing", True),),
    ),
    Published(
        "fms-acceleration Mistral 7B QLoRA nf4, 4 rows", 15.9 * GB, MISTRAL_7B, Tuner.QLORA, 4, 4096, QUANTIZED, 1.0,
        (("checkpointing", True),),
    ),
    # MetaMathQA rows have up to 768 tokens in this comparison.
    Published("PEFT LoRA r32, L40S", 20.8, LLAMA_3_2_3B, Tuner.LORA, 4, 768, ADAPTER_FP32, 1.0, (("rank", 32), ("targets", ("q_proj", "v_proj")))),
    Published("PEFT full, L40S", 36.2, LLAMA_3_2_3B, Tuner.FULL, 4, 768, BF16),
]  # fmt: skip


def estimated_gib(figure: Published) -> float:
    """The estimate in GiB, beyond the context of the device. Published losses hold all logits unless they are chunked."""
    tokens = figure.rows * figure.length
    setup = Setup(
        architecture=from_config(figure.config),
        tuner=figure.tuner,
        batch=Batch((figure.length,) * figure.rows, round(tokens * figure.labelled)),
        numbers=figure.numbers,
        accelerator="ascend",  # whose loss holds all logits, as that of the published runs
        logits_limit=1 << 60,
        **dict(figure.more),
    )
    return peak(setup).beyond_runtime / GIB


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_published_peaks_are_estimated_within_a_quarter(figure: Published) -> None:
    assert estimated_gib(figure) == pytest.approx(figure.gib, rel=0.25)


if __name__ == "__main__":
    for each in FIGURES:
        found = estimated_gib(each)
        print(
            f"{each.name:55} published {each.gib:6.1f}  estimated {found:6.1f}  {100 * (found / each.gib - 1):+5.0f} %"
        )
