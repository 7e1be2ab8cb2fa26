"""How a FineTuneJob trains: method, optimization, spread over devices, checkpoints and export."""

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
    listed,
)
from tunesmith_api.common import TextSource
from tunesmith_api.grammar import cel_literal
from tunesmith_api.method_facts import METHOD_FACTS, RATED_METHODS, Method
from tunesmith_api.pods import LABEL_KEY
from tunesmith_api.tuners import TUNER_FACTS, Tuner


class Precision(StrEnum):
    """Number format of weights and activations in training."""

    AUTO = "auto"
    BF16 = "bf16"
    FP32 = "fp32"


def default_learning_rate(method: Method, tuner: Tuner) -> float:
    """Return the default of training.learningRate."""
    return TUNER_FACTS[tuner].learning_rate * METHOD_FACTS[method].learning_rate_factor


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
    """Optimizer that updates the weights."""

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
    for tuner, facts in TUNER_FACTS.items():
        tuners.setdefault(facts.learning_rate, []).append(tuner)
    by_tuner = ", ".join(f"{f'{rate:f}'.rstrip('0')} with tuner {listed(names)}" for rate, names in tuners.items())
    return f"{by_tuner}; a tenth with method {listed(RATED_METHODS)}"


class Kernels(StrEnum):
    """Choice of the code that computes attention, the loss and the optimizer's step."""

    AUTO = "auto"
    PLAIN = "plain"


class ModelPart(StrEnum):
    """A part of a model that reads images or sounds beside text."""

    VISION = "vision"
    ALIGNER = "aligner"
    LANGUAGE = "language"


PARTS = tuple(ModelPart)
NO_PART = "none"
"""The entry of training.freeze with which all parts are trained."""
FROZEN_PARTS = f"{'|'.join((*PARTS, NO_PART))}|embeddings|head|layers:[0-9]+(-[0-9]+)?|pattern:.+"
"""Regular expression of the parts that training.freeze names."""


def trains_beside_language(freeze: str) -> str:
    """Return CEL: the list at `freeze` leaves vision or aligner to be trained."""
    is_chosen = f"{cel_literal((*PARTS, NO_PART))}.exists(part, part in {freeze})"
    return f"({is_chosen} && !('vision' in {freeze} && 'aligner' in {freeze}))"


MOST_PIXELS = 178_956_970
"""Pixels of the largest image that is read."""


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
        Rule(
            f"!has(self.freeze) || self.freeze.all(part, part.matches('^({FROZEN_PARTS})$'))",
            "freeze has the parts vision, aligner, language, none, embeddings, head, layers:FIRST-LAST (from 0) and pattern:REGEX of names of "
            "weights: write one of them",
        ),
        Rule(
            f"!has(self.freeze) || !{cel_literal(PARTS)}.all(part, part in self.freeze)",
            f"freeze names all parts of the model, {listed(PARTS, 'and')}: remove one of them",
        ),
        Rule(
            f"!has(self.freeze) || !('{NO_PART}' in self.freeze) || self.freeze.size() == 1",
            f"freeze: [{NO_PART}] trains all parts of the model: remove the others, or {NO_PART}",
        ),
        Rule(
            f"!has(self.visionLearningRate) || (has(self.freeze) && !('language' in self.freeze) && {trains_beside_language('self.freeze')})",
            "visionLearningRate is that of vision and aligner, beside learningRate for the language model: train both by "
            f"freeze: [{NO_PART}], [vision] or [aligner], or remove visionLearningRate",
        ),
        Rule(
            "!has(self.minPixels) || !has(self.maxPixels) || self.minPixels <= self.maxPixels",
            "minPixels is at most maxPixels: lower it",
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
        description="Rows, or packed sequences, per device and forward pass. Default: globalBatchSize / devices, at most 8; with method embed at most 64.",
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
        description="Optimizer of the weights; adamw8bit, pagedAdamw8bit and lion8bit keep their state in 8 bits. Default adamw.",
    )
    neftune_alpha: float | None = Field(
        None, gt=0, le=1000, description="Scale of the noise that NEFTune adds to embeddings, such as 5. Default: none."
    )
    scheduler: Scheduler = Field(
        Scheduler.COSINE,
        description="Course of the learning rate after the warm-up. Default cosine.",
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
    freeze: list[ShortText] | None = Field(
        None,
        min_length=1,
        max_length=32,
        description="Parts that are not trained: of a multimodal model vision, aligner and language, of which the others are trained, or none; "
        "with tuner full also embeddings, head, layers:0-15 (numbers from 0), or pattern: and a regular expression that whole names of "
        "weights match. Default: vision and aligner of a multimodal model.",
        json_schema_extra=SET_LIST,
    )
    vision_learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate of vision and aligner, where freeze leaves them to be trained beside the language model. Default: "
        "learningRate.",
    )
    max_pixels: int | None = Field(
        None,
        ge=256,
        le=MOST_PIXELS,
        description="Pixels to which the model's processor scales larger images down, in training and wherever the result is served. "
        "Default: as the base model's.",
    )
    min_pixels: int | None = Field(
        None,
        ge=256,
        le=MOST_PIXELS,
        description="Pixels to which the model's processor scales smaller images up. Default: as the base model's.",
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
    kernels: Kernels = Field(
        Kernels.AUTO,
        description="auto: the fast paths that the device has; plain: none of them, to compare with. Default auto.",
    )
    compile: bool = Field(
        False,
        description="Compile the decoder layers with torch.compile: later steps are faster, the first ones take minutes. Default false.",
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

    @property
    def frozen_parts(self) -> frozenset[ModelPart]:
        """The parts of a multimodal model that are not trained: those that `freeze` names, by default all but the language model."""
        named = frozenset(part for part in PARTS if part in (self.freeze or ()))
        is_chosen = named or NO_PART in (self.freeze or ())
        return named if is_chosen else frozenset({ModelPart.VISION, ModelPart.ALIGNER})


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


class Offload(StrEnum):
    """State that is kept in the memory of the pod instead of the memory of its devices."""

    NONE = "none"
    OPTIMIZER = "optimizer"
    ALL = "all"


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
    offload: Offload = Field(
        Offload.NONE,
        description="Keep in the memory of the pod instead of that of its devices: nothing (none), the state of the optimizer, which steps on "
        "the CPU (optimizer), or weights and gradients too (all). It saves memory and takes time. Default none.",
    )
    tensor_parallel: int = Field(
        1,
        ge=1,
        le=64,
        description="Devices that share each layer and take the same rows; it divides nodes x resources.count. Default 1.",
    )
    pipeline_parallel: int = Field(
        1,
        ge=1,
        le=64,
        description="Devices that hold some layers each and pass micro batches on; it divides nodes x resources.count. Default 1.",
    )
    context_parallel: int = Field(
        1,
        ge=1,
        le=64,
        description="Devices that have a part of the tokens of each row; it divides nodes x resources.count. Default 1.",
    )

    @property
    def sharing(self) -> tuple[str, int]:
        """The field that lets several devices take the same rows, and the number of these devices. Only one such field
        can be above 1."""
        fields = {
            "tensorParallel": self.tensor_parallel,
            "pipelineParallel": self.pipeline_parallel,
            "contextParallel": self.context_parallel,
        }
        return max(fields.items(), key=lambda each: each[1])


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
        """Whether the job trains, for which it needs its devices."""
        return self in (Until.TRAIN, Until.EXPORT)


class Fit(StrEnum):
    """Handling of a job that is not expected to fit into the memory of its devices."""

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
    """Step that gives the published weights."""

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
