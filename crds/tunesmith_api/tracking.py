"""Trackers: servers outside of the run's folder that show the metrics of runs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import ApiModel, ObjectName, Rule, TrackerUrl


class TrackerName(StrEnum):
    """A tracker."""

    MLFLOW = "mlflow"
    WANDB = "wandb"
    SWANLAB = "swanlab"


CREDENTIALS: Mapping[TrackerName, tuple[str, ...]] = {
    TrackerName.MLFLOW: ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    TrackerName.WANDB: ("WANDB_API_KEY",),
    TrackerName.SWANLAB: ("SWANLAB_API_KEY",),
}
"""Tracker -> keys of the Secret, all optional, and variables of the same names: those of the tracker's own client."""

SERVERS: Mapping[TrackerName, str] = {
    TrackerName.WANDB: "https://api.wandb.ai",
    TrackerName.SWANLAB: "https://api.swanlab.cn",
}
"""Tracker -> its public server."""


class Tracking(ApiModel):
    """A tracker that gets the metrics of the training, beside TensorBoard's files in the run's folder."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.to != 'mlflow' || has(self.url)", "MLflow is a server of your own: set tracking.url"),
        Rule("self.to == 'mlflow' || has(self.secret)", "wandb and swanlab need an API key: set tracking.secret"),
    )

    to: TrackerName = Field(description="mlflow, wandb or swanlab.")
    url: TrackerUrl | None = Field(
        None,
        description="URL of the server, such as https://mlflow.example.com. Default: https://api.wandb.ai or https://api.swanlab.cn.",
    )
    experiment: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None,
        description="Experiment that the run belongs to; PROJECT or TEAM/PROJECT with wandb and swanlab. Default: the namespace.",
    )
    secret: ObjectName | None = Field(
        None,
        description="Secret in this namespace with WANDB_API_KEY, SWANLAB_API_KEY, MLFLOW_TRACKING_TOKEN, or "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. Default: no credentials.",
    )

    @property
    def server(self) -> str:
        """URL of the server."""
        return str(self.url or SERVERS[self.to]).rstrip("/")
