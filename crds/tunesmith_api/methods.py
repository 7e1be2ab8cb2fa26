"""Settings of the training methods that have some, and rewards."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    ApiModel,
    Rule,
    ShortText,
)
from tunesmith_api.common import FurtherModel


class DpoLoss(StrEnum):
    """Losses of method dpo."""

    SIGMOID = "sigmoid"
    HINGE = "hinge"
    IPO = "ipo"
    ROBUST = "robust"
    APO_ZERO = "apoZero"
    APO_DOWN = "apoDown"
    BCO_PAIR = "bcoPair"
    SFT = "sft"


class Dpo(ApiModel):
    """Direct preference optimization (Rafailov et al., 2023)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.lossWeights) || size(self.lossWeights) == size(self.loss)",
            "dpo.lossWeights has a weight for each of dpo.loss: add or remove weights",
        ),
        Rule(
            "self.labelSmoothing == 0.0 || 'robust' in self.loss",
            "dpo.labelSmoothing goes with loss: [robust]; remove it, or add robust to dpo.loss",
        ),
    )

    beta: float = Field(0.1, gt=0, description="Strength of the pull towards the reference model. Default 0.1.")
    loss: list[DpoLoss] = Field(
        [DpoLoss.SIGMOID],
        min_length=1,
        max_length=8,
        description='sigmoid, hinge, ipo, robust, apoZero, apoDown, bcoPair, sft, or several, which are added. Default ["sigmoid"].',
        json_schema_extra=ATOMIC_LIST,
    )
    loss_weights: list[Annotated[float, Field(ge=0)]] | None = Field(
        None, max_length=8, description="Weight of each loss. Default 1 each.", json_schema_extra=ATOMIC_LIST
    )
    # Not lt=0.5: the API server compares a whole number, such as 0, with the bound without its fraction.
    label_smoothing: float = Field(
        0.0, ge=0, le=0.49, description="Share of the pairs that are the wrong way round, for loss robust. Default 0."
    )
    reference_free: bool = Field(
        False,
        description="Use no reference model. Default false.",
    )


class Orpo(ApiModel):
    """Odds ratio preference optimization (Hong et al., 2024)."""

    beta: float = Field(0.1, gt=0, description="Weight of the odds ratio beside the cross entropy. Default 0.1.")


class Simpo(ApiModel):
    """Simple preference optimization (Meng et al., 2024)."""

    beta: float = Field(2.0, gt=0, description="Scale of the rewards, mean log-probabilities. Default 2.")
    gamma: float = Field(1.0, ge=0, description="Margin between the rewards that is aimed at. Default 1.")


class Cpo(ApiModel):
    """Contrastive preference optimization (Xu et al., 2024)."""

    beta: float = Field(0.1, gt=0, description="Scale of the rewards, log-probabilities. Default 0.1.")
    alpha: float = Field(1.0, ge=0, description="Weight of the chosen answer's cross entropy. Default 1.")


class RewardModel(ApiModel):
    """Reward modelling (Ouyang et al., 2022)."""

    center_coefficient: float = Field(
        0.0,
        ge=0,
        description="Weight of the squared sum of the scores of a pair, which keeps their mean near 0, such as 0.01. Default 0.",
    )


class Kto(ApiModel):
    """Kahneman-Tversky optimization (Ethayarajh et al., 2024)."""

    beta: float = Field(0.1, gt=0, description="Strength of the pull towards the reference model. Default 0.1.")
    desirable_weight: float = Field(1.0, gt=0, description="Weight of the desirable rows' loss. Default 1.")
    undesirable_weight: float = Field(1.0, gt=0, description="Weight of the undesirable rows' loss. Default 1.")


class Clip(ApiModel):
    """Bounds of the ratio between the probabilities of a completion now and when it was sampled (Schulman et al., 2017)."""

    low: float = Field(0.2, gt=0, le=1, description="The ratio counts down to 1 - low. Default 0.2.")
    high: float = Field(
        0.2, gt=0, le=100, description="The ratio counts up to 1 + high. Default 0.2; 0.28 in DAPO (Yu et al., 2025)."
    )


