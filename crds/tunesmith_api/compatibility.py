"""What goes with what: the one table that the CRDs' CEL rules, the runtime's checks, the docs page and the tests read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith_api.base import Rule


@dataclass(frozen=True)
class Availability:
    """The values of one enum field (dotted camelCase path below spec) that this version can do."""

    kind: str
    field: str
    available: tuple[str, ...]
    optional_parents: tuple[str, ...] = ()
    """Optional blocks on the way to the field, which the rule must not read where they are absent."""

    @property
    def label(self) -> str:
        """How the field is named in a message."""
        return self.field.split(".")[-1] if self.field.count(".") == 0 else self.field

    def sentence(self, value: str) -> str:
        """The refusal of `value`."""
        return f"{self.label} {value}: not available in this version; use {' or '.join(self.available)}"


AVAILABLE: tuple[Availability, ...] = (
    Availability("FineTuneJob", "method", ("sft",)),
    Availability("FineTuneJob", "tuner", ("lora", "full")),
)


@dataclass(frozen=True)
class Unavailable:
    """A setting that has its place in the schema and nothing behind it yet: `expression` is CEL over spec that is true when it is used."""

    kind: str
    expression: str
    sentence: str


UNAVAILABLE: tuple[Unavailable, ...] = (
    Unavailable("FineTuneJob", "self.parallelism.nodes > 1", "parallelism.nodes above 1: not available in this version; use nodes: 1"),
    Unavailable("FineTuneJob", "self.parallelism.tensorParallel > 1", "parallelism.tensorParallel above 1: not available in this version; remove it"),
    Unavailable("FineTuneJob", "has(self.export.quantize)", "export.quantize: not available in this version; remove the block"),
    Unavailable("FineTuneJob", "self.training.packing", "training.packing: not available in this version; set packing: false"),
    Unavailable("FineTuneJob", "has(self.queueName)", "queueName: not available in this version; remove it"),
    Unavailable("EvalJob", "has(self.queueName)", "queueName: not available in this version; remove it"),
    Unavailable("InferenceService", "has(self.autoscaling)", "autoscaling: not available in this version; set replicas, or scale by /scale"),
)


@dataclass(frozen=True)
class Conflict:
    """Values (field below spec -> values) that cannot go together, and the sentence that says why and what to do."""

    given: Mapping[str, frozenset[str]]
    sentence: str


CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        {"tuner": frozenset({"qlora"}), "resources.accelerator": frozenset({"ascend"})},
        "tuner qlora with accelerator ascend: bitsandbytes has no Ascend kernels; use tuner lora",
    ),
    Conflict(
        {"method": frozenset({"pretrain"}), "training.lossOn": frozenset({"answer"})},
        "method pretrain has no answer to take the loss on; set training.lossOn: all",
    ),
)


def availability_rules(kind: str) -> tuple[Rule, ...]:
    """CEL rules on the spec of `kind` that refuse what this version cannot do."""
    fields = tuple(
        Rule(
            f"self.{row.field} in {list(row.available)!r}",
            f"{row.label}: not available in this version; use {' or '.join(row.available)}",
            message_expression=f"'{row.label} ' + self.{row.field} + ': not available in this version; use {' or '.join(row.available)}'",
        )
        for row in AVAILABLE
        if row.kind == kind
    )
    settings = tuple(Rule(f"!({row.expression})", row.sentence) for row in UNAVAILABLE if row.kind == kind)
    return fields + settings


def conflict_rules() -> tuple[Rule, ...]:
    """CEL rules on a FineTuneJob's spec that refuse values which cannot go together."""
    return tuple(
        Rule(
            "!(" + " && ".join(f"self.{field} in {sorted(values)!r}" for field, values in row.given.items()) + ")",
            row.sentence,
        )
        for row in CONFLICTS
    )


def _at(spec: Mapping[str, Any], path: str) -> Any:
    value: Any = spec
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def refusals(kind: str, spec: Mapping[str, Any]) -> list[str]:
    """What the tables refuse in `spec` (camelCase data with defaults filled in), as sentences; empty where all is well."""
    wrong = [
        row.sentence(value)
        for row in AVAILABLE
        if row.kind == kind and (value := _at(spec, row.field)) is not None and value not in row.available
    ]
    if kind == "FineTuneJob":
        wrong += [row.sentence for row in CONFLICTS if all(_at(spec, field) in values for field, values in row.given.items())]
    return wrong
