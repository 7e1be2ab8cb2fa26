"""Orthogonal finetuning (Qiu et al., 2023, https://arxiv.org/abs/2306.07280; Qiu et al., 2025, https://arxiv.org/abs/2506.19847): the
inputs of a layer are rotated, in blocks of `rank` inputs that each have a trained rotation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import Lora
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.tuners.adapter import adapter_tuner, check_adapter

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> PeftConfig:
    """Return PEFT's configuration. `lora.rank` is the size of a block, and `lora.dropout` the share of blocks that rest in a step."""
    from peft import OFTConfig

    return OFTConfig(r=0, oft_block_size=lora.rank, module_dropout=lora.dropout, target_modules=targets)


def check(model: PreTrainedModel, job: FineTuneJobSpec, tokens: Sequence[int] = ()) -> None:
    """Refuse blocks that do not divide the inputs of a layer: PEFT would choose other blocks. Adapts `model`."""
    from peft.tuners.oft import OFTLayer

    check_adapter(model, job, make_config=config)
    rank = (job.lora or Lora()).rank
    layers = {
        name.rsplit(".", 1)[-1]: each.in_features for name, each in model.named_modules() if isinstance(each, OFTLayer)
    }
    faults = [f"the {inputs} inputs of {name}" for name, inputs in layers.items() if inputs % rank]
    if faults or rank < 2:
        common = math.gcd(*layers.values())
        largest = next(size for size in range(min(rank, common), 0, -1) if common % size == 0)
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"lora.rank {rank} is the size of blocks with tuner oft, and divides {'no layer' if rank < 2 else 'neither ' + ' nor '.join(faults)}",
            f"set spec.lora.rank to a common divisor of all inputs, such as {max(largest, 2)}",
        )


OFT = adapter_tuner(TunerName.OFT, config, check=check)
