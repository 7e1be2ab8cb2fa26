from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith_operator.plan.drift import has, quantity

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=30, deadline=None)
@given(thing=plain)
def test_everything_is_as_itself(thing):
    assert has(thing, thing)


@settings(max_examples=30, deadline=None)
@given(thing=st.dictionaries(st.text(max_size=3), plain, max_size=4), more=st.dictionaries(st.text(min_size=4), plain))
def test_what_the_api_server_fills_in_does_not_matter(thing, more):
    assert has({**thing, **more}, thing)


def test_a_changed_missing_or_added_item_is_drift():
    wanted = {"spec": {"replicas": 2, "containers": [{"name": "a", "image": "x"}]}}
    assert not has({"spec": {"replicas": 3, "containers": [{"name": "a", "image": "x"}]}}, wanted)
    assert not has({"spec": {"containers": [{"name": "a", "image": "x"}]}}, wanted)
    assert not has({"spec": {"replicas": 2, "containers": [{"name": "b", "image": "x"}]}}, wanted)
    assert not has(None, wanted)
    assert not has({"args": ["a", "b"]}, {"args": ["a"]})


def test_what_others_have_beside_ours_is_theirs():
    wanted = {"containers": [{"name": "a", "image": "x", "env": [{"name": "A"}, {"name": "B"}]}]}
    ours = {"name": "a", "image": "x", "env": [{"name": "A"}, {"name": "theirs", "value": "1"}, {"name": "B"}]}
    assert has({"containers": [{"name": "mesh"}, ours, {"name": "logs"}]}, wanted)
    assert not has({"containers": [{**ours, "env": ours["env"][1:]}]}, wanted)
    assert not has({"containers": [{**ours, "env": ours["env"][::-1]}]}, wanted), "their order says what $(A) is"


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
def test_equal_quantities_are_equal_however_they_are_written(left, right):
    assert quantity(left) == quantity(right)
    assert has({"memory": left}, {"memory": right})


@pytest.mark.parametrize(("left", "right"), [("1Gi", "1G"), ("500m", "500"), ("x", "y")])
def test_other_quantities_differ(left, right):
    assert not has({"cpu": left}, {"cpu": right})


@pytest.mark.parametrize("empty", ["", {}, []])
def test_what_is_empty_is_as_what_is_absent(empty):
    assert has({"name": "A"}, {"name": "A", "value": empty})
    assert not has({"name": "A", "value": ["x"]}, {"name": "A", "value": empty})


def test_a_number_or_a_truth_that_is_absent_is_drift():
    assert not has({}, {"replicas": 0})
    assert not has({}, {"readOnlyRootFilesystem": False})


def test_only_quantities_are_compared_as_numbers():
    assert not has({"name": "A", "value": "1.0"}, {"name": "A", "value": "1"})
