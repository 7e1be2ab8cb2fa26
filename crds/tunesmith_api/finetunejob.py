"""FineTuneJob: tune a model on data sets, merge and quantize the result, leave it in the store."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    SET_LIST,
    ApiModel,
    DataUri,
    Duration,
    QueueName,
    Rule,
    ShortText,
    UriText,
    exactly_one,
    map_list,
    member_only_with,
)
from tunesmith_api.batches import batch_rule
from tunesmith_api.common import (
    LABEL_KEY,
    Artifact,
    JobStatus,
    ModelSource,
    ModelStatus,
    Output,
    PodSettings,
    Resources,
    Storage,
)


class Method(StrEnum):
    """How the model learns."""

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
    """Which weights are trained."""

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


class RowFormat(StrEnum):
    """The shape of a row of data."""

    AUTO = "auto"
    MESSAGES = "messages"
    SHAREGPT = "sharegpt"
    PROMPT_COMPLETION = "promptCompletion"
    ALPACA = "alpaca"
    TEXT = "text"
    PREFERENCE = "preference"
    PROMPT = "prompt"


class Dataset(ApiModel):
    """A data set of JSON lines."""

    uri: DataUri = Field(
        description="s3://bucket/file.jsonl (or a folder of .jsonl), pvc://claim/path, hf://org/name, ms://org/name or file:///path."
    )
    format: RowFormat = Field(
        RowFormat.AUTO,
        description="messages ({messages: [{role, content}]}), sharegpt ({conversations: [{from, value}]}), promptCompletion ({prompt, completion}), alpaca ({instruction, input, output}), "
        "text, preference or prompt. Default auto: told from the first row.",
    )
    columns: dict[str, ShortText] | None = Field(
        None, max_length=16, description="Renames columns of the file: {theirName: ourName}, before the format is told."
    )
    max_rows: int | None = Field(None, ge=1, description="Use the first so many rows. Default: all.")


class Validation(ApiModel):
    """Rows held out to measure the loss on."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("fraction", "uri"),)

    fraction: float | None = Field(
        None, gt=0, lt=1, description="Share of the training rows to hold out, between 0 and 1."
    )
    uri: DataUri | None = Field(None, description="A data set of its own, in any format of datasets.")


