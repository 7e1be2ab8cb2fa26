"""The context in which a plan decides about an InferenceService."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith_api.inferenceservice import InferenceServiceSpec, RolledBack
from tunesmith_api.status import LastFailure
from tunesmith_operator.plan.inferenceservice.rollout import Rollout
from tunesmith_operator.plan.inferenceservice.version_choice import Target
from tunesmith_operator.plan.inferenceservice.versions import Versions
from tunesmith_operator.plan.types import Observed, Raw

KIND = "InferenceService"


@dataclass(frozen=True)
class ServiceContext:
    """An InferenceService as observed: its known versions, the one that it should have, and how far that is rolled out."""

    resource: Raw
    spec: InferenceServiceSpec
    observed: Observed
    versions: Versions
    target: Target
    rollout: Rollout
    trouble: LastFailure | None
    """What keeps pods of the target from answering."""
    giving_up: RolledBack | None
    """Set if this plan gives the version up. The next plan rolls back."""

    @property
    def status(self) -> Raw:
        """The status before this plan."""
        return self.resource.get("status") or {}

    @property
    def is_answering(self) -> bool:
        """Whether requests are answered, by a version that was ready once."""
        return self.rollout.ready > 0 and (self.rollout.is_done or self.versions.served is not None)

    @property
    def given_up(self) -> RolledBack | None:
        """The record of the spec's version if it was given up, by this plan or before."""
        return self.giving_up or self.target.given_up

    @property
    def is_served(self) -> bool:
        """Whether all desired pods, and at least one, have the target's version and are ready."""
        return self.rollout.is_done and self.rollout.desired > 0 and self.target.template is not None
