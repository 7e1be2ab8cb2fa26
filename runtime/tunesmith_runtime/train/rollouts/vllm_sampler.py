"""vLLM in the process of a training (https://docs.vllm.ai): it samples on the same device, with the weights of the step."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rollouts.sampler import Sampling, until_end

if TYPE_CHECKING:
    from tunesmith_api.methods import Rollouts
    from tunesmith_runtime.train.methods.base import Setup

SHARE = 0.3
"""Default share of the device's memory."""


def engine_arguments(model: Path, longest: int, share: float, bf16: bool, trusted: bool) -> dict[str, Any]:
    """Return vLLM's arguments. `longest`: maximum number of tokens of prompt and completion together."""
    return {
        "model": str(model),
        "dtype": "bfloat16" if bf16 else "float32",
        "max_model_len": longest,
        "gpu_memory_utilization": share,
        "generation_config": "vllm",  # the probabilities of the model, whatever its generation_config.json says
        "skip_tokenizer_init": True,
        "trust_remote_code": trusted,
    }


def sampling_arguments(sampling: Sampling, seed: str) -> dict[str, Any]:
    """Return vLLM's arguments for a completion with its own random numbers."""
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop_token_ids": list(sampling.stop_ids),
        "seed": random.Random(seed).getrandbits(32),
        "detokenize": False,
    }


class VllmSampler:
    """An engine that holds a copy of the model. Its worker is in this process, so that its weights can be replaced."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Load the model. Raises RunFailure (BadSpec) in an image without vLLM."""
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        try:
            from vllm import LLM
        except ImportError as error:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"engine vllm is not in this image: {error}",
                "build images.engines.vllm from the lock vllm (docs/images.md), or set the method's engine: transformers",
            ) from error
        self._llm: Any = LLM(**arguments)

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the weights, which have the names of the model's files."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self._llm.reset_prefix_cache()  # it was computed with other weights

    def sample_rows(self, rows: Sequence[Mapping[str, Any]], sampling: Sampling, seed: int) -> list[list[int]]:
        """Return the tokens of a completion of each row of `Prompts`, up to and with the first that ends it."""
        from vllm import SamplingParams

        outputs = self._llm.generate(
            [{"prompt_token_ids": list(row["input_ids"])} for row in rows],
            [SamplingParams(**sampling_arguments(sampling, f"{seed} {row['index']}")) for row in rows],
            use_tqdm=False,
        )
        return [until_end(list(output.outputs[0].token_ids), sampling.stop_ids) for output in outputs]


def open_sampler(setup: Setup, rollouts: Rollouts) -> VllmSampler:
    """Return the engine that samples for a run. Raises RunFailure (BadSpec) in an image without vLLM."""
    prompts: Any = setup.train_dataset
    longest = max(prompts.lengths) + rollouts.max_completion_length
    share = rollouts.gpu_memory_share or SHARE
    bf16, trusted = bool(setup.arguments["bf16"]), setup.job.model.trust_remote_code
    return VllmSampler(engine_arguments(setup.work.model(), longest, share, bf16, trusted))
