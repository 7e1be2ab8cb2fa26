"""CEL rules that follow from tables: what this version cannot do, what cannot go together, what cannot change."""

from __future__ import annotations

import json

from tunesmith_api.base import ApiModel, Rule
from tunesmith_api.compatibility import CONFLICTS, LIMITS, Limit
from tunesmith_api.crdgen.structural import Schema


def add_rules(kind: str, spec: type[ApiModel], schema: Schema) -> None:
    """Add to `schema`, that of a kind's spec, the rules of the tables, each at the object whose field it is about."""
    for row in LIMITS:
        if row.kind == kind and row.at_apply:
            parent, leaf = _parent(schema, row.field)
            _append(parent, limit_rule(row, leaf, optional=is_optional(parent, leaf)))
    if kind == "FineTuneJob":
        for rule in conflict_rules():
            _append(schema, rule)
    if spec.mutable:
        for rule in immutability_rules(kind, schema, spec.mutable):
            _append(schema, rule)


def is_optional(schema: Schema, field: str) -> bool:
    """Whether `field` of an object may be absent once defaults are filled in."""
    return field not in schema.get("required", ()) and "default" not in schema["properties"][field]


def limit_rule(row: Limit, leaf: str, *, optional: bool) -> Rule:
    """`row` as a rule on the object that has the field `leaf`."""
    field = f"self.{leaf}"
    if not row.allowed and not row.refused_schemes:
        return Rule(f"!has({field})", row.sentence())
    holds = (
        f"!{field}.matches('^({'|'.join(row.refused_schemes)})://')"
        if row.refused_schemes
        else f"{field} in {json.dumps(row.allowed)}"
    )
    # The message can tell a string only: the cost of string(self.x) counts as unbounded.
    told = row.refused_schemes or all(isinstance(value, str) for value in row.allowed)
    return Rule(
        f"!has({field}) || {holds}" if optional else holds,
        row.sentence(),
        message_expression=f"'{row.field} ' + {field} + ': not available in this version; {row.advice}'"
        if told
        else None,
    )


def conflict_rules() -> tuple[Rule, ...]:
    """Rules on a FineTuneJob's spec that refuse values which cannot go together."""
    return tuple(
        Rule(
            "!("
            + " && ".join(f"self.{field} in {json.dumps(sorted(values))}" for field, values in row.given.items())
            + ")",
            row.sentence,
        )
        for row in CONFLICTS
    )


def immutability_rules(kind: str, schema: Schema, mutable: frozenset[str]) -> tuple[Rule, ...]:
    """One transition rule per field that cannot change: an optional one can be neither set nor removed later."""
    return tuple(
        Rule(
            (f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})")
            if is_optional(schema, field)
            else f"self.{field} == oldSelf.{field}",
            f"spec.{field} is immutable: create a new {kind} with another name",
        )
        for field in schema["properties"]
        if field not in mutable
    )


def _parent(schema: Schema, path: str) -> tuple[Schema, str]:
    """The object schema that holds the last field of a `Limit.field` path, and that field's name."""
    *parents, leaf = path.split(".")
    for part in parents:
        schema = schema["properties"][part.removesuffix("[]")]
        if part.endswith("[]"):
            schema = schema["items"]
    return schema, leaf


def _append(schema: Schema, rule: Rule) -> None:
    schema["x-kubernetes-validations"] = [*schema.get("x-kubernetes-validations", ()), rule.schema()]
