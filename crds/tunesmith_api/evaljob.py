"""EvalJob: scores a model and a baseline on benchmarks, compares the scores with gates, and gives a verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    SET_LIST,
    ApiModel,
    CatalogueName,
    DataUri,
    Duration,
    QueueName,
    Rule,
    ShortText,
    SplitText,
    Text,
    exactly_one,
    map_list,
)
from tunesmith_api.catalogue import name_uri
from tunesmith_api.common import ModelSource, Output, Storage
from tunesmith_api.datasets import RowTemplate
from tunesmith_api.grammar import Grammar
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import PodSettings, Resources
from tunesmith_api.status import Artifact, JobStatus, ModelStatus

BENCHMARK_NAME = Grammar(
    pattern=r"^[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?$",
    problem="is not a benchmark name",
    advice="write letters, digits, -, _ and ., beginning and ending with a letter or digit",
    repairs=((" ", "-"), ("/", "-"), (":", "-")),
)
BenchmarkName = Annotated[str, Field(min_length=1, max_length=63), BENCHMARK_NAME]


class BenchmarkType(StrEnum):
    """Format of a benchmark's data."""

    QA = "qa"
    MULTIPLE_CHOICE = "multipleChoice"
    VQA = "vqa"
    CAPTION = "caption"
    OCR = "ocr"
    GROUNDING = "grounding"
    BENCHMARK = "benchmark"


PICTURE_TYPES = frozenset({BenchmarkType.VQA, BenchmarkType.CAPTION, BenchmarkType.OCR, BenchmarkType.GROUNDING})
"""Types of rows with pictures."""


class BenchmarkDataset(ApiModel):
    """The data of a benchmark."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("name", "uri"),
        Rule("!has(self.template) || self.type == 'qa'", "template goes with type: qa; remove the template"),
        Rule("!has(self.columns) || self.type != 'benchmark'", "columns are of your own rows; remove columns"),
    )

    name: CatalogueName | None = Field(
        None, description="Name in the catalogue, such as gsm8k, looked up as the name of a model."
    )
    uri: DataUri | None = Field(
        None,
        description="Files of rows as in a FineTuneJob's datasets, or for type benchmark the folder that holds the data as the hub has it.",
    )
    subset: ShortText | None = Field(
        None, description="Subset (configuration) of a data set of a hub or folder. Default: its default or only one."
    )
    split: SplitText | None = Field(
        None,
        description="Split of a data set of a hub or folder, or a part of it such as test[:100]. Default: test of a hub, all rows of other data.",
    )
    type: BenchmarkType = Field(
        BenchmarkType.QA,
        description="qa: rows of a question and an answer in any format of FineTuneJob's spec.datasets, correct if the answer equals the reference; "
        "multipleChoice: rows of {question, A, B, ..., answer}; vqa, caption, ocr and grounding: rows with pictures, as {image_path, text, answer} "
        "or {image, caption}; benchmark: the files of EvalScope's benchmark of that name. Default qa.",
    )
    columns: dict[str, ShortText] | None = Field(
        None, max_length=16, description="For your own rows: columns to rename first: {nameInFile: name}."
    )
    template: RowTemplate | None = Field(
        None, description="For qa: the question and the answer from columns of a row. Default: by format."
    )

    @property
    def source(self) -> str:
        """The URI, or catalogue://NAME of a name that is not looked up yet."""
        return self.uri or name_uri(str(self.name))


class Benchmark(ApiModel):
    """A benchmark of EvalScope, or your own data set."""

    name: BenchmarkName = Field(
        description="EvalScope's name, such as gsm8k or mmlu; with a dataset of your own rows any name."
    )
    dataset: BenchmarkDataset | None = Field(
        None, description="Your own data, or files of the named benchmark. Default: from the hub."
    )
    limit: int | None = Field(None, ge=1, description="Number of rows to use, from the first. Default: all.")
    few_shot: int | None = Field(
        None, ge=0, le=64, description="Examples shown before each question. Default: the benchmark's own."
    )
    subsets: list[ShortText] | None = Field(
        None, max_length=128, description="Subsets to use. Default: all.", json_schema_extra=SET_LIST
    )


