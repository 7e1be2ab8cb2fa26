"""State and results of a FineTuneJob."""

from __future__ import annotations

from pydantic import Field

from tunesmith_api.base import ATOMIC_LIST, ApiModel, ShortText, UriText, map_list
from tunesmith_api.status import Artifact, JobStatus, ModelStatus
from tunesmith_api.training import Strategy


class MeanReward(ApiModel):
    """Mean of a reward."""

    name: ShortText = Field(description="Name in spec.rewards.")
    mean: float = Field(description="Latest mean over completions.")


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
    rewards: list[MeanReward] | None = Field(
        None,
        max_length=16,
        description="That of each of spec.rewards, before its weight.",
        json_schema_extra=map_list("name"),
    )
    truncated_share: float | None = Field(
        None, ge=0, le=1, description="Latest share of completions that maxCompletionLength cut off."
    )
    sampling_share: float | None = Field(None, ge=0, description="Latest share of the time that sampling takes.")
    loading_share: float | None = Field(
        None, ge=0, le=1, description="Latest share of the time in which devices wait for images."
    )
    reward_margin: float | None = Field(
        None, description="Latest mean reward of chosen beyond that of rejected answers."
    )
    reward_accuracy: float | None = Field(
        None, description="Latest share of pairs whose chosen answer has more reward."
    )
    kl: float | None = Field(None, description="Latest KL divergence from the reference model, or from the teacher.")
    eval_accuracy: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the validation rows whose classes are all right; of rerank, whose positive ranks first.",
    )
    eval_f1: float | None = Field(
        None, ge=0, le=1, description="Of classify: F1 of the validation rows, as a mean over the classes (macro)."
    )
    eval_correlation: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Of regression, and of pairs with scores: Pearson's correlation on the validation rows.",
    )
    eval_recall: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Of embed: share of the validation rows whose positive is nearest among all texts that are searched.",
    )
    eval_mrr: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Of rerank: mean reciprocal rank of the positive among the passages of a validation row.",
    )
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


class ConvertedImages(ApiModel):
    """Images whose pixels differ from those of their files."""

    conversion: ShortText = Field(description="Turned, Flattened, Scaled16Bit, FromCMYK or FirstFrame.")
    count: int = Field(ge=0, description="Number of images.")


class IgnoredKey(ApiModel):
    """A key of rows that is not read."""

    key: ShortText = Field(description="The key; messages[].key for a key in messages.")
    count: int = Field(ge=0, description="Rows that have it.")


class DatasetRows(ApiModel):
    """Effect of a data set's weight on its rows, in each pass."""

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
    converted: list[ConvertedImages] | None = Field(
        None,
        max_length=16,
        description="Images of kept and held out rows that were converted, by what was done.",
        json_schema_extra=map_list("conversion"),
    )
    ignored_keys: list[IgnoredKey] | None = Field(
        None, max_length=16, description="Keys of rows that are not read.", json_schema_extra=map_list("key")
    )
    datasets: list[DatasetRows] | None = Field(
        None,
        max_length=64,
        description="Rows of each data set in each pass, by its weight.",
        json_schema_extra=map_list("index"),
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

    weights: int | None = Field(None, ge=0, description="Weights.")
    gradients: int | None = Field(None, ge=0, description="Gradients at that moment.")
    optimizer: int | None = Field(None, ge=0, description="State of the optimizer.")
    activations: int | None = Field(None, ge=0, description="Activations of the longest rows.")
    logits: int | None = Field(None, ge=0, description="Logits and their gradients.")
    buffers: int | None = Field(None, ge=0, description="Buffers between devices.")
    runtime: int | None = Field(None, ge=0, description="Process without a model.")


class Estimate(ApiModel):
    """Resources that the run is expected to need."""

    summary: ShortText | None = Field(None, description="The estimate in one line.")
    memory_bytes: int | None = Field(None, ge=0, description="Memory per device, in bytes.")
    memory: EstimatedMemory | None = Field(None, description="Memory per device, by part.")
    host_memory_bytes: int | None = Field(
        None,
        ge=0,
        description="Memory of the first pod beside its devices, in bytes: what parallelism.offload takes, and state that is collected for checkpoints.",
    )
    device_memory_bytes: int | None = Field(
        None, ge=0, description="Memory that each device has, in bytes, where it is known."
    )
    parameters: int | None = Field(None, ge=0, description="Parameters of the model.")
    trained_parameters: int | None = Field(None, ge=0, description="Trained parameters.")
    download_bytes: int | None = Field(None, ge=0, description="Model and data that a pod downloads, in bytes.")
    disk_bytes: int | None = Field(
        None, ge=0, description="Disk of a pod: model, data, checkpoint and results, in bytes."
    )
    rows: int | None = Field(None, ge=0, description="Sequences to train on: a row may have several.")
    tokens: int | None = Field(None, ge=0, description="Tokens to train on, over all epochs.")
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
    eval_accuracy: float | None = Field(None, ge=0, le=1, description="As progress.evalAccuracy, at the end.")
    eval_f1: float | None = Field(None, ge=0, le=1, description="As progress.evalF1, at the end.")
    eval_correlation: float | None = Field(None, ge=-1, le=1, description="As progress.evalCorrelation, at the end.")
    eval_recall: float | None = Field(None, ge=0, le=1, description="As progress.evalRecall, at the end.")
    eval_mrr: float | None = Field(None, ge=0, le=1, description="As progress.evalMrr, at the end.")
    steps: int | None = Field(None, ge=0, description="Optimizer steps done.")
    tokens: int | None = Field(None, ge=0, description="Tokens trained on.")
    train_seconds: float | None = Field(None, ge=0, description="Seconds of training, over all attempts.")
    peak_memory_bytes: int | None = Field(
        None,
        ge=0,
        description="Peak memory of a device, or of the process on a CPU, in the last attempt, in bytes.",
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
    tracking_url: UriText | None = Field(None, description="Page of the run on the server of spec.tracking.")
    spec_hash: ShortText | None = Field(
        None,
        description="Hash of the fields that decide the result. Jobs with equal hashes and data adopt each other's runs.",
    )
    last_checkpoint: LastCheckpoint | None = Field(None, description="Checkpoint from which a new attempt resumes.")
    estimate: Estimate | None = Field(None, description="Resources that the run is expected to need.")
