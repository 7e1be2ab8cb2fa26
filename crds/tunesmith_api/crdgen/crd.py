"""The three CustomResourceDefinitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith_api import GROUP, VERSION
from tunesmith_api.base import ApiModel
from tunesmith_api.common import NAME_RULES
from tunesmith_api.crdgen.rules import add_rules
from tunesmith_api.crdgen.structural import Schema, structural_schema
from tunesmith_api.evaljob import EvalJob, EvalJobSpec, EvalJobStatus
from tunesmith_api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith_api.finetunejob_status import FineTuneJobStatus
from tunesmith_api.inferenceservice import InferenceService, InferenceServiceSpec, InferenceServiceStatus

WIDE = 1
"""Priority of a printer column that only `kubectl get -o wide` shows."""


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    type: str
    path: str
    description: str
    priority: int = 0

    def schema(self) -> dict[str, Any]:
        """Return the column as an entry of `additionalPrinterColumns`."""
        entry = {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.description}
        return entry | ({"priority": self.priority} if self.priority else {})


PHASE = Column("PHASE", "string", ".status.phase", "Where it stands.")
REASON = Column("REASON", "string", ".status.reason", "Reason in CamelCase.")
MESSAGE = Column("MESSAGE", "string", ".status.message", "Why, in a sentence, and what to do next.", WIDE)
MODEL = Column("MODEL", "string", ".spec.model.uri", "The model it starts from, where it is named by its URI.", WIDE)
AGE = Column("AGE", "date", ".metadata.creationTimestamp", "Time since it was created.")


@dataclass(frozen=True)
class Kind:
    """A kind: its types, names and columns."""

    model: type[ApiModel]
    spec: type[ApiModel]
    status: type[ApiModel]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    scale: bool = False

    @property
    def name(self) -> str:
        return self.model.__name__


KINDS: tuple[Kind, ...] = (
    Kind(
        FineTuneJob, FineTuneJobSpec, FineTuneJobStatus, "finetunejobs", "ftj",
        (
            PHASE,
            REASON,
            Column("PROGRESS", "integer", ".status.progress.percent", "Share of the steps done, in percent."),
            Column("LOSS", "number", ".status.progress.loss", "Latest training loss."),
            AGE,
            Column("METHOD", "string", ".spec.method", "How the model learns.", WIDE),
            MODEL,
            Column("ETA", "integer", ".status.progress.etaSeconds", "Seconds left, by the pace so far.", WIDE),
            Column("ESTIMATE", "string", ".status.estimate.summary", "What it is expected to need.", WIDE),
            MESSAGE,
        ),
    ),
    Kind(
        EvalJob, EvalJobSpec, EvalJobStatus, "evaljobs", "evj",
        (
            PHASE,
            REASON,
            Column("SCORE", "string", ".status.score", "The first score."),
            Column("VERDICT", "string", ".status.verdict", "Whether all gates were cleared."),
            AGE,
            Column("PROGRESS", "integer", ".status.progress.percent", "Share of the questions answered, in percent.", WIDE),
            Column("MODEL", "string", ".status.model.uri", "The model under test.", WIDE),
            MESSAGE,
        ),
    ),
    Kind(
        InferenceService, InferenceServiceSpec, InferenceServiceStatus, "inferenceservices", "tsvc",
        (
            PHASE,
            REASON,
            Column("READY", "integer", ".status.readyReplicas", "Pods that can answer."),
            Column("REPLICAS", "integer", ".status.replicas", "Pods there are, ready or not."),
            Column("URL", "string", ".status.url", "Base URL of the OpenAI API within the cluster."),
            AGE,
            Column("MODEL", "string", ".status.model.uri", "The model that is served now.", WIDE),
            Column("ENGINE", "string", ".status.engine", "What computes the answers.", WIDE),
            MESSAGE,
        ),
        scale=True,
    ),
)  # fmt: skip

SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}

UNSEEN = {"observedGeneration": -1}
"""The status before the operator observes the resource. Without it kstatus considers a new resource finished, as it has
no condition."""
STATUS = {"x-kubernetes-map-type": "atomic", "default": UNSEEN}
"""The operator replaces status as a whole, so owners of single fields have no use and would double an object's size."""


def root_schema(kind: Kind) -> Schema:
    """Return the schema of an object of `kind`."""
    spec = structural_schema(kind.spec)
    add_rules(kind.name, kind.spec, spec)
    status = structural_schema(kind.status, defaults=False)
    fields = kind.model.model_fields
    return {
        "description": (kind.model.__doc__ or "").strip(),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{kind.name}."},
            "metadata": {"type": "object"},
            "spec": {**spec, "description": fields["spec"].description},
            "status": {**status, "description": fields["status"].description, **STATUS},
        },
        "x-kubernetes-validations": [rule.schema() for rule in (*NAME_RULES, *kind.model.rules)],
    }


def crd(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of `kind`."""
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}} | ({"scale": SCALE} if kind.scale else {}),
        "additionalPrinterColumns": [column.schema() for column in kind.columns],
        "schema": {"openAPIV3Schema": root_schema(kind)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["tunesmith"],
            },
            "versions": [version],
        },
    }
