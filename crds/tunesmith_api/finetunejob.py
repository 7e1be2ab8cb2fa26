"""FineTuneJob: tunes a model on data sets and publishes the result in object storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    SET_LIST,
    ApiModel,
    Duration,
    FurtherDuration,
    QueueName,
    Rule,
    listed,
    map_list,
)
from tunesmith_api.common import AdapterSource, FurtherModel, ModelSource, Output, Storage
from tunesmith_api.datasets import BadRows, Dataset, Droppable, EvalDataset, Validation
from tunesmith_api.finetunejob_rules import JOB_RULES, SPEC_RULES
from tunesmith_api.finetunejob_status import FineTuneJobStatus
from tunesmith_api.method_facts import METHOD_FACTS, SAMPLING_METHODS, Method, methods_where
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
from tunesmith_api.pods import PodSettings, TuningResources
from tunesmith_api.rewards import Reward, RewardCode
from tunesmith_api.tracking import Tracking
from tunesmith_api.training import Checkpointing, Export, Fit, Parallelism, Samples, Training, Until
from tunesmith_api.tuners import AdaLora, Lora, PromptTuning, Qlora, Tuner, tuners_where


class FineTuneJobSpec(ApiModel):
    """Model, data and settings of a FineTuneJob. Only suspend, retries, deadlines and ttlAfterFinished can change after creation."""

    mutable: ClassVar[frozenset[str]] = frozenset(
        {"suspend", "retries", "deadline", "pendingDeadline", "ttlAfterFinished"}
    )
    unions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "method": methods_where(lambda facts: facts.settings is not None),
        "tuner": tuners_where(lambda facts: facts.settings is not None),
    }
    rules: ClassVar[tuple[Rule, ...]] = SPEC_RULES

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
        description="How the model learns, and from which rows. Default sft.",
    )
    dpo: Dpo | None = Field(None, description="Settings of method dpo.")
    kto: Kto | None = Field(None, description="Settings of method kto.")
    orpo: Orpo | None = Field(None, description="Settings of method orpo.")
    simpo: Simpo | None = Field(None, description="Settings of method simpo.")
    cpo: Cpo | None = Field(None, description="Settings of method cpo.")
    reward: RewardModel | None = Field(None, description="Settings of method reward.")
    classify: Classify | None = Field(None, description="Settings of method classify.")
    embed: Embed | None = Field(None, description="Settings of method embed.")
    rerank: Rerank | None = Field(None, description="Settings of method rerank.")
    grpo: Grpo | None = Field(None, description="Settings of method grpo.")
    gkd: Gkd | None = Field(None, description="Settings of method gkd.")
    rloo: Rloo | None = Field(None, description="Settings of method rloo.")
    ppo: Ppo | None = Field(None, description="Settings of method ppo.")
    rewards: list[Reward] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description=f"Rewards of methods {listed(SAMPLING_METHODS, 'and')}, which are added.",
        json_schema_extra=map_list("name"),
    )
    tuner: Tuner = Field(
        Tuner.LORA,
        description="What is trained: an adapter, or all weights (full). Default lora.",
    )
    adalora: AdaLora | None = Field(None, description="Settings of tuner adalora.")
    lora: Lora | None = Field(
        None,
        description="Settings of the adapter, for all tuners but full and prompt. vera, oft, ia3 and miss have no alpha, and ia3 has no rank.",
    )
    qlora: Qlora | None = Field(None, description="Quantization of the base, for tuner qlora.")
    prompt: PromptTuning | None = Field(None, description="Virtual tokens, for tuner prompt.")
    training: Training = Field(default_factory=Training, description="Optimization.")
    samples: Samples | None = Field(
        None, description="Answers of the model to fixed prompts, in the run's folder and on its page. Default: none."
    )
    tracking: Tracking | None = Field(None, description="Tracker that gets the metrics. Default: none.")
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
    pending_deadline: FurtherDuration | None = Field(
        None,
        description="Maximum time that pods wait to be scheduled, such as 1h; time in a queue does not count. Default: none.",
    )
    ttl_after_finished: FurtherDuration | None = Field(
        None,
        description="Time after which the pods of a finished job are deleted, such as 1d; the resource stays. Default: never.",
    )
    rerun: Annotated[str, Field(max_length=63)] | None = Field(
        None,
        description="Any text. Specs that differ in it only are different runs, so that a finished run is not adopted. Default: none.",
    )

    @property
    def initial_adapter(self) -> AdapterSource | None:
        """The adapter from which the training continues; None for a new adapter."""
        return self.lora.from_ if self.lora else None

    @property
    def reward_model(self) -> FurtherModel | None:
        """The model of the reward of type model; None without one."""
        return next((reward.model for reward in self.rewards or () if reward.model), None)

    @property
    def reward_code(self) -> RewardCode | None:
        """The code of the reward of type code; None without one."""
        return next((reward.code for reward in self.rewards or () if reward.code), None)

    @property
    def rollouts(self) -> Rollouts | None:
        """The settings with which the method samples groups of completions; None for another method."""
        settings = METHOD_FACTS[self.method].settings
        if settings is None or not issubclass(settings, Rollouts):
            return None
        found: Rollouts | None = getattr(self, self.method)
        return found or settings()

    @property
    def virtual_tokens(self) -> int:
        """Number of virtual tokens before each row; 0 with another tuner than prompt."""
        return (self.prompt or PromptTuning()).tokens if self.tuner is Tuner.PROMPT else 0

    @property
    def actor_critic(self) -> Ppo | None:
        """The settings of method ppo; None for another method."""
        return (self.ppo or Ppo()) if self.method is Method.PPO else None


class FineTuneJob(ApiModel):
    """Tunes a model on data sets: fetches both, trains, merges, checks, and publishes the result in the store."""

    rules: ClassVar[tuple[Rule, ...]] = JOB_RULES

    spec: FineTuneJobSpec = Field(description="What to tune, on what, how.")
    status: FineTuneJobStatus | None = Field(None, description="What became of it.")
