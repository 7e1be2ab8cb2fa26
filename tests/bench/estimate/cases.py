"""Trainings of small models whose peak memory is measured: they differ in size, tuner, lengths, batch and number format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RANK = 16
"""Rank of the adapters."""

REWARDS = [
    {"name": name, "type": "format", "pattern": pattern}
    for name, pattern in (("any", "."), ("digit", "[0-9]"), ("letter", "[a-m]"))
]
"""Rewards in which completions of a random model differ, so that something is learned."""


@dataclass(frozen=True)
class Case:
    """A training. Rows have `length` tokens, or half of that in every second row if they are uneven."""

    name: str
    hidden: int = 384
    layers: int = 6
    heads: int = 6
    key_value_heads: int = 6
    intermediate: int = 1024
    vocabulary: int = 4096
    family: str = "llama"
    stored: str = "float32"
    method: str = "sft"
    tuner: str = "lora"
    length: int = 384
    rows: int = 4
    """Rows of a micro batch."""
    accumulation: int = 1
    answers: float = 0.1
    """Share of a row that is an answer, or a completion of full length that is sampled, which alone has labels."""
    options: tuple[tuple[str, Any], ...] = ()
    """Settings of the block of the method."""
    checkpointing: bool = False
    precision: str = "fp32"
    uneven: bool = True

    @property
    def config(self) -> dict[str, Any]:
        """Arguments of the transformers config."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "bos_token_id": None,
        }

    @property
    def answer(self) -> int:
        """Tokens of an answer."""
        return max(1, round(self.length * self.answers))

    @property
    def blocks(self) -> dict[str, Any]:
        """Method and tuner with their blocks in the spec."""
        tuner = {"tuner": self.tuner, **({"lora": {"rank": RANK}} if self.tuner == "lora" else {})}
        needs: dict[str, dict[str, Any]] = {
            "gkd": {"teacher": {"uri": "s3://models/teacher"}, "maxCompletionLength": self.answer},
            "grpo": {"numGenerations": self.rows, "maxCompletionLength": self.answer},
            "ppo": {"maxCompletionLength": self.answer},
        }
        if self.method not in needs:
            return {**tuner, "method": self.method}
        rewards = {} if self.method == "gkd" else {"rewards": REWARDS}
        return {**tuner, **rewards, "method": self.method, self.method: needs[self.method] | dict(self.options)}

    @property
    def training(self) -> dict[str, Any]:
        """The block spec.training."""
        return {
            "maxSteps": 3,
            "globalBatchSize": self.rows * self.accumulation,
            "microBatchSize": self.rows,
            "maxLength": 4096,
            "gradientCheckpointing": self.checkpointing,
            "precision": self.precision,
            "learningRate": 1e-3,
        }


BASELINE = Case(
    "baseline", hidden=32, layers=1, heads=2, key_value_heads=2, intermediate=32, vocabulary=512, length=16, rows=1
)
"""The process without a model to speak of."""

CASES: tuple[Case, ...] = (
    Case("lora"),
    Case("lora, longer rows", length=768, rows=2),
    Case("lora, even rows", uneven=False),
    Case("lora, checkpointing", checkpointing=True, rows=8),
    Case("lora, accumulation", accumulation=3),
    Case("lora, answers throughout", answers=0.9),
    Case("lora, 32k tokens", vocabulary=32768, answers=0.4, rows=2),
    Case("lora, bf16", precision="bf16", stored="bfloat16"),
    Case("lora, grouped queries", key_value_heads=2),
    Case("lora, qwen3", family="qwen3"),
    Case("lora, deep", hidden=256, heads=4, key_value_heads=4, layers=12, intermediate=768),
    Case("full", tuner="full", hidden=512, heads=8, key_value_heads=8, layers=8, intermediate=1536, length=128),
    Case("full, longer rows", tuner="full"),
    Case("full, checkpointing", tuner="full", checkpointing=True),
    Case("full, 32k tokens", tuner="full", vocabulary=32768, answers=0.4, rows=2, length=256),
    Case("full, bf16", tuner="full", precision="bf16"),
    Case("full, wide", tuner="full", hidden=768, heads=12, key_value_heads=4, layers=4, intermediate=2048, length=256, rows=2),
    Case("gkd", method="gkd", vocabulary=32768, answers=0.4, rows=2),
    Case("gkd, answers of the data", method="gkd", vocabulary=32768, answers=0.4, rows=2, options=(("lambda", 0),)),
    Case("gkd, full", method="gkd", tuner="full", answers=0.5, length=256),
    Case("grpo", method="grpo", vocabulary=32768, answers=0.4, rows=2, length=256),
    Case("grpo, reference", method="grpo", vocabulary=32768, answers=0.4, rows=2, length=256, options=(("beta", 0.04),)),
    Case("grpo, full with reference", method="grpo", tuner="full", answers=0.5, length=128, options=(("beta", 0.04),)),
    Case("ppo", method="ppo", vocabulary=32768, answers=0.4, rows=2, length=256, options=(("epochs", 2),)),
    Case("ppo, full", method="ppo", tuner="full", answers=0.5, length=128, options=(("epochs", 2),)),
    Case("dpo", method="dpo", vocabulary=32768, answers=0.4, rows=2, length=192),
)  # fmt: skip
"""The cases of the published table."""
