"""Paths of the fields of specs: what is at a path, and which fields are URIs or names of data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MODEL_URIS: tuple[tuple[str, str], ...] = (
    ("FineTuneJob", "model.uri"),
    ("FineTuneJob", "gkd.teacher.uri"),
    ("FineTuneJob", "rewards[].model.uri"),
    ("FineTuneJob", "lora.from.uri"),
    ("EvalJob", "model.uri"),
    ("EvalJob", "baseline.uri"),
    ("InferenceService", "model.uri"),
    ("InferenceService", "adapters[].uri"),
)
DATA_URIS: tuple[tuple[str, str], ...] = (
    ("FineTuneJob", "datasets[].uri"),
    ("FineTuneJob", "validation.uri"),
    ("FineTuneJob", "validation.datasets[].uri"),
    ("FineTuneJob", "decontaminate[].uri"),
    ("EvalJob", "benchmarks[].dataset.uri"),
)
DATA_NAMES: tuple[tuple[str, str], ...] = (
    ("FineTuneJob", "datasets[].name"),
    ("FineTuneJob", "validation.datasets[].name"),
    ("FineTuneJob", "decontaminate[].name"),
    ("EvalJob", "benchmarks[].dataset.name"),
)
"""Kind and path of every field of a spec that is the name of a data set of the catalogue."""
OUTPUT_URIS: tuple[tuple[str, str], ...] = (("FineTuneJob", "output.uri"), ("EvalJob", "output.uri"))
URI_FIELDS: tuple[tuple[str, str], ...] = (*MODEL_URIS, *DATA_URIS, *OUTPUT_URIS)
"""Kind and path of every field of a spec that is a URI of a model, of data or of results."""


def values_at(value: Any, path: str) -> Iterator[Any]:
    """Yield the values at a dotted camelCase path, with `[]` after a list: nothing if it is absent, or a value for each item of the lists on the path."""
    if not path:
        yield value
        return
    part, _, rest = path.partition(".")
    if not isinstance(value, Mapping) or value.get(part.removesuffix("[]")) is None:
        return
    below = value[part.removesuffix("[]")]
    for item in below if part.endswith("[]") else [below]:
        yield from values_at(item, rest)
