"""What goes with what: the one table that the CRDs' CEL rules, the operator, the runtime, the docs page and the tests read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limit:
    """What this version can do with one field of a spec that has its place in the schema already."""

    kind: str
    field: str
    """Dotted camelCase path below spec; `[]` after a list means each of its items."""
    advice: str
    """What to write instead."""
    allowed: tuple[str | int | bool, ...] = ()
    """The values it may have. Empty, and no refused_schemes: it may not be set at all."""
    refused_schemes: tuple[str, ...] = ()
    """For a URI: the schemes that it may not have."""
    at_apply: bool = True
    """Refused by the API server; else admitted, and the operator stops with a condition that says so."""

    def allows(self, value: Any) -> bool:
        """Whether the field may have `value`."""
        if self.refused_schemes:
            return str(value).partition("://")[0] not in self.refused_schemes
        return value in self.allowed

    def sentence(self, value: Any = None) -> str:
        """The refusal of `value`, or of the field as such."""
        shown = str(value).lower() if isinstance(value, bool) else value
        told = f" {shown}" if value is not None and (self.allowed or self.refused_schemes) else ""
        return f"{self.field}{told}: not available in this version; {self.advice}"


MODEL_URIS: tuple[tuple[str, str], ...] = (
    ("FineTuneJob", "model.uri"),
    ("EvalJob", "model.uri"),
    ("EvalJob", "baseline.uri"),
    ("InferenceService", "model.uri"),
    ("InferenceService", "adapters[].uri"),
)
DATA_URIS: tuple[tuple[str, str], ...] = (
    ("FineTuneJob", "datasets[].uri"),
    ("FineTuneJob", "validation.uri"),
    ("EvalJob", "benchmarks[].dataset.uri"),
)
OUTPUT_URIS: tuple[tuple[str, str], ...] = (("FineTuneJob", "output.uri"), ("EvalJob", "output.uri"))
URI_FIELDS: tuple[tuple[str, str], ...] = (*MODEL_URIS, *DATA_URIS, *OUTPUT_URIS)
"""Kind and path of every field of a spec that is a URI of a model, of data or of results."""

LIMITS: tuple[Limit, ...] = (
    Limit(
        "FineTuneJob", "method", "use sft or pretrain, and remove the block of the other method", ("sft", "pretrain")
    ),
    Limit("FineTuneJob", "tuner", "use lora, or full without the block lora", ("lora", "full")),
    Limit(
        "FineTuneJob",
        "datasets[].format",
        "use auto, messages, sharegpt, promptCompletion, alpaca or text",
        ("auto", "messages", "sharegpt", "promptCompletion", "alpaca", "text"),
    ),
    Limit("FineTuneJob", "training.packing", "set packing: false", (False,)),
    Limit("FineTuneJob", "export.quantize", "remove the block"),
    Limit("FineTuneJob", "parallelism.tensorParallel", "remove it", (1,), at_apply=False),
    Limit("FineTuneJob", "parallelism.strategy", "use strategy: auto or ddp", ("auto", "ddp"), at_apply=False),
    *(Limit(kind, field, "use s3://", refused_schemes=("pvc",)) for kind, field in (*MODEL_URIS, *OUTPUT_URIS)),
    *(Limit(kind, field, "use s3://", refused_schemes=("pvc", "hf", "ms")) for kind, field in DATA_URIS),
)


@dataclass(frozen=True)
class Conflict:
    """Values of a FineTuneJob (field below spec -> values) that cannot go together, and why, and what to do."""

    given: Mapping[str, frozenset[str]]
    sentence: str


CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        {"tuner": frozenset({"qlora"}), "resources.accelerator": frozenset({"ascend"})},
        "tuner qlora with accelerator ascend: bitsandbytes has no Ascend kernels; use tuner lora",
    ),
)


def refusals(kind: str, spec: Mapping[str, Any]) -> list[str]:
    """What the tables refuse in `spec` (camelCase data with defaults filled in), as sentences; empty where all is well.

    An object that the API server has admitted can still meet rows that are not `at_apply`, or rows of an older version.
    """
    wrong = [
        row.sentence(value)
        for row in LIMITS
        if row.kind == kind
        for value in values_at(spec, row.field)
        if not row.allows(value)
    ]
    if kind == "FineTuneJob":
        wrong += [
            row.sentence
            for row in CONFLICTS
            if all(value in values for field, values in row.given.items() for value in values_at(spec, field))
        ]
    return wrong


def values_at(value: Any, path: str) -> Iterator[Any]:
    """What stands at a `Limit.field` path: nothing, one value, or one per item of the lists on the way."""
    if not path:
        yield value
        return
    part, _, rest = path.partition(".")
    if not isinstance(value, Mapping) or value.get(part.removesuffix("[]")) is None:
        return
    below = value[part.removesuffix("[]")]
    for item in below if part.endswith("[]") else [below]:
        yield from values_at(item, rest)
