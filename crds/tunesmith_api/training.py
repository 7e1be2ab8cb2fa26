"""How a FineTuneJob trains: method, tuner, optimization, spread over devices, checkpoints and export."""

from __future__ import annotations

from collections.abc import Sequence
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
from tunesmith_api.common import AdapterSource, TextSource
from tunesmith_api.pods import LABEL_KEY


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
    GRPO = "grpo"
    RLOO = "rloo"
    PPO = "ppo"
    GKD = "gkd"


class Tuner(StrEnum):
    """Choice of the trained weights."""

    LORA = "lora"
    FULL = "full"
    QLORA = "qlora"
    DORA = "dora"
    ADALORA = "adalora"
    OFT = "oft"
    LOHA = "loha"
    LOKR = "lokr"
    VERA = "vera"
    IA3 = "ia3"
    MISS = "miss"


class Lora(ApiModel):
    """Adapters, such as low-rank adaptation (Hu et al., 2021)."""

    rank: int = Field(16, ge=1, le=1024, description="Rank r of the update. Default 16.")
    alpha: int = Field(32, ge=1, le=4096, description="Scale: the update is multiplied by alpha / rank. Default 32.")
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout on the adapter's input; with loha and lokr, of rows of the update. Default 0.",
    )
    target_modules: list[ShortText] | None = Field(
        None,
        max_length=64,
        description="Names of the linear layers to adapt. Default: all except the output head.",
        json_schema_extra=SET_LIST,
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(rank) (Kalajdzievski, 2023). Default false.")
    from_: AdapterSource | None = Field(
        None,
        alias="from",
        description="Adapter to go on with, of the same tuner, rank, alpha and base. Its layers are the default of targetModules. "
        "Default: a new adapter.",
    )


class BaseQuantization(StrEnum):
    """Number format of the frozen weights that an adapter is trained beside."""

    NF4 = "nf4"
    INT8 = "int8"
    HQQ = "hqq"


class Qlora(ApiModel):
    """Quantization of the base while an adapter is trained (Dettmers et al., 2023)."""

    quantization: BaseQuantization = Field(
        BaseQuantization.NF4, description="nf4 (4 bits), int8 (8 bits, LLM.int8) or hqq. Default nf4."
    )
    double_quantization: bool = Field(
        True, description="With nf4: quantize the scales too, which saves 0.37 bits a weight. Default true."
    )


class AdaLora(ApiModel):
    """Ranks of tuner adalora (Zhang et al., 2023): each layer begins with initialRank, and lora.rank remains on average."""

    initial_rank: int | None = Field(
        None, ge=2, le=1024, description="Rank of each layer at the start. Default: one and a half times lora.rank."
    )
    initial_steps: int | None = Field(
        None, ge=0, description="Steps before ranks are reduced. Default: a tenth of the steps."
    )
    final_steps: int | None = Field(
        None, ge=0, description="Steps at the end, with ranks that stay. Default: three tenths of the steps."
    )
    every_steps: int = Field(1, ge=1, description="Steps between two reductions. Default 1.")

    def begins_with(self, rank: int) -> int:
        """Return the rank at the start, for lora.rank `rank`."""
        return self.initial_rank or max(rank + 1, 3 * rank // 2)


class Precision(StrEnum):
    """Number format of weights and activations in training."""

    AUTO = "auto"
    BF16 = "bf16"
    FP32 = "fp32"


PREFERENCE_METHODS = (Method.DPO, Method.ORPO, Method.SIMPO, Method.CPO)
"""Methods that learn from a chosen and a rejected answer."""
RATED_METHODS = (*PREFERENCE_METHODS, Method.KTO)
"""Methods that learn from answers that are compared or rated."""
SAMPLING_METHODS = (Method.GRPO, Method.RLOO, Method.PPO)
"""Methods that learn from completions which the model samples and rewards rate."""

HEAD_METHODS = (Method.REWARD,)
"""Methods that train a model with a head of its own, which does not write text."""

LEARNING_RATES: dict[Tuner, float] = {
    Tuner.LORA: 1e-4,
    Tuner.QLORA: 1e-4,
    Tuner.DORA: 1e-4,
    Tuner.LOHA: 1e-4,
    Tuner.LOKR: 1e-4,
    Tuner.VERA: 1e-3,
    Tuner.ADALORA: 1e-3,
    Tuner.OFT: 1e-4,
    Tuner.IA3: 1e-3,
    Tuner.MISS: 1e-4,
    Tuner.FULL: 1e-5,
}
"""Default of training.learningRate by tuner."""
RATED_SHARE = 0.1
"""Share of that default with which RATED_METHODS train: larger steps make them forget what the model knew."""


def default_learning_rate(method: Method, tuner: Tuner) -> float:
    """Return the default of training.learningRate."""
    return LEARNING_RATES[tuner] * (RATED_SHARE if method in RATED_METHODS else 1)


class Scheduler(StrEnum):
    """Schedule of the learning rate after warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"
    POLYNOMIAL = "polynomial"
    COSINE_WITH_RESTARTS = "cosineWithRestarts"
    INVERSE_SQRT = "inverseSqrt"
    WARMUP_STABLE_DECAY = "warmupStableDecay"


class SchedulerOptions(ApiModel):
    """Settings that single schedulers read."""

    power: float = Field(2.0, gt=0, le=10, description="Of polynomial: exponent of the share of steps left. Default 2.")
    cycles: int = Field(2, ge=1, le=1000, description="Of cosineWithRestarts: falls from the peak. Default 2.")
    decay_ratio: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Of warmupStableDecay: share of the steps, at the end, over which the rate falls. Default 0.1.",
    )


class Optimizer(StrEnum):
    """Rule by which gradients change the weights."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw8bit"
    PAGED_ADAMW_8BIT = "pagedAdamw8bit"
    ADAFACTOR = "adafactor"
    LION = "lion"
    LION_8BIT = "lion8bit"
    MUON = "muon"
    GALORE = "galore"
    APOLLO = "apollo"


class Truncation(StrEnum):
    """Handling of rows longer than maxLength."""

    DROP = "drop"
    TRUNCATE = "truncate"
    LEFT = "left"
    SPLIT = "split"


class LossOn(StrEnum):
    """Tokens that contribute to the loss."""

    ANSWER = "answer"
    ALL = "all"


def _default_learning_rates() -> str:
    """Return the defaults in words. Decimal notation, which every YAML parser reads as a number."""
    tuners: dict[float, list[Tuner]] = {}
    for tuner, rate in LEARNING_RATES.items():
        tuners.setdefault(rate, []).append(tuner)
    by_tuner = ", ".join(f"{f'{rate:f}'.rstrip('0')} with tuner {_either(names)}" for rate, names in tuners.items())
    return f"{by_tuner}; a tenth with method {_either(RATED_METHODS)}"


def _either(names: Sequence[str]) -> str:
    """Return names as "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


class EarlyStopping(ApiModel):
    """End of a training whose validation loss no longer falls."""

    patience: int = Field(
        3,
        ge=1,
        le=1000,
        description="Measurements without a lower validation loss, after which training ends. Default 3.",
    )
    min_delta: float = Field(
        0.0, ge=0, description="Difference from the lowest loss that counts as a lower one. Default 0: any."
    )


class Training(ApiModel):
    """Optimization. Steps are optimizer steps; the batch of a step spans all devices."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.streaming) || !self.streaming || (has(self.maxSteps) && !has(self.epochs))",
            "streaming ends after maxSteps, as the number of rows is not known beforehand: set maxSteps, and remove epochs",
        ),
        Rule(
            "!has(self.minLearningRate) || !has(self.learningRate) || self.minLearningRate <= self.learningRate",
            "minLearningRate is at most learningRate: lower it",
        ),
    )

    epochs: float | None = Field(
        None, gt=0, le=1000, description="Passes over the data. Default 1; with maxSteps alone, as many as it needs."
    )
    max_steps: int | None = Field(
        None, ge=1, description="Optimizer steps; with epochs, the maximum. Default: as many as epochs need."
    )
    learning_rate: float | None = Field(
        None, gt=0, le=1, description=f"Peak learning rate. Default {_default_learning_rates()}."
    )
    global_batch_size: int = Field(
        16,
        ge=1,
        le=65536,
        description="Rows, or packed sequences, per optimizer step over all devices; gradients are accumulated to reach it. Default 16.",
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Rows, or packed sequences, per device and forward pass. Default: globalBatchSize / devices, at most 8.",
    )
    max_length: int = Field(2048, ge=8, le=1048576, description="Maximum tokens of a row. Default 2048.")
    truncation: Truncation = Field(
        Truncation.DROP,
        description="Rows longer than maxLength: drop, truncate their end, cut their beginning (left), or split plain text. "
        "Default drop; with packing, method pretrain splits.",
    )
    loss_on: LossOn = Field(
        LossOn.ANSWER,
        description="answer: only the tokens of answers, and all tokens of plain text; all: every token. Default answer.",
    )
    optimizer: Optimizer = Field(
        Optimizer.ADAMW,
        description="adamw, adamw8bit or pagedAdamw8bit (state in 8 bits), adafactor, lion, lion8bit, muon, galore or apollo. Default adamw.",
    )
    neftune_alpha: float | None = Field(
        None, gt=0, le=1000, description="Scale of the noise that NEFTune adds to embeddings, such as 5. Default: none."
    )
    scheduler: Scheduler = Field(
        Scheduler.COSINE,
        description="cosine, linear, constant, polynomial, cosineWithRestarts, inverseSqrt or warmupStableDecay. Default cosine.",
    )
    scheduler_options: SchedulerOptions | None = Field(None, description="Settings that single schedulers read.")
    min_learning_rate: float | None = Field(
        None, ge=0, le=1, description="Learning rate to which the scheduler falls, below learningRate. Default 0."
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="Steps over which the learning rate rises. Default: by warmupRatio."
    )
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="Share of the steps over which the learning rate rises. Default 0.03."
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay. Default 0.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm. Default 1.")
    precision: Precision = Field(
        Precision.AUTO,
        description="bf16, fp32, or auto: bf16 where the device computes in it, else fp32. Default auto.",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Recompute activations in the backward pass, which saves memory and takes time. Default false.",
    )
    packing: bool = Field(
        False,
        description="Pack short rows into sequences of at most maxLength tokens. Default false.",
    )
    streaming: bool = Field(
        False,
        description="Read and encode the rows while it trains instead of before, which needs maxSteps. Default false.",
    )
    chat_template: TextSource | None = Field(
        None,
        description="Chat template (Jinja) to train and serve with. Default: the template of the model's tokenizer.",
    )
    seed: int = Field(
        42, ge=0, description="Seed of the weights' initialization, the data order and dropout. Default 42."
    )
    logging_steps: int = Field(1, ge=1, description="Steps between two entries of the loss in the log. Default 1.")
    eval_steps: int | None = Field(
        None, ge=1, description="Steps between two measurements of the validation loss. Default: once per epoch."
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="End the training when the validation loss no longer falls. Default: train all steps."
    )


