"""What the API, the operator and the runtime have to know about the training methods: a row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tunesmith_api.base import ApiModel
from tunesmith_api.methods import (
    Classify,
    Cpo,
    Dpo,
    Embed,
    Gkd,
    Grpo,
    Kto,
    Orpo,
    Ppo,
    Rerank,
    RewardModel,
    Rloo,
    Rollouts,
    Simpo,
)

if TYPE_CHECKING:
    from tunesmith_api.finetunejob import FineTuneJobSpec


class Method(StrEnum):
    """Training method."""

    SFT = "sft"
    PRETRAIN = "pretrain"
    DPO = "dpo"
    KTO = "kto"
    ORPO = "orpo"
    SIMPO = "simpo"
    CPO = "cpo"
    REWARD = "reward"
    CLASSIFY = "classify"
    EMBED = "embed"
    RERANK = "rerank"
    GRPO = "grpo"
    RLOO = "rloo"
    PPO = "ppo"
    GKD = "gkd"


class Head(StrEnum):
    """Last layer of a model."""

    VOCABULARY = "vocabulary"
    """The output layer of a language model."""
    SCORE = "score"
    """A new layer with one output, which rates an answer."""
    RANK = "rank"
    """A new layer with one output, which ranks a passage."""
    LABELS = "labels"
    """A new layer with an output for each class or number."""
    NONE = "none"
    """The hidden states are the result."""


@dataclass(frozen=True)
class MethodFacts:
    """A training method."""

    settings: type[ApiModel] | None = None
    """Type of the block of its settings, which a spec has under the name of the method."""
    head: Head = Head.VOCABULARY
    """Last layer of the models that it trains."""
    is_cross_entropy: bool = False
    """Whether the loss is the cross entropy of tokens and nothing else: it can be computed in chunks, in stages, and on packed or
    streamed rows."""
    is_plain_text: bool = False
    """Whether its rows are plain text, which no chat template renders."""
    reads_images: bool = False
    """Whether it learns from rows with images, if the model reads them."""
    is_pairwise: bool = False
    """Whether it compares the chosen and the rejected answer to a prompt."""
    samples: bool = False
    """Whether the model samples the completions that it learns from, and rewards rate them."""
    comparison: str = ""
    """What it compares with the other rows of a forward pass, which then has at least two rows; empty: nothing."""
    compares_rows: Callable[[FineTuneJobSpec], bool] = lambda job: True
    """Return whether it makes this comparison with the settings of a job."""
    joins_texts: bool = False
    """Whether it reads the two texts of a pair as one sequence, as the tokenizer joins them."""
    largest_micro_batch: int = 8
    """Default of training.microBatchSize, if it divides the rows of a device."""
    learning_rate_factor: float = 1.0
    """Factor of the tuner's default learning rate."""
    has_reference: Callable[[FineTuneJobSpec], bool] = lambda job: False
    """Return whether the training compares its model with the model before the training."""
    precomputes_reference: Callable[[FineTuneJobSpec], bool] = lambda job: False
    """Return whether that model computes once before the first step, and not in each."""

    @property
    def writes_text(self) -> bool:
        """Whether it trains a language model."""
        return self.head is Head.VOCABULARY

    @property
    def has_new_head(self) -> bool:
        """Whether it trains a new layer in the place of the output layer."""
        return self.head in (Head.SCORE, Head.RANK, Head.LABELS)


RATED = 0.1
"""Learning rate factor of methods that compare or rate answers: larger steps make them forget what the model knew."""

METHOD_FACTS: Mapping[Method, MethodFacts] = {
    Method.SFT: MethodFacts(is_cross_entropy=True, reads_images=True),
    Method.PRETRAIN: MethodFacts(is_cross_entropy=True, is_plain_text=True),
    Method.DPO: MethodFacts(
        Dpo,
        reads_images=True,
        is_pairwise=True,
        learning_rate_factor=RATED,
        has_reference=lambda job: not (job.dpo or Dpo()).reference_free,
        precomputes_reference=lambda job: (job.dpo or Dpo()).precompute_reference,
    ),
    Method.KTO: MethodFacts(
        Kto,
        reads_images=True,
        comparison="each answer with that to another row",
        learning_rate_factor=RATED,
        has_reference=lambda job: True,
    ),
    Method.ORPO: MethodFacts(Orpo, reads_images=True, is_pairwise=True, learning_rate_factor=RATED),
    Method.SIMPO: MethodFacts(Simpo, reads_images=True, is_pairwise=True, learning_rate_factor=RATED),
    Method.CPO: MethodFacts(Cpo, reads_images=True, is_pairwise=True, learning_rate_factor=RATED),
    Method.REWARD: MethodFacts(RewardModel, Head.SCORE, is_pairwise=True),
    Method.CLASSIFY: MethodFacts(Classify, Head.LABELS),
    Method.EMBED: MethodFacts(
        Embed, Head.NONE, comparison="each text with those of other rows", largest_micro_batch=64
    ),
    Method.RERANK: MethodFacts(
        Rerank,
        Head.RANK,
        comparison="each passage with those of other rows",
        compares_rows=lambda job: (job.rerank or Rerank()).in_batch_negatives,
        joins_texts=True,
    ),
    Method.GRPO: MethodFacts(
        Grpo, reads_images=True, samples=True, has_reference=lambda job: bool((job.grpo or Grpo()).beta)
    ),
    Method.RLOO: MethodFacts(
        Rloo, reads_images=True, samples=True, has_reference=lambda job: bool((job.rloo or Rloo()).beta)
    ),
    Method.PPO: MethodFacts(Ppo, samples=True, has_reference=lambda job: bool((job.ppo or Ppo()).kl_coefficient)),
    Method.GKD: MethodFacts(Gkd),
}
"""The methods of this version, in the order of the enumeration."""


def compares_rows(job: FineTuneJobSpec) -> bool:
    """Return whether a job compares the rows of a forward pass with each other, which then has at least two rows."""
    facts = METHOD_FACTS[job.method]
    return bool(facts.comparison) and facts.compares_rows(job)


def methods_where(fact: Callable[[MethodFacts], bool]) -> tuple[Method, ...]:
    """Return the methods of which a fact is true."""
    return tuple(method for method, facts in METHOD_FACTS.items() if fact(facts))


CROSS_ENTROPY_METHODS = methods_where(lambda facts: facts.is_cross_entropy)
OTHER_LOSS_METHODS = methods_where(lambda facts: not facts.is_cross_entropy)
PAIRWISE_METHODS = methods_where(lambda facts: facts.is_pairwise)
RATED_METHODS = methods_where(lambda facts: facts.learning_rate_factor == RATED)
SAMPLING_METHODS = methods_where(lambda facts: facts.samples)
GROUP_METHODS = methods_where(lambda facts: facts.settings is not None and issubclass(facts.settings, Rollouts))
"""Methods that sample a group of completions for each prompt."""
JOINED_METHODS = methods_where(lambda facts: facts.joins_texts)
NEW_HEAD_METHODS = methods_where(lambda facts: facts.has_new_head)
HEAD_METHODS = methods_where(lambda facts: not facts.writes_text)
"""Methods of models that do not write text."""
