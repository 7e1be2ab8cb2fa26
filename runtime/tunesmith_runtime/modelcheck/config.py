"""Reads config.json: quantization of the weights, and the number of positions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.failure import bad_model
from tunesmith_runtime.modelcheck.files import parse_json
from tunesmith_runtime.tasks import LANGUAGE, Task

CONFIG = "config.json"
QUANTIZATIONS = ("quantization_config", "compression_config", "quantization")
"""Keys of quantization settings in config.json: transformers, compressed-tensors, MLX."""
HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
"""Endings of architectures with a head in the place of the output layer."""
SCORES = (
    "name a model with one score (num_labels: 1), such as the artifact rewardModel of a FineTuneJob of method reward"
)
BODY = re.compile(r"(?<!LMHead)(?<!DoubleHeads)Model$")
"""Ending of architectures without an output layer, such as embedding models. Code of a repository may name others so."""
SIDE_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
"""Files with the quantization settings of older tools -> tool."""
POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
    "max_target_positions",
)


@dataclass(frozen=True)
class Limits:
    """Limits of a model: tokens of a row, and rows of its embedding; None if unknown."""

    positions: int | None = None
    vocabulary: int | None = None

    def behind(self, tokens: int) -> Limits:
        """Return the limits of rows behind `tokens` positions that are taken."""
        return self if self.positions is None else replace(self, positions=max(1, self.positions - tokens))


NO_LIMITS = Limits()


def read_config(uri: str, directory: Path) -> dict[str, Any]:
    """Return config.json, with the quantization settings of a side file. Raises RunFailure (BadModel)."""
    config = parse_config(uri, (directory / CONFIG).read_bytes())
    for name, method in SIDE_FILES.items():
        if (directory / name).is_file():
            config.setdefault("quantization_config", {"quant_method": method})
    return config


def parse_config(uri: str, content: bytes) -> dict[str, Any]:
    """Parse the content of config.json. Raises RunFailure (BadModel)."""
    return parse_json(uri, CONFIG, content)


def quantization(config: Mapping[str, Any]) -> str | None:
    """Return the quantization method of a model's weights; None if they are not quantized."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key in QUANTIZATIONS:
            found = part.get(key)
            if found:
                return (
                    str(found.get("quant_method") or found.get("quant_algo") or key) if isinstance(found, dict) else key
                )
    return None


def refuse_quantized(uri: str, config: Mapping[str, Any]) -> None:
    """Raise RunFailure (BadModel) for a model whose weights are quantized."""
    if (method := quantization(config)) is not None:
        raise quantized(uri, method)


def refuse_head(uri: str, config: Mapping[str, Any]) -> None:
    """Raise RunFailure (BadModel) for a model that scores, classifies or embeds text instead of writing it."""
    named = config.get("architectures")
    names = map(str, named if isinstance(named, list) else [])
    found = (name for name in names if name.endswith(HEADS) or (BODY.search(name) and "auto_map" not in config))
    if (name := next(found, None)) is not None:
        raise bad_model(uri, CONFIG, f"the model is a {name}, which writes no text", "name a model that continues text")


def check_task(uri: str, config: Mapping[str, Any], task: Task) -> None:
    """Raise RunFailure (BadModel) for a model of another task: one that writes no text, or no score."""
    if task is LANGUAGE:
        refuse_head(uri, config)
        return
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else "model without architectures"
    if not str(name).endswith(HEADS[0]):
        raise bad_model(uri, CONFIG, f"the model is a {name}, which scores no answers", SCORES)
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if count != 1:
        raise bad_model(
            uri, CONFIG, f"the model is a {name} with {count} labels, and a reward is a single score", SCORES
        )


def quantized(uri: str, method: str) -> RunFailure:
    """Return the failure of a quantized model where quantized models are not supported."""
    return bad_model(
        uri,
        CONFIG,
        f"the model is quantized ({method})",
        "name the unquantized model; only the engines lmdeploy, vllm and sglang serve quantized models",
    )


def positions(config: Any) -> int | None:
    """Return how many positions the model of a transformers config has; None if they are unlimited.

    YaRN multiplies the original number by a factor (https://arxiv.org/abs/2309.00071).
    """
    text = config.get_text_config()
    found = (getattr(text, name, None) for name in POSITIONS)
    own = next((length for length in found if isinstance(length, int) and length > 0), None)
    rope = getattr(text, "rope_parameters", None) or {}
    if own and rope.get("rope_type") == "yarn" and rope.get("original_max_position_embeddings"):
        return max(own, int(rope["original_max_position_embeddings"] * (rope.get("factor") or 1)))
    return own


def limits_of(config: Mapping[str, Any]) -> Limits:
    """Return the limits of a model by the content of its config.json, as `positions` does by its transformers config."""
    nested = config.get("text_config")
    text = {**config, **nested} if isinstance(nested, dict) else config
    found = (text.get(name) for name in POSITIONS)
    own = next((length for length in found if isinstance(length, int) and length > 0), None)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    kind, original = rope.get("rope_type") or rope.get("type"), rope.get("original_max_position_embeddings")
    if own and kind == "yarn" and original:
        own = max(own, int(original * (rope.get("factor") or 1)))
    vocabulary = text.get("vocab_size")
    return Limits(own, vocabulary if isinstance(vocabulary, int) else None)