class Gate(ApiModel):
    """A condition on a score."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("min", "max", "maxRegression", "minImprovement"),
        Rule(
            "self.metric != 'unreadable' || has(self.max)",
            "a lower share of unreadable answers is better: gate the metric unreadable with max",
        ),
        Rule(
            "self.metric != 'characterErrorRate' || has(self.max)",
            "fewer errors are better: gate the metric characterErrorRate with max",
        ),
    )

    benchmark: BenchmarkName = Field(description="Name of one of spec.benchmarks.")
    metric: ShortText = Field(
        "accuracy", description="Metric of that benchmark, as in status.results. Default accuracy."
    )
    min: float | None = Field(None, description="The score must be at least this.")
    max: float | None = Field(None, description="The score must be at most this.")
    max_regression: float | None = Field(
        None, ge=0, description="The score may be at most this far below the baseline's."
    )
    min_improvement: float | None = Field(
        None, ge=0, description="The score must be at least this far above the baseline's."
    )


class Generation(ApiModel):
    """Settings of the generation of answers."""

    max_tokens: int = Field(512, ge=1, le=131072, description="Maximum tokens of an answer. Default 512.")
    temperature: float = Field(
        0.0, ge=0, le=2, description="Sampling temperature; 0: always the likeliest token. Default 0."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Sample from the likeliest tokens of this total probability. Default: all."
    )
    system_prompt: Text | None = Field(
        None,
        description="System message before each question of your own rows, but those of type multipleChoice. Default: none.",
    )
    concurrency: int = Field(8, ge=1, le=256, description="Concurrent requests. Default 8.")


class EvalJobSpec(ApiModel):
    """Models, benchmarks and gates of an EvalJob. Only suspend, retries, deadlines and ttlAfterFinished can change after creation."""

    mutable: ClassVar[frozenset[str]] = frozenset(
        {"suspend", "retries", "deadline", "pendingDeadline", "ttlAfterFinished"}
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.gates) || self.gates.all(g, self.benchmarks.exists(b, b.name == g.benchmark))",
            "every gate names one of spec.benchmarks: add the benchmark or mend the gate's name",
            field_path=".gates",
        ),
        Rule(
            "has(self.baseline) || !has(self.gates) || !self.gates.exists(g, has(g.maxRegression) || has(g.minImprovement))",
            "maxRegression and minImprovement compare with a baseline: set spec.baseline, or use min or max",
        ),
    )

    model: ModelSource = Field(description="The model under test.")
    baseline: ModelSource | None = Field(
        None, description="Model to compare with, scored on the same benchmarks. Default: none."
    )
    benchmarks: list[Benchmark] = Field(
        min_length=1,
        max_length=32,
        description="Benchmarks of EvalScope, or your own data sets, to score on.",
        json_schema_extra=map_list("name"),
    )
    gates: list[Gate] | None = Field(
        None,
        max_length=64,
        description="Conditions on the scores. Default: none, which gives the verdict Passed.",
        json_schema_extra=ATOMIC_LIST,
    )
    generation: Generation = Field(default_factory=Generation, description="Settings of the generation of answers.")
    engine: Engine = Field(Engine.AUTO, description="As spec.engine of an InferenceService. Default auto.")
    resources: Resources = Field(default_factory=Resources, description="Resources of the engine.")
    output: Output = Field(
        default_factory=Output, description="Destination of the reports. Default: evals/ in the chart's store."
    )
    storage: Storage | None = Field(None, description="S3 endpoint and credentials. Default: the chart's store.")
    pod: PodSettings = Field(default_factory=PodSettings, description="Settings of the pods.")
    suspend: bool = Field(False, description="Stop the pods; false resumes. Default false.")
    queue_name: QueueName | None = Field(
        None, description="Kueue LocalQueue of this namespace to wait in. Default: none."
    )
    retries: int = Field(
        3, ge=0, le=100, description="Further attempts after transient failures; preemptions do not count. Default 3."
    )
    deadline: Duration | None = Field(
        None,
        description="Maximum time from the first start, such as 2h, including time suspended or queued again. Default: none.",
    )
    pending_deadline: Duration | None = Field(
        None,
        description="Maximum time that pods wait to be scheduled, such as 1h; time in a queue does not count. Default: none.",
    )
    ttl_after_finished: Duration | None = Field(
        None, description="Time after which the pods of a finished job are deleted. Default: never."
    )
    rerun: Annotated[str, Field(max_length=63)] | None = Field(
        None, description="Any text. Specs that differ in it only are different runs. Default: none."
    )


class Result(ApiModel):
    """A score."""

    benchmark: ShortText = Field(description="Name of the benchmark.")
    metric: ShortText = Field(description="Name of the metric.")
    value: float = Field(description="The model's score.")
    samples: int | None = Field(None, ge=0, description="Number of questions.")
    baseline: float | None = Field(None, description="The baseline's score.")
    delta: float | None = Field(None, description="value - baseline.")


class GateResult(ApiModel):
    """Result of a gate."""

    benchmark: ShortText = Field(description="Name of the benchmark.")
    metric: ShortText = Field(description="Name of the metric.")
    passed: bool = Field(description="Whether the score meets the gate.")
    message: Annotated[str, Field(max_length=512)] = Field(description="The score and the gate, in a sentence.")


class Verdict(StrEnum):
    """Whether the scores meet all gates."""

    PASSED = "Passed"
    FAILED = "Failed"


class EvalJobStatus(JobStatus):
    """State and results of an EvalJob."""

    model: ModelStatus | None = Field(None, description="Identity of the model under test.")
    baseline: ModelStatus | None = Field(None, description="Identity of the baseline.")
    progress: EvalProgress | None = Field(None, description="Progress of the evaluation.")
    results: list[Result] | None = Field(
        None, max_length=256, description="The scores.", json_schema_extra=map_list("benchmark", "metric")
    )
    gates: list[GateResult] | None = Field(
        None, max_length=64, description="Result of each gate.", json_schema_extra=ATOMIC_LIST
    )
    verdict: Verdict | None = Field(None, description="Passed or Failed, once it is known.")
    score: ShortText | None = Field(None, description="The first score in short, for the printer column.")
    artifacts: list[Artifact] | None = Field(
        None, max_length=16, description="Reports in the store.", json_schema_extra=map_list("name")
    )
    spec_hash: ShortText | None = Field(None, description="Hash of the fields that decide the result.")
    engine: ShortText | None = Field(None, description="The engine that answers.")


class EvalProgress(ApiModel):
    """Progress of an evaluation."""

    stage: ShortText | None = Field(None, description="Current model (model or baseline) and benchmark.")
    step: int = Field(0, ge=0, description="Questions answered.")
    total_steps: int = Field(0, ge=0, description="Questions in total.")
    percent: int = Field(0, ge=0, le=100, description="Share of the questions answered, in percent.")
    updated: str | None = Field(
        None, description="When it was reported (RFC 3339).", json_schema_extra={"format": "date-time"}
    )


class EvalJob(ApiModel):
    """Scores a model and a baseline on benchmarks, compares the scores with gates, and gives a verdict."""

    spec: EvalJobSpec = Field(description="Models, benchmarks and gates.")
    status: EvalJobStatus | None = Field(None, description="State and results.")


EvalJobStatus.model_rebuild()
