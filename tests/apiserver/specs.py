"""Random specs (hypothesis) made from the CRDs' own schemas."""

from __future__ import annotations

import string
from functools import partial
from typing import Any

from hypothesis import strategies as st

from tunesmith_api import base, common, evaljob, inferenceservice, pods
from tunesmith_api.choices import Limit
from tunesmith_api.compatibility import LIMITS
from tunesmith_api.crdgen.crd import Kind, root_schema
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.grammar import Grammar

Schema = dict[str, Any]
MODULES = (base, common, evaljob, inferenceservice, pods)
GRAMMARS = {
    value.rule()["rule"]: value for module in MODULES for value in vars(module).values() if isinstance(value, Grammar)
}
"""The grammars of the API's scalar types, by a part of their rules."""
ONE_OF = "set exactly one of "
KEYS = st.text(string.ascii_lowercase, min_size=1, max_size=8)
WORDS = st.text(string.ascii_letters + string.digits + " -_.", max_size=16)


def specs(kind: Kind) -> st.SearchStrategy[dict[str, Any]]:
    """Specs of the schema's shape, most of which keep the rules of `kind` too."""
    schema = root_schema(kind)["properties"]["spec"]
    return values(schema).map(lambda spec: mended(kind.name, spec))


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that `schema` admits, its CEL rules aside."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from([1, 4, "500m", "1.5", "16Gi"])
    makers = {"string": _strings, "integer": _integers, "number": _numbers, "array": _arrays, "object": _objects}
    return st.booleans() if schema["type"] == "boolean" else makers[schema["type"]](schema)


def _strings(schema: Schema) -> st.SearchStrategy[str]:
    rules = schema.get("x-kubernetes-validations")
    if not rules:
        return WORDS.filter(lambda text: len(text) >= schema.get("minLength", 0))
    grammar = GRAMMARS[rules[0]["rule"]]
    printable = st.characters(min_codepoint=33, max_codepoint=126)
    shortest, longest = schema.get("minLength", 0), schema["maxLength"]
    matching = st.from_regex(grammar.pattern.replace("$", r"\Z"), alphabet=printable)
    return matching.filter(lambda text: shortest <= len(text) <= longest and grammar.admits(text))


def _integers(schema: Schema) -> st.SearchStrategy[int]:
    return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**31 - 1))


def _numbers(schema: Schema) -> st.SearchStrategy[float]:
    return st.floats(
        schema.get("minimum", -1e9),
        schema.get("maximum", 1e9),
        exclude_min=schema.get("exclusiveMinimum", False),
        exclude_max=schema.get("exclusiveMaximum", False),
        allow_nan=False,
        allow_subnormal=False,
    )


def _arrays(schema: Schema) -> st.SearchStrategy[list[Any]]:
    keys = schema.get("x-kubernetes-list-map-keys", ())
    is_set = schema["x-kubernetes-list-type"] != "atomic"
    return st.lists(
        values(schema["items"]),
        min_size=schema.get("minItems", 0),
        max_size=min(schema["maxItems"], 3),
        unique_by=(lambda item: tuple(item[key] for key in keys) if keys else item) if is_set else None,
    )