class Lora(ApiModel):
    """Low-rank adaptation (Hu et al., 2021)."""

    rank: int = Field(16, ge=1, le=1024, description="Rank r of the update. Default 16.")
    alpha: int = Field(32, ge=1, le=4096, description="Scale: the update is multiplied by alpha / rank. Default 32.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input. Default 0.")
    target_modules: list[ShortText] | None = Field(
        None,
        max_length=64,
        description="Names of the linear layers to adapt. Default: all but the output head.",
        json_schema_extra=SET_LIST,
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(rank) (Kalajdzievski, 2023). Default false.")


class Dpo(ApiModel):
    """Direct preference optimization (Rafailov et al., 2023)."""

    beta: float = Field(0.1, gt=0, description="Strength of the pull towards the reference model. Default 0.1.")


class Kto(ApiModel):
    """Kahneman-Tversky optimization (Ethayarajh et al., 2024)."""

    beta: float = Field(0.1, gt=0, description="Strength of the pull towards the reference model. Default 0.1.")
    desirable_weight: float = Field(1.0, gt=0, description="Weight of the desirable rows' loss. Default 1.")
    undesirable_weight: float = Field(1.0, gt=0, description="Weight of the undesirable rows' loss. Default 1.")


class Grpo(ApiModel):
    """Group relative policy optimization (Shao et al., 2024)."""

    beta: float = Field(0.0, ge=0, description="Weight of the KL term. Default 0.")
    num_generations: int = Field(8, ge=2, le=128, description="Completions sampled per prompt. Default 8.")
    max_completion_length: int = Field(512, ge=1, le=131072, description="Tokens of a completion at most. Default 512.")


class Precision(StrEnum):
    """Number format of weights and activations while training."""

    AUTO = "auto"
    BF16 = "bf16"
    FP32 = "fp32"


LEARNING_RATES: dict[Tuner, float] = {Tuner.LORA: 1e-4, Tuner.FULL: 1e-5}
"""Default of training.learningRate by tuner."""


class Scheduler(StrEnum):
    """How the learning rate moves after warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Truncation(StrEnum):
    """What happens to a row longer than maxLength."""

    DROP = "drop"
    TRUNCATE = "truncate"


class LossOn(StrEnum):
    """Which tokens the loss is taken on."""

    ANSWER = "answer"
    ALL = "all"


def _default_learning_rates() -> str:
    """Return the defaults in words. Decimal notation, which every YAML parser reads as a number."""
    rates = (f"{rate:f}".rstrip("0") for rate in LEARNING_RATES.values())
    return ", ".join(f"{rate} with tuner {tuner}" for tuner, rate in zip(LEARNING_RATES, rates, strict=True))


class Training(ApiModel):
    """The optimization. Steps are optimizer steps; a batch is what one step sees on all devices together."""

    epochs: float | None = Field(
        None, gt=0, le=1000, description="Passes over the data. Default 1; with maxSteps alone as many as it needs."
    )
    max_steps: int | None = Field(
        None, ge=1, description="Optimizer steps; with epochs, at most. Default: as many as epochs need."
    )
    learning_rate: float | None = Field(
        None, gt=0, le=1, description=f"Peak learning rate. Default {_default_learning_rates()}."
    )
    global_batch_size: int = Field(
        16,
        ge=1,
        le=65536,
        description="Rows per optimizer step over all devices; gradients are accumulated to reach it. Default 16.",
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Rows per device and forward pass. Default: globalBatchSize / devices, at most 8.",
    )
    max_length: int = Field(2048, ge=8, le=1048576, description="Tokens of a row at most. Default 2048.")
    truncation: Truncation = Field(
        Truncation.DROP,
        description="drop (counted in status.rows) or truncate rows longer than maxLength. Default drop.",
    )
    loss_on: LossOn = Field(
        LossOn.ANSWER,
        description="answer: only the tokens of answers, and all tokens of plain text; all: every token. Default answer.",
    )
    scheduler: Scheduler = Field(Scheduler.COSINE, description="cosine, linear or constant. Default cosine.")
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="Share of the steps over which the learning rate rises. Default 0.03."
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay of AdamW. Default 0.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm. Default 1.")
    precision: Precision = Field(
        Precision.AUTO,
        description="bf16, fp32, or auto: bf16 where the device computes in it, else fp32. Default auto.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time. Default false."
    )
    packing: bool = Field(False, description="Pack short rows into full sequences. Default false.")
    seed: int = Field(
        42, ge=0, description="Seed of the weights' initialization, the data order and dropout. Default 42."
    )
    logging_steps: int = Field(1, ge=1, description="Steps between two entries of the loss. Default 1.")
    eval_steps: int | None = Field(
        None, ge=1, description="Steps between two measurements of the validation loss. Default: once per epoch."
    )


class Strategy(StrEnum):
    """How the work is spread over devices."""

    AUTO = "auto"
    DDP = "ddp"
    FSDP = "fsdp"
    ZERO2 = "zero2"
    ZERO3 = "zero3"


class Near(ApiModel):
    """What the pods of a job should have in common."""

    topology_key: Annotated[str, Field(min_length=1, max_length=317), LABEL_KEY] = Field(
        description="Label of nodes: the pods go to nodes with the same value of it, such as topology.kubernetes.io/zone."
    )
    required: bool = Field(
        False, description="Let pods wait rather than be apart. Default false: near each other where there is room."
    )


class Parallelism(ApiModel):
    """How the work is spread over pods and devices."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.near) || self.nodes > 1", "near is for several pods: remove it, or set nodes to more than 1"),
    )

    nodes: int = Field(
        1, ge=1, le=1024, description="Pods that train together; when one fails, all begin anew. Default 1."
    )
    near: Near | None = Field(None, description="Keep the pods near each other. Default: wherever there is room.")
    strategy: Strategy = Field(Strategy.AUTO, description="auto, ddp, fsdp, zero2 or zero3. Default auto.")
    tensor_parallel: int = Field(1, ge=1, le=64, description="Devices that share one layer. Default 1.")


class Checkpointing(ApiModel):
    """How often the state of the run is saved to the store."""

    every_minutes: float = Field(
        10.0, gt=0, le=1440, description="Minutes between two checkpoints: what a kill costs at most. Default 10."
    )
    every_steps: int | None = Field(None, ge=1, description="Also save every so many steps. Default: by time only.")
    keep: int = Field(2, ge=1, le=100, description="Checkpoints kept in the store while it trains. Default 2.")


class QuantizationMethod(StrEnum):
    """How weights are quantized."""

    AWQ = "awq"
    GPTQ = "gptq"
    FP8 = "fp8"
    INT8 = "int8"


class Quantize(ApiModel):
    """Quantization of the merged model."""

    method: QuantizationMethod = Field(description="awq, gptq, fp8 or int8.")
    bits: int = Field(4, json_schema_extra={"enum": [4, 8, 16]}, description="Bits per weight. Default 4.")
    group_size: int = Field(
        128, ge=-1, le=1024, description="Weights that share a scale; -1: a whole row. Default 128."
    )


