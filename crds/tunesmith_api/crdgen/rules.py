"""CEL rules from tables: values that this version lacks, combinations that it refuses, fields that cannot change."""

from __future__ import annotations

import json
import re

from tunesmith_api.base import ApiModel, Rule
from tunesmith_api.compatibility import LIMITS, NOT_AVAILABLE, Choice, Limit, conflicts
from tunesmith_api.crdgen.structural import Schema

MANY_FIELDS = 20
"""An object with more fields is compared field by field, because its own `==` takes time by the square of their number."""


def add_rules(kind: str, spec: type[ApiModel], schema: Schema) -> None:
    """Add the rules of the tables to `schema`, the schema of a kind's spec.

    The API server evaluates all rules at each write of the status too, and for each `self.field` of a rule it copies the
    schemas of all fields of `self`. So a rule is at the field itself where possible, and skips updates if nothing that it
    reads can change.
    """
    for row in LIMITS:
        if row.kind == kind and row.at_apply:
            parent, leaf = _parent(schema, row.field)
            if row.allowed or row.refused_schemes:
                _append(parent["properties"][leaf], limit_rule(row))
            else:
                _append(parent, Rule(f"!has(self.{leaf})", str(row.refusal())))
    if kind == "FineTuneJob":
        for choice in conflicts():
            _append(schema, conflict_rule(choice, schema))
    if spec.mutable:
        skip_on_update(schema, spec.mutable)
        for field in [name for name in schema["properties"] if name not in spec.mutable]:
            make_immutable(schema, field, f"spec.{field} is immutable: create a new {kind} with another name")


def is_optional(schema: Schema, field: str) -> bool:
    """Return whether `field` of an object may be absent after defaulting."""
    return field not in schema.get("required", ()) and "default" not in schema["properties"][field]


def is_transition(rule: Schema) -> bool:
    """Return whether a rule of a schema compares with the old value."""
    return "oldSelf" in rule["rule"] and not rule.get("optionalOldSelf")


def limit_rule(row: Limit) -> Rule:
    """Return `row`, a limit of the values of a field, as a rule on the field."""
    holds = (
        f"!self.matches('^({'|'.join(row.refused_schemes)})://')"
        if row.refused_schemes
        else f"self in {json.dumps(row.allowed)}"
    )
    # A message can contain strings only: the estimated cost of string(self) is unbounded.
    has_strings = row.refused_schemes or all(isinstance(value, str) for value in row.allowed)
    return Rule(
        holds,
        str(row.refusal()),
        message_expression=f"'{row.field} ' + self + ': {NOT_AVAILABLE}; {row.hint}'" if has_strings else None,
    )


def conflict_rule(choice: Choice, schema: Schema) -> Rule:
    """Return `choice` as a rule on a spec of that schema, which must not have it together with an excluded value.

    The shortest path comes first, because it is the cheapest to read.
    """
    combination = {choice.field: (choice.value,), **choice.excludes}
    shortest_first = sorted(combination.items(), key=lambda item: item[0].count("."))
    parts = (_has_value(schema, "self", path, values) for path, values in shortest_first)
    return Rule(f"!({' && '.join(parts)})", str(choice.refusal))


def _has_value(schema: Schema, subject: str, path: str, values: tuple[str | bool, ...]) -> str:
    """Return CEL that is true if `subject` has one of `values` at `path`, and false if the field is absent."""
    part, _, rest = path.partition(".")
    name = part.removesuffix("[]")
    field, below = f"{subject}.{name}", schema["properties"][name]
    guard = f"has({field}) && " if is_optional(schema, name) else ""
    if part.endswith("[]"):
        inner = _has_value(below["items"], "item", rest, values) if rest else f"item in {json.dumps(values)}"
        return f"{guard}{field}.exists(item, {inner})"
    return guard + (_has_value(below, field, rest, values) if rest else f"{field} in {json.dumps(values)}")


def make_immutable(schema: Schema, field: str, message: str) -> None:
    """Add transition rules by which `field` of an object cannot change; an optional field can be neither set nor removed."""
    below = schema["properties"][field]
    if is_optional(schema, field):
        # The API server's cost estimate of `self.?x == oldSelf.?x` is unbounded.
        same = f"has(oldSelf.{field}) && self.{field} == oldSelf.{field}"
        _append(schema, Rule(f"has(self.{field}) ? {same} : !has(oldSelf.{field})", message))
    elif len(below.get("properties", ())) > MANY_FIELDS:
        for name in below["properties"]:
            make_immutable(below, name, message)
    else:
        _append(below, Rule("self == oldSelf", message))


def skip_on_update(schema: Schema, mutable: frozenset[str] = frozenset()) -> None:
    """Evaluate the rules of an object, and of those below it, at creation only, unless they read a `mutable` field.

    Items of lists have no old value. Rules of scalars read no field and are cheap.
    """
    for rule in schema.get("x-kubernetes-validations", ()):
        if not any(re.search(rf"self\.{field}\b", rule["rule"]) for field in mutable):
            rule |= {"rule": f"oldSelf.hasValue() || ({rule['rule']})", "optionalOldSelf": True}
    for field, below in schema["properties"].items():
        if "properties" in below and field not in mutable:
            skip_on_update(below)


def _parent(schema: Schema, path: str) -> tuple[Schema, str]:
    """Return the object schema with the last field of a `Limit.field` path, and the name of the field."""
    *parents, leaf = path.split(".")
    for part in parents:
        schema = schema["properties"][part.removesuffix("[]")]
        if part.endswith("[]"):
            schema = schema["items"]
    return schema, leaf


def _append(schema: Schema, rule: Rule) -> None:
    schema["x-kubernetes-validations"] = [*schema.get("x-kubernetes-validations", ()), rule.schema()]
