"""CEL rules from tables: values that this version lacks, combinations that it refuses, fields that cannot change."""

from __future__ import annotations

import json

from tunesmith_api.base import ApiModel, Rule
from tunesmith_api.compatibility import LIMITS, NOT_AVAILABLE, Choice, Limit, conflicts
from tunesmith_api.crdgen.structural import Schema


def add_rules(kind: str, spec: type[ApiModel], schema: Schema) -> None:
    """Add the rules of the tables to `schema`, the schema of a kind's spec, each at the object that has the field."""
    for row in LIMITS:
        if row.kind == kind and row.at_apply:
            parent, leaf = _parent(schema, row.field)
            _append(parent, limit_rule(row, leaf, optional=is_optional(parent, leaf)))
    if kind == "FineTuneJob":
        for choice in conflicts():
            _append(schema, conflict_rule(choice, schema))
    if spec.mutable:
        for rule in immutability_rules(kind, schema, spec.mutable):
            _append(schema, rule)


def is_optional(schema: Schema, field: str) -> bool:
    """Return whether `field` of an object may be absent after defaulting."""
    return field not in schema.get("required", ()) and "default" not in schema["properties"][field]


def limit_rule(row: Limit, leaf: str, *, optional: bool) -> Rule:
    """Return `row` as a rule on the object that has the field `leaf`."""
    field = f"self.{leaf}"
    if not row.allowed and not row.refused_schemes:
        return Rule(f"!has({field})", str(row.refusal()))
    holds = (
        f"!{field}.matches('^({'|'.join(row.refused_schemes)})://')"
        if row.refused_schemes
        else f"{field} in {json.dumps(row.allowed)}"
    )
    # A message can contain strings only: the estimated cost of string(self.x) is unbounded.
    has_strings = row.refused_schemes or all(isinstance(value, str) for value in row.allowed)
    return Rule(
        f"!has({field}) || {holds}" if optional else holds,
        str(row.refusal()),
        message_expression=f"'{row.field} ' + {field} + ': {NOT_AVAILABLE}; {row.hint}'" if has_strings else None,
    )


def conflict_rule(choice: Choice, schema: Schema) -> Rule:
    """Return `choice` as a rule on a spec of that schema, which must not have it together with an excluded value."""
    combination = {choice.field: (choice.value,), **choice.excludes}
    parts = (_has_value(schema, "self", path, values) for path, values in combination.items())
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


def immutability_rules(kind: str, schema: Schema, mutable: frozenset[str]) -> tuple[Rule, ...]:
    """Return a transition rule for each field that cannot change; an optional field can be neither set nor removed later."""
    return tuple(
        Rule(
            # The API server's cost estimate of `self.?x == oldSelf.?x` is unbounded.
            f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
            if is_optional(schema, field)
            else f"self.{field} == oldSelf.{field}",
            f"spec.{field} is immutable: create a new {kind} with another name",
        )
        for field in schema["properties"]
        if field not in mutable
    )


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