class Export(ApiModel):
    """What is made of the trained weights."""

    merge: bool = Field(
        True, description="Merge the adapter into the base model, checked by comparing logits. Default true."
    )
    quantize: Quantize | None = Field(None, description="Quantize the merged model. Default: not.")


DEVICES = "(has(self.resources.count) ? self.resources.count : 1)"
DEVICES_IN_BOUNDS = " && ".join(
    f"{value} >= 1 && {value} <= {most}" for value, most in (("self.parallelism.nodes", 1024), (DEVICES, 64))
)
"""CEL rules run beside the schema's bounds: arithmetic on a value that is out of bounds would fail, and say so."""


class FineTuneJobSpec(ApiModel):
    """What to tune, on what, how. It cannot change after creation but for suspend, retries, deadlines and ttlAfterFinished."""

    mutable: ClassVar[frozenset[str]] = frozenset(
        {"suspend", "retries", "deadline", "pendingDeadline", "ttlAfterFinished"}
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        *member_only_with("method", "dpo", "kto", "grpo"),
        Rule(
            "!has(self.lora) || self.tuner in ['lora', 'qlora', 'dora']",
            "the block lora goes with tuner: lora, qlora or dora; remove the block or set tuner: lora",
        ),
        Rule(
            batch_rule(DEVICES_IN_BOUNDS, "self.parallelism.nodes", DEVICES),
            "training.globalBatchSize is a multiple of all devices (parallelism.nodes x resources.count): change one of them",
        ),
    )

    model: ModelSource = Field(description="The base model.")
    datasets: list[Dataset] = Field(
        min_length=1, max_length=64, description="Data sets, read in this order.", json_schema_extra=ATOMIC_LIST
    )
    validation: Validation | None = Field(None, description="Rows to measure the loss on. Default: none.")
    method: Method = Field(
        Method.SFT,
        description="sft, pretrain, dpo, kto, orpo, simpo, cpo, reward, grpo, rloo, ppo or gkd. Default sft.",
    )
    dpo: Dpo | None = Field(None, description="Settings of method dpo.")
    kto: Kto | None = Field(None, description="Settings of method kto.")
    grpo: Grpo | None = Field(None, description="Settings of method grpo.")
    tuner: Tuner = Field(
        Tuner.LORA, description="lora, full, qlora, dora, adalora, oft, loha, lokr, vera or ia3. Default lora."
    )
    lora: Lora | None = Field(None, description="Settings of tuner lora, qlora and dora.")
    training: Training = Field(default_factory=Training, description="The optimization.")
    parallelism: Parallelism = Field(
        default_factory=Parallelism, description="How the work is spread over pods and devices."
    )
    resources: Resources = Field(default_factory=Resources, description="What each pod asks for.")
    checkpoint: Checkpointing = Field(
        default_factory=Checkpointing, description="How often the state is saved to the store."
    )
    export: Export = Field(default_factory=Export, description="What is made of the trained weights.")
    output: Output = Field(default_factory=Output, description="Where the results go.")
    storage: Storage | None = Field(None, description="S3 endpoint and credentials. Default: the chart's store.")
    pod: PodSettings = Field(default_factory=PodSettings, description="Settings of the pods.")
    suspend: bool = Field(
        False, description="Stop the pods and keep the checkpoint; false goes on from there. Default false."
    )
    queue_name: QueueName | None = Field(
        None, description="Kueue LocalQueue of this namespace to wait in. Default: none."
    )
    retries: int = Field(
        3, ge=0, le=100, description="New attempts after failures that may pass; preemptions do not count. Default 3."
    )
    deadline: Duration | None = Field(
        None,
        description="Time the job may take from its first start, such as 12h; time suspended or queued again counts. Default: none.",
    )
    pending_deadline: Duration | None = Field(
        None,
        description="Time its pods may wait to be scheduled, such as 1h; time in a queue does not count. Default: none.",
    )
    ttl_after_finished: Duration | None = Field(
        None,
        description="Time after which a finished job's pods are removed, such as 1d; the resource itself stays. Default: never.",
    )
    rerun: Annotated[str, Field(max_length=63)] | None = Field(
        None,
        description="Any text; another text asks for a new run of an otherwise equal spec instead of adopting the finished one.",
    )


