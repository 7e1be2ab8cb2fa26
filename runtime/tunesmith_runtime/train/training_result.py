"""trained.json in the run's folder: the result of training. A later attempt continues with export."""

from __future__ import annotations

from pydantic import Field

from tunesmith_api.base import ApiModel
from tunesmith_api.finetunejob_status import Metrics, Rows
from tunesmith_api.run import Outcome, RunReport, Verb
from tunesmith_api.status import Artifact
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.storage.directory import delete_directory

RESULT_FILE = "trained.json"


class TrainedLogits(ApiModel):
    """Some logits of the trained model, computed before it was saved, with which export compares the reloaded one."""

    rows: list[list[int]] = Field(description="Tokens of each row.")
    values: list[list[float]] = Field(
        description="Logits of the last positions of each row, for the tokens of the row."
    )
    largest: list[float] = Field(description="The largest absolute value among all logits of each row.")
    bf16: bool = Field(description="Whether the model computed in bfloat16.")


class TrainingResult(ApiModel):
    """The result of training, for export and run.json."""

    artifact: Artifact = Field(description="The adapter, or the model if all weights were trained.")
    rows: Rows = Field(description="How many rows were kept, held out and dropped.")
    metrics: Metrics = Field(description="Metrics of the training.")
    seeds: dict[str, int] = Field(description="Seeds of the random number generators.")
    kernels: dict[str, str] | None = Field(None, description="The code that computed the parts of a step.")
    trained_parameters: dict[str, int] | None = Field(
        None, description="Numbers that were trained, by part of the model."
    )
    template_hash: str | None = Field(None, description="sha256 of the chat template.")
    resumed_from_step: int | None = Field(None, description="Step from which the last attempt resumed.")
    tracking_url: str | None = Field(None, description="Page of the run on the tracker's server.")
    logits: TrainedLogits | None = Field(None, description="Unset where no process had the whole model.")

    def report(self, run_uri: str) -> RunReport:
        """Return the report of the verb train."""
        return RunReport(
            verb=Verb.TRAIN,
            outcome=Outcome.SUCCEEDED,
            run_uri=run_uri,
            artifacts=[self.artifact],
            rows=self.rows,
            metrics=self.metrics,
            resumed_from_step=self.resumed_from_step,
            tracking_url=self.tracking_url,
        )


def read_result(run: RunDirectory) -> TrainingResult | None:
    """Read trained.json; None if no attempt at this run has trained."""
    content = run.read_json(RESULT_FILE)
    return None if content is None else TrainingResult.model_validate(content)


def write_result(run: RunDirectory, result: TrainingResult) -> TrainingResult:
    """Write trained.json and return it. If another pod was first, return its result and delete the artifact of `result`."""
    stored = TrainingResult.model_validate(run.write_json(RESULT_FILE, result.to_dict()))
    if stored.artifact.uri != result.artifact.uri:
        delete_directory(run.storage, result.artifact.uri)
    return stored
