"""FineTuneJob: tunes a model on data sets and publishes the result in object storage."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    SET_LIST,
    ApiModel,
    Duration,
    QueueName,
    Rule,
    ShortText,
    UriText,
    map_list,
    member_only_with,
)
from tunesmith_api.batches import batch_rule, group_rule
from tunesmith_api.common import AdapterSource, ModelSource, Output, Storage
from tunesmith_api.datasets import BadRows, Dataset, Droppable, EvalDataset, Validation
from tunesmith_api.methods import Cpo, Dpo, Gkd, Grpo, Kto, Orpo, Ppo, Reward, RewardModel, Rloo, Rollouts, Simpo
from tunesmith_api.pods import PodSettings, TuningResources
from tunesmith_api.status import Artifact, JobStatus, ModelStatus
from tunesmith_api.training import (
    AdaLora,
    Checkpointing,
    Export,
    Fit,
    Lora,
    Method,
    Parallelism,
    Qlora,
    Samples,
    Strategy,
    Training,
    Tuner,
    Until,
)

INT64: dict[str, Any] = {"format": "int64"}
DEVICES = "(has(self.resources.count) ? self.resources.count : 1)"
DEVICES_IN_BOUNDS = " && ".join(
    f"{value} >= 1 && {value} <= {most}" for value, most in (("self.parallelism.nodes", 1024), (DEVICES, 64))
)
"""CEL rules run although a bound of the schema is broken: unguarded arithmetic on such a value would fail."""
SAMPLES = "(self.method in ['grpo', 'rloo', 'ppo'])"
"""CEL: the method learns from completions that the model samples."""
NOT_STREAMED = "!self.training.streaming"
"""CEL: the rows are read before the training."""


class FineTuneJobSpec(ApiModel):
    """Model, data and settings of a FineTuneJob. Only suspend, retries, deadlines and ttlAfterFinished can change after creation."""

    mutable: ClassVar[frozenset[str]] = frozenset(
        {"suspend", "retries", "deadline", "pendingDeadline", "ttlAfterFinished"}
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        *member_only_with("method", "dpo", "kto", "orpo", "simpo", "cpo", "reward", "grpo", "rloo", "ppo", "gkd"),
        Rule(
            "self.method != 'gkd' || has(self.gkd)",
            "method gkd learns from a teacher: set gkd.teacher, or another method",
        ),
        Rule(
            f"{SAMPLES} == has(self.rewards)",
            "rewards go with methods grpo, rloo and ppo, which need them: set rewards, or remove them",
        ),
        *(
            Rule(
                group_rule(DEVICES_IN_BOUNDS, method, "self.parallelism.nodes", DEVICES),
                f"training.globalBatchSize counts completions, and each device takes whole groups: it is a multiple of {method}.numGenerations "
                "x parallelism.nodes x resources.count; change one of them",
            )
            for method in ("grpo", "rloo")
        ),
        Rule(
            f"!has(self.validation) || !{SAMPLES}",
            "methods grpo, rloo and ppo have no validation loss, as they sample their own completions: remove validation",
        ),
        Rule(
            "!has(self.lora) || self.tuner != 'full'",
            "the block lora goes with tuners that add an adapter; remove the block or set tuner: lora",
        ),
        *member_only_with("tuner", "qlora", "adalora"),
        Rule(
            "self.tuner != 'ia3' || !has(self.lora) || !has(self.lora.dropout) || self.lora.dropout == 0.0",
            "tuner ia3 has no dropout: remove lora.dropout",
        ),
        Rule(
            "self.tuner != 'adalora' || !has(self.lora) || !has(self.lora.from)",
            "the ranks of an adapter of adalora are settled: remove lora.from, or go on from the merged model",
        ),
        Rule(
            "!has(self.adalora) || !has(self.adalora.initialRank) || self.adalora.initialRank > "
            "(has(self.lora) && has(self.lora.rank) ? self.lora.rank : 16)",
            "adalora.initialRank is reduced to lora.rank: set it to more than lora.rank (default 16)",
        ),
        Rule(
            "self.tuner != 'adalora' || !has(self.training) || !has(self.training.earlyStopping)",
            "the ranks of adalora are settled by the number of steps: remove training.earlyStopping",
        ),
        Rule(
            batch_rule(DEVICES_IN_BOUNDS, "self.parallelism.nodes", DEVICES),
            "training.globalBatchSize is a multiple of all devices (parallelism.nodes x resources.count): change one of them",
        ),
        Rule(
            f"!has(self.validation) || !has(self.validation.fraction) || {NOT_STREAMED}",
            "validation.fraction holds out a share of all rows, whose number is not known when they are streamed: use validation.uri",
        ),
        Rule(
            f"{NOT_STREAMED} || (!has(self.drop) && self.datasets.all(each, !has(each.weight)))",
            "weights and drop need all rows before the training, which streaming reads while it trains: remove them, or streaming",
        ),
        Rule(
            "!has(self.lora) || !has(self.lora.from) || self.method != 'reward'",
            "lora.from names an adapter of a model that writes text, and method reward trains a model with a head: remove lora.from",
        ),
        Rule(
            "!has(self.samples) || !(self.method in ['reward', 'classify', 'embed'])",
            "samples are answers in words, which models of method reward, classify and embed do not give: remove samples",
        ),
        Rule(
            "!has(self.training.earlyStopping) || has(self.validation)",
            "training.earlyStopping watches the validation loss: set validation, or remove earlyStopping",
        ),
        Rule(
            "self.export.weights == 'last' || has(self.validation)",
            "export.weights best is the step with the lowest validation loss: set validation, or weights: last",
        ),
        Rule(
            "!has(self.training.chatTemplate) || self.tuner == 'full' || self.export.merge",
            "training.chatTemplate is saved with a merged model; an adapter is served with the template of its base: set export.merge: true",
        ),
        Rule(
            "!has(self.maxBadShare) || self.onBadRow == 'Drop'",
            "maxBadShare goes with onBadRow: Drop; remove maxBadShare or set onBadRow: Drop",
        ),
        Rule(
            "!self.datasets.exists(each, has(each.weight)) || self.datasets.all(each, has(each.weight))",
            "weights are relative to each other: give each of datasets a weight, or none",
        ),
    )

    model: ModelSource = Field(description="The base model.")
    datasets: list[Dataset] = Field(
        min_length=1, max_length=64, description="Data sets, read in this order.", json_schema_extra=ATOMIC_LIST
    )
    validation: Validation | None = Field(None, description="Rows on which the loss is measured. Default: none.")
    on_bad_row: BadRows = Field(
        BadRows.FAIL,
        description="Fail, or Drop rows that cannot be read and count them in status.rows. Default Fail.",
    )
    max_bad_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="With onBadRow Drop: the share of bad rows in a data set above which the job fails. Default 0.1.",
    )
    drop: list[Droppable] | None = Field(
        None,
        max_length=4,
        description="Rows to drop: Duplicate (the text of an earlier row, but for white space). Default: none.",
        json_schema_extra=SET_LIST,
    )
    decontaminate: list[EvalDataset] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="Test data of evaluations: rows of datasets with a question of theirs, or 13 words that are in one of their questions only, "
        "are dropped (reason Contaminated). Default: none.",
        json_schema_extra=ATOMIC_LIST,
    )
    method: Method = Field(
        Method.SFT,
        description="sft, pretrain, dpo, kto, orpo, simpo, cpo, reward, grpo, rloo, ppo or gkd. Default sft.",
    )
    dpo: Dpo | None = Field(None, description="Settings of method dpo.")
    kto: Kto | None = Field(None, description="Settings of method kto.")
    orpo: Orpo | None = Field(None, description="Settings of method orpo.")
    simpo: Simpo | None = Field(None, description="Settings of method simpo.")
    cpo: Cpo | None = Field(None, description="Settings of method cpo.")
    reward: RewardModel | None = Field(None, description="Settings of method reward.")
    grpo: Grpo | None = Field(None, description="Settings of method grpo.")
    gkd: Gkd | None = Field(None, description="Settings of method gkd.")
    rloo: Rloo | None = Field(None, description="Settings of method rloo.")
    ppo: Ppo | None = Field(None, description="Settings of method ppo.")
    rewards: list[Reward] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="Rewards of methods grpo, rloo and ppo, which are added.",
        json_schema_extra=map_list("name"),
    )
    tuner: Tuner = Field(
        Tuner.LORA, description="lora, full, qlora, dora, adalora, oft, loha, lokr, vera, ia3 or miss. Default lora."
    )
    adalora: AdaLora | None = Field(None, description="Settings of tuner adalora.")
    lora: Lora | None = Field(
        None,
        description="Settings of the adapter, for all tuners but full. vera, oft, ia3 and miss have no alpha, and ia3 has no rank.",
    )
    qlora: Qlora | None = Field(None, description="Quantization of the base, for tuner qlora.")
    training: Training = Field(default_factory=Training, description="Optimization.")
    samples: Samples | None = Field(
        None, description="Answers of the model to fixed prompts, in the run's folder and on its page. Default: none."
    )
    parallelism: Parallelism = Field(default_factory=Parallelism, description="Distribution over pods and devices.")
    resources: TuningResources = Field(default_factory=TuningResources, description="Resources of each pod.")
    checkpoint: Checkpointing = Field(default_factory=Checkpointing, description="Checkpoints in the store.")
    export: Export = Field(default_factory=Export, description="Processing of the trained weights.")
    output: Output = Field(default_factory=Output, description="Destination of the results.")
    storage: Storage | None = Field(None, description="S3 endpoint and credentials. Default: the chart's store.")
    pod: PodSettings = Field(default_factory=PodSettings, description="Settings of the pods.")
    until: Until = Field(
        Until.EXPORT,
        description="Last stage: estimate or data (status.estimate and status.rows, without a device), train or export. Default export.",
    )
    fit: Fit = Field(
        Fit.WARN,
        description="Warn, or Refuse a job whose estimate is more than the memory of its devices (class WillNotFit). Default Warn.",
    )
    suspend: bool = Field(
        False, description="Stop the pods and keep the last checkpoint; false resumes from it. Default false."
    )
    queue_name: QueueName | None = Field(
        None, description="Kueue LocalQueue of this namespace to wait in. Default: none."
    )
    retries: int = Field(
        3, ge=0, le=100, description="Further attempts after transient failures; preemptions do not count. Default 3."
    )
    deadline: Duration | None = Field(
        None,
        description="Maximum time from the first start, such as 12h, including time suspended or queued again. Default: none.",
    )
    pending_deadline: Duration | None = Field(
        None,
        description="Maximum time that pods wait to be scheduled, such as 1h; time in a queue does not count. Default: none.",
    )
    ttl_after_finished: Duration | None = Field(
        None,
        description="Time after which the pods of a finished job are deleted, such as 1d; the resource stays. Default: never.",
    )
    rerun: Annotated[str, Field(max_length=63)] | None = Field(
        None,
        description="Any text. Specs that differ in it only are different runs, so that a finished run is not adopted. Default: none.",
    )

    @property
    def initial_adapter(self) -> AdapterSource | None:
        """The adapter that the training goes on with; None for a new one."""
        return self.lora.from_ if self.lora else None

    @property
    def rollouts(self) -> Rollouts | None:
        """How the method samples groups of completions; None for a method that samples none."""
        return {Method.GRPO: self.grpo or Grpo(), Method.RLOO: self.rloo or Rloo()}.get(self.method)

    @property
    def actor_critic(self) -> Ppo | None:
        """The settings of method ppo; None for another method."""
        return (self.ppo or Ppo()) if self.method is Method.PPO else None


class Progress(ApiModel):
    """Progress of the run."""

    stage: ShortText | None = Field(None, description="Current stage: fetch, train or export.")
    step: int = Field(0, ge=0, description="Optimizer steps done.")
    total_steps: int = Field(0, ge=0, description="Optimizer steps in total.")
    percent: int = Field(0, ge=0, le=100, description="Share of the steps done, in percent.")
    epoch: float | None = Field(None, ge=0, description="Passes over the data done.")
    loss: float | None = Field(None, description="Latest training loss.")
    eval_loss: float | None = Field(None, description="Latest validation loss.")
    eval_losses: list[float] | None = Field(
        None,
        max_length=16,
        description="That of each of validation.datasets, if there are several.",
        json_schema_extra=ATOMIC_LIST,
    )
    reward: float | None = Field(None, description="Latest mean reward of completions.")
    truncated_share: float | None = Field(
        None, ge=0, le=1, description="Latest share of completions that maxCompletionLength cut off."
    )
    sampling_share: float | None = Field(None, ge=0, description="Latest share of the time that sampling takes.")
    reward_margin: float | None = Field(
        None, description="Latest mean reward of chosen beyond that of rejected answers."
    )
    reward_accuracy: float | None = Field(
        None, description="Latest share of pairs whose chosen answer has more reward."
    )
    kl: float | None = Field(None, description="Latest KL divergence from the reference model, or from the teacher.")
    learning_rate: float | None = Field(None, description="Current learning rate.")
    tokens_per_second: float | None = Field(None, ge=0, description="Tokens trained on per second.")
    eta_seconds: int | None = Field(None, ge=0, description="Estimated seconds left.")
    updated: str | None = Field(
        None, description="When it was reported (RFC 3339).", json_schema_extra={"format": "date-time"}
    )


class DroppedRows(ApiModel):
    """Rows that are not used."""

    reason: ShortText = Field(description="Reason.")
    count: int = Field(ge=0, description="Number of rows.")


class IgnoredKey(ApiModel):
    """A key of rows that is not read."""

    key: ShortText = Field(description="The key; messages[].key for a key in messages.")
    count: int = Field(ge=0, description="Rows that have it.")


class DatasetRows(ApiModel):
    """What the weight of a data set makes of its rows, in each pass."""

    index: int = Field(ge=0, description="Index in spec.datasets.")
    rows: int = Field(ge=0, description="Rows that can be trained on.")
    used: int = Field(ge=0, description="Rows of the data set in a pass, with repetitions.")
    repeated: int = Field(ge=0, description="Repetitions among them.")
    left: int = Field(ge=0, description="Rows that are not used.")


class Rows(ApiModel):
    """Counts of the rows of the data sets."""

    kept: int = Field(0, ge=0, description="Rows trained on.")
    validation: int | None = Field(None, ge=0, description="Rows held out.")
    dropped: list[DroppedRows] | None = Field(
        None, max_length=16, description="Rows not used, by reason.", json_schema_extra=map_list("reason")
    )
    truncated: int | None = Field(
        None, ge=0, description="Rows of kept that are longer than maxLength: trained on in part, or in pieces."
    )
    ignored_keys: list[IgnoredKey] | None = Field(
        None, max_length=16, description="Keys of rows that are not read.", json_schema_extra=map_list("key")
    )
    datasets: list[DatasetRows] | None = Field(
        None, max_length=64, description="Rows of each data set by its weight.", json_schema_extra=map_list("index")
    )
    more_datasets: int | None = Field(None, ge=0, description="Further data sets, which are in run.json only.")


class LastCheckpoint(ApiModel):
    """Checkpoint from which a new attempt resumes."""

    uri: UriText = Field(description="Folder in the store.")
    step: int = Field(ge=0, description="Optimizer steps it contains.")
    time: str | None = Field(
        None, description="When it was saved (RFC 3339).", json_schema_extra={"format": "date-time"}
    )


class EstimatedMemory(ApiModel):
    """Memory of a device at the peak of the training, by part, in bytes. The parts add up to memoryBytes."""

    weights: int | None = Field(None, ge=0, description="Weights.", json_schema_extra=INT64)
    gradients: int | None = Field(None, ge=0, description="Gradients at that moment.", json_schema_extra=INT64)
    optimizer: int | None = Field(None, ge=0, description="State of the optimizer.", json_schema_extra=INT64)
    activations: int | None = Field(None, ge=0, description="Activations of the longest rows.", json_schema_extra=INT64)
    logits: int | None = Field(None, ge=0, description="Logits and their gradients.", json_schema_extra=INT64)
    buffers: int | None = Field(None, ge=0, description="Buffers between devices.", json_schema_extra=INT64)
    runtime: int | None = Field(None, ge=0, description="Process without a model.", json_schema_extra=INT64)


class Estimate(ApiModel):
    """Resources that the run is expected to need."""

    summary: ShortText | None = Field(None, description="The estimate in one line.")
    memory_bytes: int | None = Field(None, ge=0, description="Memory per device, in bytes.", json_schema_extra=INT64)
    memory: EstimatedMemory | None = Field(None, description="Memory per device, by part.")
    device_memory_bytes: int | None = Field(
        None, ge=0, description="Memory that each device has, in bytes, where it is known.", json_schema_extra=INT64
    )
    parameters: int | None = Field(None, ge=0, description="Parameters of the model.", json_schema_extra=INT64)
    trained_parameters: int | None = Field(None, ge=0, description="Trained parameters.", json_schema_extra=INT64)
    download_bytes: int | None = Field(
        None, ge=0, description="Model and data that a pod downloads, in bytes.", json_schema_extra=INT64
    )
    disk_bytes: int | None = Field(
        None, ge=0, description="Disk of a pod: model, data, checkpoint and results, in bytes.", json_schema_extra=INT64
    )
    rows: int | None = Field(
        None, ge=0, description="Sequences to train on: a row may have several.", json_schema_extra=INT64
    )
    tokens: int | None = Field(None, ge=0, description="Tokens to train on, over all epochs.", json_schema_extra=INT64)
    steps: int | None = Field(None, ge=0, description="Optimizer steps.")
    sampled: bool | None = Field(None, description="Whether rows, tokens and steps follow from a sample of the rows.")
    strategy: Strategy | None = Field(
        None, description="How several devices share the training: parallelism.strategy, or what auto takes."
    )
    device: ShortText | None = Field(None, description="Device that the hours are for.")
    hours: float | None = Field(None, ge=0, description="Hours of training on that device.")
    accelerator_hours: float | None = Field(None, ge=0, description="Hours multiplied by devices.")
    changes: list[ShortText] | None = Field(
        None, max_length=8, description="Changes, made together, with which it fits.", json_schema_extra=ATOMIC_LIST
    )


class Metrics(ApiModel):
    """Figures of a finished run."""

    train_loss: float | None = Field(None, description="Loss of the last step.")
    eval_loss: float | None = Field(None, description="Validation loss at the end.")
    eval_losses: list[float] | None = Field(
        None,
        max_length=16,
        description="That of each of validation.datasets, if there are several.",
        json_schema_extra=ATOMIC_LIST,
    )
    best_step: int | None = Field(None, ge=0, description="Step with the lowest validation loss.")
    best_eval_loss: float | None = Field(None, description="Lowest validation loss.")
    steps: int | None = Field(None, ge=0, description="Optimizer steps done.")
    tokens: int | None = Field(None, ge=0, description="Tokens trained on.", json_schema_extra={"format": "int64"})
    train_seconds: float | None = Field(None, ge=0, description="Seconds of training, over all attempts.")
    peak_memory_bytes: int | None = Field(
        None,
        ge=0,
        description="Peak memory of a device, or of the process on a CPU, in the last attempt, in bytes.",
        json_schema_extra={"format": "int64"},
    )


class FineTuneJobStatus(JobStatus):
    """State and results of a FineTuneJob."""

    model: ModelStatus | None = Field(None, description="Identity of the base model.")
    resumed_from_step: int | None = Field(None, ge=0, description="Step from which this attempt resumed.")
    progress: Progress | None = Field(None, description="Progress of the run.")
    rows: Rows | None = Field(None, description="Counts of the rows.")
    metrics: Metrics | None = Field(None, description="Figures of the finished run.")
    artifacts: list[Artifact] | None = Field(
        None, max_length=16, description="Artifacts in the store.", json_schema_extra=map_list("name")
    )
    run_uri: UriText | None = Field(None, description="The run's folder, with run.json, logs and checkpoints.")
    report_uri: UriText | None = Field(
        None, description="Page (HTML) with settings, rows, curves and figures of the run."
    )
    spec_hash: ShortText | None = Field(
        None,
        description="Hash of the fields that decide the result. Jobs with equal hashes and data adopt each other's runs.",
    )
    last_checkpoint: LastCheckpoint | None = Field(None, description="Checkpoint from which a new attempt resumes.")
    estimate: Estimate | None = Field(None, description="Resources that the run is expected to need.")


class FineTuneJob(ApiModel):
    """Tunes a model on data sets: fetches both, trains, merges, checks, and publishes the result in the store."""

    # An object of an older release has a status: the operator reports the fault there, which this rule would prevent.
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.status) && has(self.status.phase)) || !has(self.spec.model.fineTuneJob)"
            " || self.spec.model.fineTuneJob.name != self.metadata.name",
            "spec.model.fineTuneJob names the job itself, which would wait for itself: name another, or set spec.model.uri",
            field_path=".spec.model.fineTuneJob.name",
        ),
        Rule(
            "(has(self.status) && has(self.status.phase)) || !has(self.spec.lora) || !has(self.spec.lora.from)"
            " || !has(self.spec.lora.from.fineTuneJob) || self.spec.lora.from.fineTuneJob.name != self.metadata.name",
            "spec.lora.from.fineTuneJob names the job itself, which would wait for itself: name another, or set spec.lora.from.uri",
            field_path=".spec.lora",
        ),
        Rule(
            "!has(self.spec.gkd) || !has(self.spec.gkd.teacher.fineTuneJob)"
            " || self.spec.gkd.teacher.fineTuneJob.name != self.metadata.name",
            "spec.gkd.teacher.fineTuneJob names the job itself, which would wait for itself: name another",
            field_path=".spec.gkd.teacher.fineTuneJob.name",
        ),
    )

    spec: FineTuneJobSpec = Field(description="What to tune, on what, how.")
    status: FineTuneJobStatus | None = Field(None, description="What became of it.")