class Progress(ApiModel):
    """How far it is."""

    stage: ShortText | None = Field(None, description="fetch, train or export.")
    step: int = Field(0, ge=0, description="Optimizer steps done.")
    total_steps: int = Field(0, ge=0, description="Optimizer steps in all.")
    percent: int = Field(0, ge=0, le=100, description="Share of the steps done, in percent.")
    epoch: float | None = Field(None, ge=0, description="Passes over the data done.")
    loss: float | None = Field(None, description="Latest training loss.")
    eval_loss: float | None = Field(None, description="Latest validation loss.")
    learning_rate: float | None = Field(None, description="Current learning rate.")
    tokens_per_second: float | None = Field(None, ge=0, description="Tokens trained on per second.")
    eta_seconds: int | None = Field(None, ge=0, description="Seconds left, by the pace so far.")
    updated: str | None = Field(
        None, description="When it was reported (RFC 3339).", json_schema_extra={"format": "date-time"}
    )


class DroppedRows(ApiModel):
    """Rows that were not used."""

    reason: ShortText = Field(description="Why.")
    count: int = Field(ge=0, description="How many.")


class IgnoredKey(ApiModel):
    """A key of rows that is not read."""

    key: ShortText = Field(description="The key; messages[].key for one in messages.")
    count: int = Field(ge=0, description="Rows that have it.")


class Rows(ApiModel):
    """What became of the rows of the data sets."""

    kept: int = Field(0, ge=0, description="Rows trained on.")
    validation: int | None = Field(None, ge=0, description="Rows held out.")
    dropped: list[DroppedRows] | None = Field(
        None, max_length=16, description="Rows not used, by reason.", json_schema_extra=map_list("reason")
    )
    ignored_keys: list[IgnoredKey] | None = Field(
        None, max_length=16, description="Keys of rows that are not read.", json_schema_extra=map_list("key")
    )


class LastCheckpoint(ApiModel):
    """The state a new attempt goes on from."""

    uri: DataUri = Field(description="Where it is.")
    step: int = Field(ge=0, description="Optimizer steps it contains.")
    time: str | None = Field(
        None, description="When it was saved (RFC 3339).", json_schema_extra={"format": "date-time"}
    )


class Estimate(ApiModel):
    """What the run is expected to need, before a device is taken."""

    memory_bytes: int | None = Field(
        None, ge=0, description="Device memory per device, in bytes.", json_schema_extra={"format": "int64"}
    )
    steps: int | None = Field(None, ge=0, description="Optimizer steps.")


class Metrics(ApiModel):
    """Figures of a finished run."""

    train_loss: float | None = Field(None, description="Loss of the last step.")
    eval_loss: float | None = Field(None, description="Validation loss at the end.")
    steps: int | None = Field(None, ge=0, description="Optimizer steps done.")
    tokens: int | None = Field(None, ge=0, description="Tokens trained on.", json_schema_extra={"format": "int64"})
    train_seconds: float | None = Field(None, ge=0, description="Seconds of training, over all attempts.")


class FineTuneJobStatus(JobStatus):
    """What became of a FineTuneJob."""

    model: ModelStatus | None = Field(None, description="The base model, exactly.")
    resumed_from_step: int | None = Field(None, ge=0, description="The step this attempt went on from.")
    progress: Progress | None = Field(None, description="How far it is.")
    rows: Rows | None = Field(None, description="What became of the rows.")
    metrics: Metrics | None = Field(None, description="Figures of the finished run.")
    artifacts: list[Artifact] | None = Field(
        None, max_length=16, description="What it made.", json_schema_extra=map_list("name")
    )
    run_uri: UriText | None = Field(None, description="The run's folder, with run.json, logs and checkpoints.")
    spec_hash: ShortText | None = Field(
        None, description="Hash of what decides the result; equal hashes and data adopt each other's work."
    )
    last_checkpoint: LastCheckpoint | None = Field(None, description="The state a new attempt goes on from.")
    estimate: Estimate | None = Field(None, description="Resources that the run is expected to need.")


class FineTuneJob(ApiModel):
    """Tunes a model on data sets: fetches both, trains, merges, checks, and leaves the result in the store."""

    # Once there is a status (the object is of an older release), the operator says so: this rule would keep it from that.
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.status) && has(self.status.phase)) || !has(self.spec.model.fineTuneJob)"
            " || self.spec.model.fineTuneJob.name != self.metadata.name",
            "spec.model.fineTuneJob names the job itself, which would wait for itself: name another, or set spec.model.uri",
            field_path=".spec.model.fineTuneJob.name",
        ),
    )

    spec: FineTuneJobSpec = Field(description="What to tune, on what, how.")
    status: FineTuneJobStatus | None = Field(None, description="What became of it.")
