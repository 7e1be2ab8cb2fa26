"""trained.json in the run's folder: training is done. A later attempt goes on with export instead of training anew."""

from __future__ import annotations

from pydantic import Field

from tunesmith_api.base import ApiModel
from tunesmith_api.common import Artifact
from tunesmith_api.finetunejob import Metrics, Rows
from tunesmith_api.run import Outcome, RunReport, Verb
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.storage.directory import delete_directory

TRAINED = "trained.json"


class Trained(ApiModel):
    """What training made, for export and run.json."""

    artifact: Artifact = Field(description="The adapter, or the model where all weights were trained.")
    rows: Rows = Field(description="What became of the rows.")
    metrics: Metrics = Field(description="Figures of the training.")
    seeds: dict[str, int] = Field(description="Seeds of the random number generators.")
    template_hash: str | None = Field(None, description="sha256 of the chat template.")
    resumed_from_step: int | None = Field(None, description="The step the last attempt went on from.")

    def report(self, run_uri: str) -> RunReport:
        """What the verb train says of it."""
        return RunReport(
            verb=Verb.TRAIN,
            outcome=Outcome.SUCCEEDED,
            run_uri=run_uri,
            artifacts=[self.artifact],
            rows=self.rows,
            metrics=self.metrics,
            resumed_from_step=self.resumed_from_step,
        )


def read_trained(run: RunDirectory) -> Trained | None:
    """What an attempt at this run has trained, if one has."""
    content = run.read_json(TRAINED)
    return None if content is None else Trained.model_validate(content)


def write_trained(run: RunDirectory, trained: Trained) -> Trained:
    """Leave trained.json, unless another pod has; what is there now counts, and what else we made is removed."""
    stored = Trained.model_validate(run.write_json(TRAINED, trained.to_dict()))
    if stored.artifact.uri != trained.artifact.uri:
        delete_directory(run.storage, trained.artifact.uri)
    return stored