def _objects(schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
    if "additionalProperties" in schema:
        return st.dictionaries(KEYS, values(schema["additionalProperties"]), max_size=3)
    fields = {name: values(below) for name, below in schema["properties"].items()}
    required = {name: fields[name] for name in schema.get("required", ())}
    optional = {name: below for name, below in fields.items() if name not in required}
    for rule in schema.get("x-kubernetes-validations", ()):
        if rule.get("message", "").startswith(ONE_OF):
            members = rule["message"].removeprefix(ONE_OF).split(", ")
            rest = {name: below for name, below in optional.items() if name not in members}
            return st.sampled_from(members).flatmap(partial(_with_member, required, fields, rest))
    return st.fixed_dictionaries(required, optional=optional)


def _with_member(
    required: dict[str, Any], fields: dict[str, Any], rest: dict[str, Any], member: str
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({**required, member: fields[member]}, optional=rest)


BLOCKS = (*FineTuneJobSpec.unions["method"], "rewards")
"""Fields that go with one method each."""


def mended(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` without what most often breaks a rule."""
    for row in LIMITS:
        if row.kind == kind:
            _mend(spec, row.field, row)
    if "tracking" in spec:
        spec["tracking"] = {"url": "https://tracker.example", "secret": "tunesmith-tracker", **spec["tracking"]}
    for block in (*BLOCKS, *(("lora",) if spec.get("tuner") == "full" else ())):
        spec.pop(block, None)
    if spec.get("resources", {}).get("accelerator", "cpu") == "cpu":
        spec.get("resources", {}).pop("count", None)
    if kind == "FineTuneJob":
        _mend_method(spec)
        _mend_devices(spec)
        _mend_rows(spec)
    if kind == "EvalJob":
        for benchmark in spec["benchmarks"]:
            _mend_own_rows(benchmark.get("dataset", {}))
    if kind == "EvalJob" and spec.get("gates"):
        spec.setdefault("baseline", {"uri": "s3://models/base"})
        for gate in spec["gates"]:
            gate["benchmark"] = spec["benchmarks"][0]["name"]
    if kind == "InferenceService" and "inferenceService" in spec["model"]:
        spec["model"] = {"fineTuneJob": spec["model"]["inferenceService"]}
    return spec


def _mend_method(spec: dict[str, Any]) -> None:
    """Leave out what does not go with the method, the tuner or the accelerator."""
    if spec.get("method") in ("grpo", "rloo", "ppo", "gkd", "reward", "classify", "embed", "rerank"):
        spec["method"] = "sft"
    for block in FineTuneJobSpec.unions["tuner"]:
        if block != spec.get("tuner"):
            spec.pop(block, None)
    for setting in ("packing", "streaming", "lossOn", "optimizer", "truncation"):
        spec.get("training", {}).pop(setting, None)
    spec.get("lora", {}).pop("useRslora", None)


def _mend_devices(spec: dict[str, Any]) -> None:
    """Let the devices divide the batch and share no layers, and nothing be near one pod, offloaded or answered by a part of a model."""
    parallelism, training = spec.get("parallelism", {}), spec.get("training", {})
    for setting in ("tensorParallel", "pipelineParallel", "contextParallel", "offload"):
        parallelism.pop(setting, None)
    if parallelism.get("strategy") in ("fsdp", "zero3"):
        spec.pop("samples", None)
    count = parallelism.get("nodes", 1) * spec.get("resources", {}).get("count", 1)
    if training.get("globalBatchSize", 16) % count:
        spec["training"] = {**training, "globalBatchSize": count}
    if parallelism.get("nodes", 1) == 1:
        parallelism.pop("near", None)


def _mend_rows(spec: dict[str, Any]) -> None:
    """Let the settings of data sets go together."""
    for dataset in (*spec["datasets"], *spec.get("validation", {}).get("datasets", ())):
        dataset.pop("weight", None)
        if "maxRows" not in dataset:
            dataset.pop("sample", None)
        if "template" in dataset:
            dataset.pop("format", None)
    if "maxBadShare" in spec:
        spec["onBadRow"] = "Drop"


def _mend_own_rows(dataset: dict[str, Any]) -> None:
    """Let the settings of a benchmark's rows go with their type."""
    if "template" in dataset:
        dataset["type"] = "qa"
    if dataset.get("type") == "benchmark":
        dataset.pop("columns", None)


def _mend(value: dict[str, Any], path: str, row: Limit) -> None:
    """Put right what `row` refuses: another scheme, or the field's default by leaving it out."""
    part, _, rest = path.partition(".")
    name = part.removesuffix("[]")
    if name not in value:
        return
    if rest:
        for item in value[name] if part.endswith("[]") else [value[name]]:
            _mend(item, rest, row)
    elif not row.allows(value[name]):
        if row.refused_schemes:
            value[name] = "s3://bucket/folder"
        else:
            del value[name]
