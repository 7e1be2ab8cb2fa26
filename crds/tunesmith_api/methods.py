"""Settings of the training methods that have some."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    SET_LIST,
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
        Rule(
            "!self.precomputeReference || !self.referenceFree",
            "dpo.precomputeReference goes with a reference: remove it, or remove dpo.referenceFree",
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
    precompute_reference: bool = Field(
        False, description="Compute the reference once before the first step, and keep no copy of it. Default false."
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


MOST_CLASSES = 1024
"""Classes that method classify learns at most."""


class Problem(StrEnum):
    """Kind of label that method classify learns."""

    SINGLE_LABEL = "singleLabel"
    MULTI_LABEL = "multiLabel"
    REGRESSION = "regression"


class Classify(ApiModel):
    """Sequence classification and regression."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.labels) || !has(self.problem) || self.problem != 'regression'",
            "classify.labels names classes, and problem regression learns numbers: remove labels, or set another problem",
        ),
    )

    problem: Problem | None = Field(
        None,
        description="singleLabel (one class a text), multiLabel (any number of them) or regression (numbers). "
        "Default: multiLabel if the labels of the rows are lists, else singleLabel.",
    )
    labels: list[ShortText] | None = Field(
        None,
        min_length=2,
        max_length=MOST_CLASSES,
        description="Names of the classes, in the order of the model's outputs; a number in a row is an index into them. "
        "Default: the labels of the rows, sorted.",
        json_schema_extra=SET_LIST,
    )


class Pooling(StrEnum):
    """How the hidden states of a text become its vector."""

    LAST_TOKEN = "lastToken"
    MEAN = "mean"


class Embed(ApiModel):
    """Embedding models (van den Oord et al., 2018; Karpukhin et al., 2020)."""

    pooling: Pooling = Field(
        Pooling.LAST_TOKEN,
        description="lastToken (the last hidden state) or mean (the mean of the last layer). Default lastToken.",
    )
    normalize: bool = Field(True, description="Whether the model gives vectors of length 1. Default true.")
    temperature: float = Field(
        0.05,
        gt=0,
        le=10,
        description="What cosine similarities are divided by before the softmax over candidates. Default 0.05.",
    )
    dimensions: list[Annotated[int, Field(ge=1, le=65536)]] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="Lengths to which vectors can be cut later (Matryoshka), which the loss is averaged over. Default: the whole only.",
        json_schema_extra=SET_LIST,
    )


class Rerank(ApiModel):
    """Rerankers that read query and passage together (Nogueira and Cho, 2019; Cao et al., 2007)."""

    in_batch_negatives: bool = Field(
        True,
        description="Whether the positives of the other rows of a forward pass are negatives too. Default true.",
    )
    temperature: float = Field(
        1.0, gt=0, le=100, description="What scores are divided by before the softmax over passages. Default 1."
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


class RolloutEngine(StrEnum):
    """Engine that samples completions during the training."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"


class Rollouts(ApiModel):
    """Settings of the methods that learn from groups of completions which the model samples."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.gpuMemoryShare) || self.engine == 'vllm'",
            "gpuMemoryShare goes with engine vllm: remove it, or set engine: vllm",
        ),
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
    engine: RolloutEngine = Field(
        RolloutEngine.TRANSFORMERS,
        description="What samples: transformers, or vllm beside the training, which needs images.engines.vllm. Default transformers.",
    )
    gpu_memory_share: float | None = Field(
        None, gt=0, le=0.9, description="With engine vllm: its share of the device's memory. Default 0.3."
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
    """Unit for which the ratio of probabilities is computed."""

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