class Rollouts(ApiModel):
    """Settings of the methods that learn from groups of completions which the model samples."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.clip) || self.stepsPerRollout > 1",
            "clip goes with stepsPerRollout of 2 or more, since the ratio is 1 in the first step: set stepsPerRollout, or remove clip",
        ),
    )

    num_generations: int = Field(8, ge=2, le=128, description="Completions sampled per prompt. Default 8.")
    max_completion_length: int = Field(512, ge=1, le=131072, description="Tokens of a completion at most. Default 512.")
    temperature: float = Field(1.0, gt=0, le=10, description="Temperature of sampling. Default 1.")
    top_p: float = Field(1.0, gt=0, le=1, description="Share of the probability that is sampled from. Default 1.")
    steps_per_rollout: int = Field(
        1,
        ge=1,
        le=64,
        description="Optimizer steps for which completions are sampled at once, with the weights before the first. Default 1.",
    )
    clip: Clip | None = Field(
        None, description="With stepsPerRollout of 2 or more: bounds of the ratio. Default low 0.2 and high 0.2."
    )
    mask_truncated: bool = Field(
        False,
        description="Learn nothing from completions that maxCompletionLength cut off (Yu et al., 2025); "
        "their rewards still count in the mean of the group. Default false.",
    )


class GrpoLoss(StrEnum):
    """Weights of the tokens of a batch of completions."""

    GRPO = "grpo"
    DR_GRPO = "drGrpo"
    DAPO = "dapo"
    BNPO = "bnpo"


class Importance(StrEnum):
    """What the ratio of probabilities is taken of."""

    TOKEN = "token"
    SEQUENCE = "sequence"


class Grpo(Rollouts):
    """Group relative policy optimization (Shao et al., 2024)."""

    beta: float = Field(0.0, ge=0, description="Weight of the KL term. Default 0.")
    loss: GrpoLoss = Field(
        GrpoLoss.GRPO,
        description="grpo, drGrpo, dapo or bnpo. Default grpo.",
    )
    importance: Importance = Field(
        Importance.TOKEN,
        description="Ratio of each token, or of the sequence (GSPO, Zheng et al., 2025), the mean over its tokens. Default token.",
    )
    scale_rewards: bool = Field(True, description="Divide advantages by the deviation of their group. Default true.")


class Rloo(Rollouts):
    """REINFORCE leave-one-out (Ahmadian et al., 2024)."""

    beta: float = Field(
        0.05,
        ge=0,
        description="Weight of the KL divergence from the model before the training, which lowers the reward. Default 0.05.",
    )


class Gkd(ApiModel):
    """Generalized knowledge distillation (Agarwal et al., 2024)."""

    teacher: FurtherModel = Field(
        description="The model whose probabilities are learned; it has the tokens of the student."
    )
    beta: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Divergence: 0 is KL(teacher, student), 1 is KL(student, teacher), between them is the generalized "
        "Jensen-Shannon divergence with this weight of the teacher. Default 0.5.",
    )
    lambda_: float = Field(
        0.5,
        alias="lambda",
        ge=0,
        le=1,
        description="Share of the rows whose last answer the student samples; the others have the answers of the data. Default 0.5.",
    )
    temperature: float = Field(
        1.0, gt=0, le=10, description="Temperature of sampling and of the compared probabilities. Default 1."
    )
    max_completion_length: int = Field(
        512, ge=1, le=131072, description="Tokens of a sampled answer at most. Default 512."
    )


class Ppo(ApiModel):
    """Proximal policy optimization (Schulman et al., 2017; Ouyang et al., 2022)."""

    kl_coefficient: float = Field(
        0.05,
        ge=0,
        description="What a token's log-probability beyond that of the model before the training takes from its reward. Default 0.05.",
    )
    epochs: int = Field(4, ge=1, le=64, description="Passes over the completions of a rollout. Default 4.")
    minibatches: int = Field(
        1,
        ge=1,
        le=64,
        description="Steps of a pass: a rollout has minibatches x globalBatchSize completions. Default 1.",
    )
    clip_range: float = Field(
        0.2,
        gt=0,
        le=1,
        description="The ratio of probabilities counts from 1 - clipRange to 1 + clipRange. Default 0.2.",
    )
    value_clip_range: float = Field(
        0.2, gt=0, description="A value counts up to this distance from that at the sampling. Default 0.2."
    )
    value_coefficient: float = Field(0.1, ge=0, description="Weight of the value loss. Default 0.1.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount of the rewards of later tokens. Default 1.")
    lambda_: float = Field(
        0.95,
        alias="lambda",
        ge=0,
        le=1,
        description="Weight of later tokens in generalized advantage estimation. Default 0.95.",
    )
    max_completion_length: int = Field(512, ge=1, le=131072, description="Tokens of a completion at most. Default 512.")
    temperature: float = Field(1.0, gt=0, le=10, description="Temperature of sampling. Default 1.")
    top_p: float = Field(1.0, gt=0, le=1, description="Share of the probability that is sampled from. Default 1.")


class RewardType(StrEnum):
    """How a completion is rewarded."""

    ACCURACY = "accuracy"
    FORMAT = "format"
    LENGTH = "length"


class Match(StrEnum):
    """When a completion has the right answer."""

    MATH = "math"
    EXACT = "exact"
    CHOICE = "choice"


class Reward(ApiModel):
    """A reward of completions."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("(self.type == 'format') == has(self.pattern)", "pattern goes with type: format: set it, or remove it"),
        Rule(
            "(self.type == 'length') == has(self.freeTokens)", "freeTokens goes with type: length: set it, or remove it"
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=63)] = Field(description="Name in logs.")
    type: RewardType = Field(
        description="accuracy (1 for the right answer), format (1 if pattern is found) or length (0, down to -1)."
    )
    weight: float = Field(1.0, description="Factor in the sum of rewards. Default 1.")
    column: ShortText = Field(
        "answer", description="accuracy: column of the rows with the right answer. Default answer."
    )
    match: Match = Field(
        Match.MATH,
        description="accuracy: math (an equal expression), exact or choice (the last letter). Default math.",
    )
    pattern: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None,
        description="format: regular expression that is searched in the completion; its . matches line breaks too.",
    )
    free_tokens: int | None = Field(
        None,
        ge=0,
        description="length: tokens up to which the reward is 0; it is -1 at maxCompletionLength.",
    )
