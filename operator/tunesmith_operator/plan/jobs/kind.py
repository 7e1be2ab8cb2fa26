"""What distinguishes one kind of job from another, and the context in which a plan decides about a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from tunesmith_api.evaljob import EvalJobSpec
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.refusal import Refusal
from tunesmith_api.run import ModelRole, ResolvedModel
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.jobs.attempts import Attempts, Role
from tunesmith_operator.plan.jobs.state import State
from tunesmith_operator.plan.pods.template import PodPlan
from tunesmith_operator.plan.spec.references import References, Refused, Waiting
from tunesmith_operator.plan.status.outlook import Outlook
from tunesmith_operator.plan.types import Key, Observed, Raw, TokenFor

Spec = TypeVar("Spec", bound=FineTuneJobSpec | EvalJobSpec)

ModelsOfRun = Mapping[ModelRole, ResolvedModel]
Models = Mapping[Role, ModelsOfRun]


@dataclass(frozen=True)
class NewAttempt(Generic[Spec]):
    """An attempt that is about to be created."""

    resource: Raw
    spec: Spec
    role: Role
    number: int
    models: ModelsOfRun
    config: OperatorConfig


@dataclass(frozen=True)
class JobContext(Generic[Spec]):
    """Everything that a decision about a job depends on."""

    kind: JobKind[Spec]
    resource: Raw
    spec: Spec
    current: tuple[Attempts, ...]
    """For each role the attempts that determine the outlook: those of its work, or of its preparation."""
    others: tuple[Attempts, ...]
    """The attempts that don't."""
    observed: Observed
    now: datetime
    config: OperatorConfig
    token: TokenFor

    @property
    def status(self) -> Raw:
        """The status before this plan."""
        return self.resource.get("status") or {}

    @property
    def every(self) -> tuple[Attempts, ...]:
        """All attempts, of work and of preparation."""
        return (*self.current, *self.others)

    @property
    def work(self) -> list[Attempts]:
        """The attempts of work that exist or may be created now."""
        attempted = (attempts for attempts in self.others if attempts.number > 0)
        return [attempts for attempts in (*self.current, *attempted) if not attempts.is_preparation]

    @property
    def unfinished(self) -> tuple[Key, ...]:
        """All Jobs that may still have running pods. The Job that has succeeded may finish."""
        return tuple(
            key
            for attempts in self.every
            for key in (attempts.superseded if attempts.state is State.SUCCEEDED else attempts.unfinished)
        )

    @property
    def stopping(self) -> list[str]:
        """Names of the pods of earlier attempts that may still run."""
        return [name for attempts in self.every for name in attempts.stopping]

    def has_succeeded(self) -> bool:
        """Whether every role has succeeded."""
        return all(attempts.state is State.SUCCEEDED for attempts in self.current)


@dataclass(frozen=True)
class JobKind(Generic[Spec]):
    """A kind of job: what FineTuneJob and EvalJob do differently."""

    name: str
    spec_type: type[Spec]
    roles: Callable[[Spec], Sequence[Role]]
    find_refusals: Callable[[Spec, OperatorConfig], Sequence[Refusal]]
    """Why this installation cannot run a spec."""
    resolve_models: Callable[[Spec, References], Models | Waiting | Refused]
    plan_pod: Callable[[NewAttempt[Spec]], PodPlan]
    report: Callable[[JobContext[Spec]], Raw]
    """The kind's own status fields, as far as they are known."""
    complete: Callable[[JobContext[Spec]], Outlook]
    """The final outlook, when every role has succeeded."""
    services: Callable[[Raw, Spec], tuple[Raw, ...]] = lambda resource, spec: ()
    """The Services by which the pods of an attempt find each other."""
