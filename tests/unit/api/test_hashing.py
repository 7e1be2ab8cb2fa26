"""Equal specs have equal hashes, and fields that decide the result change the hash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import copy, deepcopy
from functools import reduce
from operator import or_
from typing import Any, get_args, get_origin
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, create_model

from tunesmith_api.base import ApiModel, api_type_in
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import (
    HASHED_DEFAULTS,
    IRRELEVANT,
    SPECS,
    _fields,
    canonical,
    digest,
    spec_hash,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)
SPEC: dict[str, Any] = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/train.jsonl"}]}
RELEVANT = {
    "model": {"uri": "s3://models/other"},
    "datasets": [{"uri": "s3://data/other.jsonl"}],
    "tuner": "full",
    "lora": {"rank": 8},
    "training": {"epochs": 2},
    "validation": {"fraction": 0.1},
    "export": {"merge": False},
    "rerun": "2",
}
WITHOUT_EFFECT = {
    "suspend": True,
    "retries": 9,
    "deadline": "1h",
    "pendingDeadline": "1h",
    "ttlAfterFinished": "1h",
    "queueName": "gpus",
    "pod": {"labels": {"team": "a"}},
    "resources": {"cpu": 2},
    "checkpoint": {"keep": 5},
    "output": {"uri": "s3://other/place"},
    "storage": {"region": "eu"},
    "until": "train",
    "fit": "Refuse",
    "samples": {"prompts": ["Name a metal."]},
    "tracking": {"to": "mlflow", "url": "https://mlflow.example"},
}


def filled(spec: dict[str, Any]) -> dict[str, Any]:
    return FineTuneJobSpec.model_validate(spec).to_dict()


@given(VALUES)
def test_the_hash_ignores_the_order_of_keys_and_a_round_trip_through_json(value: Any) -> None:
    assert digest(json.loads(json.dumps(value))) == digest(value)
    assert digest(reversed_keys(value)) == digest(value)


@given(st.integers(-(2**53), 2**53))
def test_an_integer_hashes_like_the_equal_float(number: int) -> None:
    assert canonical({"n": float(number)}) == canonical({"n": number})


@given(VALUES)
def test_canonical_json_loses_nothing(value: Any) -> None:
    assert json.loads(canonical(value)) == value


def test_explicit_defaults_leave_the_hash_alone() -> None:
    assert spec_hash("FineTuneJob", filled(SPEC)) == spec_hash("FineTuneJob", filled(filled(SPEC)))
    spelled = SPEC | {"method": "sft", "training": {"epochs": 1, "seed": 42}}
    assert spec_hash("FineTuneJob", filled(spelled)) == spec_hash("FineTuneJob", filled(SPEC))


def test_max_steps_alone_is_another_run_than_with_the_stored_epoch_of_older_releases() -> None:
    alone, stored = (SPEC | {"training": {"maxSteps": 40, **more}} for more in ({}, {"epochs": 1}))
    assert spec_hash("FineTuneJob", filled(alone)) != spec_hash("FineTuneJob", filled(stored))


@pytest.mark.parametrize("field", RELEVANT)
def test_a_field_that_decides_the_result_changes_the_hash(field: str) -> None:
    changed = spec_hash("FineTuneJob", filled(SPEC | {field: RELEVANT[field]}))
    assert changed != spec_hash("FineTuneJob", filled(SPEC))


@pytest.mark.parametrize("field", WITHOUT_EFFECT)
def test_a_field_that_decides_place_or_time_leaves_the_hash_alone(field: str) -> None:
    changed = spec_hash("FineTuneJob", filled(SPEC | {field: WITHOUT_EFFECT[field]}))
    assert changed == spec_hash("FineTuneJob", filled(SPEC))


def test_every_irrelevant_field_has_a_case() -> None:
    assert set(WITHOUT_EFFECT) == {path for path in IRRELEVANT if "." not in path}


JUDGE = {"url": "https://judge.example/v1", "model": "m", "rubric": "{completion}"}
CODE = {"configMap": {"name": "rewards", "key": "r.py"}}


@pytest.mark.parametrize(
    ("type_", "block", "change", "counts"),
    [
        ("judge", JUDGE, {"rubric": "Rate {completion}."}, True),
        ("judge", JUDGE, {"apiKeySecret": "tunesmith-a", "timeout": "5s", "retries": 1, "concurrency": 1}, False),
        ("code", CODE, {"timeout": "5s", "memory": "2Gi"}, False),
    ],
)
def test_a_reward_is_known_by_what_it_asks_and_not_by_how_long(
    type_: str, block: dict[str, Any], change: dict[str, Any], counts: bool
) -> None:
    specs = [
        SPEC | {"method": "grpo", "rewards": [{"name": "a", "type": type_, type_: each}]}
        for each in (block, block | change)
    ]
    first, second = (spec_hash("FineTuneJob", filled(spec)) for spec in specs)
    assert (first != second) is counts


TEMPLATE = {"prompt": "{question}", "completion": "{answer}"}
FULL: dict[str, dict[str, Any]] = {
    "FineTuneJob": {
        "model": {"fineTuneJob": {"name": "first"}},
        "datasets": [{"uri": "s3://data/train.jsonl"}, {"uri": "s3://data/more.jsonl", "template": TEMPLATE}],
        "validation": {"datasets": [{"uri": "s3://data/held-out.jsonl", "template": TEMPLATE}]},
        "decontaminate": [{"uri": "s3://data/test.jsonl"}],
        "dpo": {},
        "kto": {},
        "orpo": {},
        "simpo": {},
        "cpo": {},
        "reward": {},
        "classify": {},
        "embed": {},
        "rerank": {},
        "grpo": {"clip": {}},
        "rloo": {},
        "ppo": {},
        "gkd": {"teacher": {"fineTuneJob": {"name": "first"}}},
        "rewards": [
            {"name": "right", "type": "accuracy"},
            {"name": "taste", "type": "model", "model": {"uri": "s3://models/taste"}},
            {"name": "helpful", "type": "judge", "judge": JUDGE | {"scale": {}}},
            {"name": "tests", "type": "code", "code": CODE},
        ],
        "lora": {"from": {"uri": "s3://adapters/fr"}},
        "qlora": {},
        "adalora": {},
        "prompt": {},
        "training": {
            "chatTemplate": {"configMap": {"name": "templates", "key": "chat.jinja"}},
            "earlyStopping": {},
            "schedulerOptions": {},
        },
        "export": {"quantize": {"method": "awq"}},
    },
    "EvalJob": {
        "model": SPEC["model"],
        "baseline": {"fineTuneJob": {"name": "first"}},
        "benchmarks": [
            {"name": "gsm8k"},
            {"name": "words", "dataset": {"uri": "s3://data/test.jsonl", "template": TEMPLATE}},
        ],
        "gates": [{"benchmark": "words", "min": 0.5}],
    },
    "InferenceService": {
        "model": {"fineTuneJob": {"name": "first"}},
        "adapters": [{"name": "fr", "uri": "s3://adapters/fr"}],
        "autoscaling": {"maxReplicas": 2, "metric": {"name": "waiting", "average": 4}},
        "promotion": {"evalJobs": [{"name": "check"}]},
        "media": {"allowedHosts": ["images.example.com"]},
    },
}
"""A spec of each kind with every block that decides a result."""


def types_below(type_: type[ApiModel], path: str = "") -> Iterator[type[ApiModel]]:
    """Yield the types of a spec and of its blocks that decide a result."""
    yield type_
    for key, field in _fields(type_).items():
        place = f"{path}{key}"
        if field.type_ and place not in IRRELEVANT:
            yield from types_below(field.type_, f"{place}.")


def with_field(type_: type[ApiModel], owner: type[ApiModel], default: Any) -> type[ApiModel]:
    """Return `type_` as in a later release, in which `owner` has a further optional field."""
    fields: dict[str, Any] = {}
    for name, field in type_.model_fields.items():
        inner = api_type_in(field.annotation)
        if inner is None or owner not in types_below(inner):
            continue
        later = copy(field)
        new = with_field(inner, owner, default)
        later.annotation = replaced(field.annotation, inner, new)
        later.default_factory = new if field.default_factory else None
        fields[name] = (later.annotation, later)
    if type_ is owner:
        fields["new_option"] = (Any, Field(default, alias="newOption"))
    return create_model(type_.__name__, __base__=type_, **fields)


def replaced(annotation: Any, old: type, new: type) -> Any:
    """Return `annotation` with `old` replaced by `new`."""
    if annotation is old:
        return new
    if get_origin(annotation) is list:
        return list[new]  # type: ignore[valid-type]
    parts = [replaced(part, old, new) for part in get_args(annotation)]
    return reduce(or_, parts) if parts else annotation


def places(spec: Any, type_: type[ApiModel], owner: type[ApiModel]) -> Iterator[dict[str, Any]]:
    """Yield the objects of type `owner` in `spec`."""
    if type_ is owner:
        yield spec
    for key, field in _fields(type_).items():
        value = spec.get(key)
        for item in value if isinstance(value, list) else [value]:
            if field.type_ and item is not None:
                yield from places(item, field.type_, owner)


OWNERS = sorted(
    {(kind, owner) for kind, type_ in SPECS.items() for owner in types_below(type_)},
    key=lambda each: (each[0], each[1].__name__),
)
OPTIONS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.lists(st.integers(), max_size=2)


@pytest.mark.parametrize(("kind", "owner"), OWNERS, ids=lambda each: getattr(each, "__name__", each))
@given(default=OPTIONS, value=OPTIONS)
@settings(max_examples=4)
def test_a_new_optional_field_leaves_the_hashes_of_existing_specs_alone(
    kind: str, owner: type[ApiModel], default: Any, value: Any
) -> None:
    before, later = SPECS[kind], with_field(SPECS[kind], owner, default)
    old = before.model_validate(FULL[kind]).to_dict()
    hash_before = spec_hash(kind, old)
    with patch.dict(SPECS, {kind: later}):
        assert spec_hash(kind, later.model_validate(old).to_dict()) == hash_before
        changed = deepcopy(old)
        for place in places(changed, before, owner):
            place["newOption"] = value
        is_set = value is not None and value != default
        assert (spec_hash(kind, later.model_validate(changed).to_dict()) != hash_before) is is_set


@pytest.mark.parametrize("kind", SPECS)
def test_the_frozen_list_names_fields_with_a_default(kind: str) -> None:
    for path in HASHED_DEFAULTS[kind]:
        type_, default = SPECS[kind], None
        for key in path.replace("[]", "").split("."):
            field = _fields(type_)[key]
            type_, default = field.type_ or type_, field.default
        assert default is not None, path


def test_the_kind_changes_the_hash() -> None:
    assert spec_hash("FineTuneJob", SPEC) != spec_hash("EvalJob", SPEC)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value
