"""CEL rules: which of them an update evaluates, and where immutable fields are compared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tunesmith_api.crdgen.crd import KINDS, Kind, root_schema
from tunesmith_api.crdgen.rules import is_transition, make_immutable, skip_on_update
from tunesmith_api.crdgen.structural import Schema

JOBS = [kind for kind in KINDS if kind.spec.mutable]


def test_an_update_evaluates_a_rule_only_if_it_reads_a_mutable_field() -> None:
    schema: Schema = {
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "self.a == 'x'"}, {"rule": "self.a == self.b"}],
    }
    skip_on_update(schema, frozenset({"b"}))
    assert schema["x-kubernetes-validations"] == [
        {"rule": "oldSelf.hasValue() || (self.a == 'x')", "optionalOldSelf": True},
        {"rule": "self.a == self.b"},
    ]


@pytest.mark.parametrize("kind", JOBS, ids=lambda kind: kind.name)
def test_a_write_of_the_status_evaluates_transition_rules_only(kind: Kind) -> None:
    """Rules of scalars and of the items of lists aside."""
    rules = [rule for schema in objects(root_schema(kind)["properties"]["spec"]) for rule in rules_of(schema)]
    assert len(rules) > 5
    assert [rule for rule in rules if not is_transition(rule) and not rule.get("optionalOldSelf")] == []


def test_a_field_that_is_always_present_is_compared_at_the_field() -> None:
    schema: Schema = {"required": ["a"], "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    for field in schema["properties"]:
        make_immutable(schema, [field], "fixed")
    assert rules_of(schema["properties"]["a"]) == [{"rule": "self == oldSelf", "message": "fixed"}]
    assert [rule["rule"] for rule in rules_of(schema)] == [
        "has(self.b) == has(oldSelf.b) && (!has(self.b) || self.b == oldSelf.b)"
    ]


def rules_of(schema: Schema) -> list[Schema]:
    rules: list[Schema] = schema.get("x-kubernetes-validations", [])
    return rules


def objects(schema: Schema) -> Iterator[Schema]:
    """Yield an object schema and those below it, without those of lists."""
    if "properties" in schema:
        yield schema
        for below in schema["properties"].values():
            yield from objects(below)
