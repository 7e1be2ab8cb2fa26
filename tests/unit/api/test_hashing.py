"""Equal specs have equal hashes, whatever wrote them; what decides the result decides the hash."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import IRRELEVANT, canonical, digest, spec_hash

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
}


def filled(spec: dict[str, Any]) -> dict[str, Any]:
    return FineTuneJobSpec.model_validate(spec).to_dict()


@given(VALUES)
def test_the_order_of_keys_and_a_trip_through_json_do_not_matter(value: Any) -> None:
    assert digest(json.loads(json.dumps(value))) == digest(value)
    assert digest(reversed_keys(value)) == digest(value)


@given(st.integers(-(2**53), 2**53))
def test_a_whole_number_is_the_same_with_and_without_a_point(number: int) -> None:
    assert canonical({"n": float(number)}) == canonical({"n": number})


@given(VALUES)
def test_the_bytes_say_the_whole_value(value: Any) -> None:
    assert json.loads(canonical(value)) == value


def test_defaults_that_are_spelled_out_change_nothing() -> None:
    assert spec_hash("FineTuneJob", filled(SPEC)) == spec_hash("FineTuneJob", filled(filled(SPEC)))
    spelled = SPEC | {"method": "sft", "training": {"epochs": 1, "seed": 42}}
    assert spec_hash("FineTuneJob", filled(spelled)) == spec_hash("FineTuneJob", filled(SPEC))


def test_max_steps_alone_is_another_run_than_with_the_one_epoch_that_older_releases_stored() -> None:
    alone, stored = (SPEC | {"training": {"maxSteps": 40, **more}} for more in ({}, {"epochs": 1}))
    assert spec_hash("FineTuneJob", filled(alone)) != spec_hash("FineTuneJob", filled(stored))


@pytest.mark.parametrize("field", RELEVANT)
def test_what_decides_the_result_decides_the_hash(field: str) -> None:
    changed = spec_hash("FineTuneJob", filled(SPEC | {field: RELEVANT[field]}))
    assert changed != spec_hash("FineTuneJob", filled(SPEC))


@pytest.mark.parametrize("field", WITHOUT_EFFECT)
def test_where_and_when_it_runs_does_not(field: str) -> None:
    changed = spec_hash("FineTuneJob", filled(SPEC | {field: WITHOUT_EFFECT[field]}))
    assert changed == spec_hash("FineTuneJob", filled(SPEC))


def test_every_field_without_effect_is_tried() -> None:
    assert set(WITHOUT_EFFECT) == IRRELEVANT


def test_the_kind_is_part_of_it() -> None:
    assert spec_hash("FineTuneJob", SPEC) != spec_hash("EvalJob", SPEC)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value