class Samples(ApiModel):
    """Answers to fixed prompts before, in and after the training."""

    prompts: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(
        min_length=1, max_length=16, description="What a user asks.", json_schema_extra=ATOMIC_LIST
    )
    every_steps: int | None = Field(
        None,
        ge=1,
        description="Steps between two rounds of answers. Default: before the first and after the last step only.",
    )
    max_tokens: int = Field(128, ge=1, le=4096, description="Tokens of an answer at most. Default 128.")


class Strategy(StrEnum):
    """Distribution of the training over devices."""

    AUTO = "auto"
    DDP = "ddp"
    FSDP = "fsdp"
    ZERO1 = "zero1"
    ZERO2 = "zero2"
    ZERO3 = "zero3"


class Near(ApiModel):
    """Placement of the pods of a job close to each other."""

    topology_key: Annotated[str, Field(min_length=1, max_length=317), LABEL_KEY] = Field(
        description="Node label, such as topology.kubernetes.io/zone. The pods are placed on nodes that have the same value."
    )
    required: bool = Field(
        False,
        description="Keep pods pending until they fit together. Default false: place them together if there is room.",
    )


class Parallelism(ApiModel):
    """Distribution of the training over pods and devices."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.near) || self.nodes > 1", "near is for several pods: remove it, or set nodes to more than 1"),
    )

    nodes: int = Field(
        1,
        ge=1,
        le=1024,
        description="Pods that train together; if a pod fails, all restart from the last checkpoint. Default 1.",
    )
    near: Near | None = Field(None, description="Place the pods close to each other. Default: no constraint.")
    strategy: Strategy = Field(
        Strategy.AUTO,
        description="auto, ddp, fsdp, zero1, zero2 or zero3. Default auto: ddp if it fits into the devices, otherwise fsdp.",
    )
    tensor_parallel: int = Field(1, ge=1, le=64, description="Devices that share each layer. Default 1.")


class Checkpointing(ApiModel):
    """Checkpoints of the run in the store."""

    every_minutes: float = Field(
        10.0,
        gt=0,
        le=1440,
        description="Minutes between two checkpoints, the most work that an interruption repeats. Default 10.",
    )
    every_steps: int | None = Field(
        None, ge=1, description="Steps between two checkpoints, in addition to everyMinutes. Default: by time only."
    )
    keep: int = Field(2, ge=1, le=100, description="Checkpoints kept in the store during training. Default 2.")


class Until(StrEnum):
    """The last stage of a job."""

    ESTIMATE = "estimate"
    DATA = "data"
    TRAIN = "train"
    EXPORT = "export"

    @property
    def trains(self) -> bool:
        """Whether the job comes to training, for which it needs its devices."""
        return self in (Until.TRAIN, Until.EXPORT)


class Fit(StrEnum):
    """What to do with a job that is expected not to fit into the memory of its devices."""

    WARN = "Warn"
    REFUSE = "Refuse"


class QuantizationMethod(StrEnum):
    """Quantization method."""

    AWQ = "awq"
    GPTQ = "gptq"
    FP8 = "fp8"
    INT8 = "int8"


class Quantize(ApiModel):
    """Quantization of the merged model."""

    method: QuantizationMethod = Field(description="awq, gptq, fp8 or int8.")
    bits: int = Field(4, json_schema_extra={"enum": [4, 8, 16]}, description="Bits per weight. Default 4.")
    group_size: int = Field(128, ge=-1, le=1024, description="Weights that share a scale; -1: a row. Default 128.")


class Weights(StrEnum):
    """The step whose weights are the result."""

    LAST = "last"
    BEST = "best"


class Export(ApiModel):
    """Processing of the trained weights."""

    merge: bool = Field(
        True, description="Merge the adapter into the base model, checked by comparing logits. Default true."
    )
    weights: Weights = Field(
        Weights.LAST,
        description="Weights of the last step, or of that with the lowest validation loss (best). Default last.",
    )
    quantize: Quantize | None = Field(None, description="Quantize the merged model. Default: no quantization.")
