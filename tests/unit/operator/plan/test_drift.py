"""Drift of objects from their manifests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_operator.plan.drift import matches, parse_quantity

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(thing=plain)
def test_every_object_matches_itself(thing):
    assert matches(thing, thing)


@given(thing=st.dictionaries(st.text(max_size=3), plain, max_size=4), more=st.dictionaries(st.text(min_size=4), plain))
def test_defaults_of_the_api_server_are_no_drift(thing, more):
    assert matches({**thing, **more}, thing)


def test_a_changed_missing_or_added_item_is_drift():
    wanted = {"spec": {"replicas": 2, "containers": [{"name": "a", "image": "x"}]}}
    assert not matches({"spec": {"replicas": 3, "containers": [{"name": "a", "image": "x"}]}}, wanted)
    assert not matches({"spec": {"containers": [{"name": "a", "image": "x"}]}}, wanted)
    assert not matches({"spec": {"replicas": 2, "containers": [{"name": "b", "image": "x"}]}}, wanted)
    assert not matches(None, wanted)
    assert not matches({"args": ["a", "b"]}, {"args": ["a"]})


def test_items_of_others_are_no_drift():
    wanted = {"containers": [{"name": "a", "image": "x", "env": [{"name": "A"}, {"name": "B"}]}]}
    ours = {"name": "a", "image": "x", "env": [{"name": "A"}, {"name": "theirs", "value": "1"}, {"name": "B"}]}
    assert matches({"containers": [{"name": "mesh"}, ours, {"name": "logs"}]}, wanted)
    assert not matches({"containers": [{**ours, "env": ours["env"][1:]}]}, wanted)
    assert not matches({"containers": [{**ours, "env": ours["env"][::-1]}]}, wanted), (
        "$(A) is expanded by the variables before it"
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1024Mi", "1Gi"),
        ("0.5", "500m"),
        ("1000", "1k"),
        (2, "2"),
        ("2.0", "2"),
        ("1000500u", "1.0005"),
        ("1n", "0.0000000001"),
        ("9223372036854775807", "9Ei"),
        ("1E", "1000P"),
    ],
)
def test_equal_quantities_match_in_every_notation(left, right):
    assert parse_quantity(left) == parse_quantity(right)
    assert matches({"memory": left}, {"memory": right})


@pytest.mark.parametrize(("left", "right"), [("1Gi", "1G"), ("500m", "500"), ("x", "y")])
def test_other_quantities_differ(left, right):
    assert not matches({"cpu": left}, {"cpu": right})


@pytest.mark.parametrize("empty", ["", {}, []])
def test_an_absent_field_matches_an_empty_value(empty):
    assert matches({"name": "A"}, {"name": "A", "value": empty})
    assert not matches({"name": "A", "value": ["x"]}, {"name": "A", "value": empty})


def test_an_absent_number_or_boolean_is_drift():
    assert not matches({}, {"replicas": 0})
    assert not matches({}, {"readOnlyRootFilesystem": False})


def test_only_quantities_are_compared_as_numbers():
    assert not matches({"name": "A", "value": "1.0"}, {"name": "A", "value": "1"})
