from __future__ import annotations

from typing import Any

import pytest

from tunesmith_operator.plan.types import Raw, Reference
from tunesmith_operator.resources import ResourceKey, Resources, is_settled, owner_of

TUNE, EVAL = ResourceKey("FineTuneJob", "team", "tune"), ResourceKey("EvalJob", "team", "eval")


def references(resource: Raw) -> frozenset[Reference]:
    return frozenset(Reference(kind, name) for kind, name in resource["spec"].get("names", ()))


def resource(key: ResourceKey, status: Raw | None = None, generation: int = 2, **spec: Any) -> Raw:
    metadata = {"namespace": key.namespace, "name": key.name, "uid": f"uid-{key.name}", "resourceVersion": "1"}
    return {"kind": key.kind, "metadata": {**metadata, "generation": generation}, "spec": spec, "status": status or {}}


def done(**changes: Any) -> Raw:
    return {"phase": "Succeeded", "observedGeneration": 2, "completionTime": "2026-01-01T00:00:00Z", **changes}


def test_a_change_wakes_the_referrers_in_any_order_of_creation() -> None:
    for order in ((TUNE, EVAL), (EVAL, TUNE)):
        known = Resources(references)
        things = {TUNE: resource(TUNE), EVAL: resource(EVAL, names=[("FineTuneJob", "tune")])}
        concerned = [known.update(things[key]) for key in order]
        assert concerned[-1] == (frozenset({EVAL}) if order[-1] is TUNE else frozenset())
        assert known.update(resource(TUNE, {"phase": "Running"})) == {EVAL}
        assert known.remove(TUNE) == {EVAL}


def test_progress_alone_wakes_no_referrer() -> None:
    known = Resources(references)
    known.update(resource(EVAL, names=[("FineTuneJob", "tune")]))
    known.update(resource(TUNE, {"phase": "Running", "progress": {"step": 1}}))
    assert known.update(resource(TUNE, {"phase": "Running", "progress": {"step": 2}})) == frozenset()


def test_former_referrers_and_other_namespaces_are_not_woken() -> None:
    known = Resources(references)
    known.update(resource(EVAL, names=[("FineTuneJob", "tune")]))
    known.update(resource(EVAL, generation=3))
    known.update(resource(ResourceKey("EvalJob", "other", "eval"), names=[("FineTuneJob", "tune")]))
    assert known.update(resource(TUNE)) == frozenset()


def test_a_removed_resource_leaves_nothing_behind() -> None:
    known = Resources(references)
    known.update(resource(EVAL, names=[("FineTuneJob", "tune")]))
    known.remove(EVAL)
    assert len(known) == 0
    assert not known._referrers


@pytest.mark.parametrize(
    ("status", "spec", "settled"),
    [
        (done(), {}, True),
        (done(phase="Failed"), {}, True),
        (done(phase="Running"), {}, False),
        (done(observedGeneration=1), {}, False),
        (done(completionTime=None), {}, False),
        (done(children=[{"kind": "Job", "name": "a"}]), {"ttlAfterFinished": "1d"}, False),
        (done(children=[]), {"ttlAfterFinished": "1d"}, True),
        (done(children=[{"kind": "Job", "name": "a"}]), {}, True),
        ({}, {}, False),
    ],
)
def test_a_resource_is_settled_when_it_needs_no_further_reconcile(status: Raw, spec: Raw, settled: bool) -> None:
    assert is_settled(resource(TUNE, status, **spec)) is settled
    known = Resources(references)
    known.update(resource(TUNE, status, **spec))
    assert known.is_unsettled(TUNE) is not settled


def test_a_resource_is_cached_until_it_is_settled_or_too_old() -> None:
    known = Resources(references)
    known.update({**resource(TUNE), "apiVersion": "v"})
    assert known.get(TUNE, version=1) == {**resource(TUNE), "apiVersion": "v"}
    assert known.get(TUNE, version=2) is None
    known.update(resource(TUNE, done()))
    assert known.get(TUNE, version=1) is None, "nothing is kept of what is settled"
    assert known.get(EVAL, version=0) is None


def test_a_resource_with_an_integer_beyond_64_bits_is_cached() -> None:
    """kopf reads 1e20, which the API server writes in digits, as an integer of more than 64 bits."""
    known = Resources(references)
    known.update(resource(TUNE, {"progress": {"loss": 10**19 * 5}}, training={"maxGradNorm": 10**20}))
    copy = known.get(TUNE, version=1)
    assert copy
    assert copy["spec"]["training"]["maxGradNorm"] == 1e20


def test_the_owner_of_a_child_is_read_from_its_labels() -> None:
    labels = {"tunesmith.dev/kind": "EvalJob", "tunesmith.dev/name": "eval"}
    assert owner_of({"metadata": {"namespace": "team", "labels": labels}}) == EVAL
    assert owner_of({"metadata": {"namespace": "team"}}) is None
