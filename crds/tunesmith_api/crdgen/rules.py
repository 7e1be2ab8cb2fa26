"""CEL rules from tables: values that this version lacks, combinations that it refuses, fields that cannot change."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import chain

from tunesmith_api.base import ApiModel, Rule
from tunesmith_api.choices import ANY, NOT_AVAILABLE, SEVERAL, Choice, Limit, Values, shown
from tunesmith_api.compatibility import LIMITS, conflicts
from tunesmith_api.crdgen.structural import Schema
from tunesmith_api.grammar import cel, cel_literal

MANY_FIELDS = 20
"""An object with more fields is compared field by field, because its own `==` takes time by the square of their number."""


def add_rules(kind: str, spec: type[ApiModel], schema: Schema) -> None:
    """Add the rules of the tables to `schema`, the schema of a kind's spec.

    The API server evaluates all rules at each write of the status too, and for each `self.field` of a rule it copies the
    schemas of all fields of `self`. So a rule is at the field itself where possible, and skips updates if nothing that it
    reads can change.
    """
    for row in LIMITS:
        if row.kind == kind:
            parent, leaf = _parent(schema, row.field)
            field = parent["properties"][leaf]
            if row.allowed or row.refused_schemes:
                _append(field, limit_rule(row, field.get("enum", ())))
            else:
                _append(parent, Rule(f"!has(self.{leaf})", str(row.refusal())))
    if kind == "FineTuneJob":
        rows: dict[tuple[str, Values], list[Choice]] = {}
        for choice in conflicts():
            rows.setdefault((choice.field, choice.values), []).append(choice)
        for choices in rows.values():
            _append(schema, conflict_rule(choices, schema))
    for selector, blocks in spec.unions.items():
        for block in blocks:
            _append(schema, block_rule(selector, block))
    if spec.mutable:
        skip_on_update(schema, spec.mutable)
        for name, fields in _immutable(spec, schema).items():
            make_immutable(schema, fields, f"{name} is immutable: create a new {kind} with another name")


def is_optional(schema: Schema, field: str) -> bool:
    """Return whether `field` of an object may be absent after defaulting."""
    return field not in schema.get("required", ()) and "default" not in schema["properties"][field]


def is_transition(rule: Schema) -> bool:
    """Return whether a rule of a schema compares with the old value."""
    return "oldSelf" in rule["rule"] and not rule.get("optionalOldSelf")


def block_rule(selector: str, block: str) -> Rule:
    """Return the rule that a block of a union may be set only where `selector` names it."""
    return Rule(
        f"!has(self.{block}) || self.{selector} == {cel(block)}",
        f"the block {block} goes with {selector}: {block}; remove the block",
    )


def limit_rule(row: Limit, enum: Sequence[str] = ()) -> Rule:
    """Return `row`, a limit of the values of a field of that enum, as a rule on the field."""
    schemes = f"^({'|'.join(row.refused_schemes)})://"
    return Rule(
        f"!self.matches({cel(schemes)})" if row.refused_schemes else _is_among("self", row.allowed, enum),
        # The API server falls back to the message if the value has line breaks, as a URI can.
        str(row.refusal()) if row.refused_schemes else "",
        message_expression=f"{cel(f'{row.field} ')} + self + {cel(f': {NOT_AVAILABLE}; {row.hint}')}",
    )


def conflict_rule(choices: Sequence[Choice], schema: Schema) -> Rule:
    """Return rows of the table, all for the same values of a field, as one rule on a spec of that schema.

    A spec must not have these values together with those that any of the rows excludes. The message is that of the first
    such row, and names the values that the spec has.
    """
    own = _has_value(schema, "self", choices[0].field, choices[0].values)
    excluded = [
        " && ".join(_has_value(schema, "self", path, values) for path, values in choice.excludes.items())
        for choice in choices
    ]
    texts = [_text_with_paths(choice) for choice in choices]
    if len(choices) > 1:
        message = _first_of(excluded, texts)
        return Rule(f"!({own} && ({' || '.join(excluded)}))", message_expression=message)
    rule = Rule(f"!({own} && {excluded[0]})")
    is_fixed = "\0" not in texts[0]
    return replace(rule, message=texts[0]) if is_fixed else replace(rule, message_expression=_joined(texts[0]))


def _text_with_paths(choice: Choice) -> str:
    """Return the refusal of a row, where \0PATH\0 stands for the value at a path of which the row has several."""
    several = [path for path, values in choice.combination.items() if len(values) > 1 and "[]" not in path]
    text = choice.message(
        lambda path, values: f"\0self.{path}\0" if path in several else " or ".join(map(shown, values))
    )
    return f"{text}; {choice.hint}"


def _first_of(conditions: Sequence[str], texts: Sequence[str]) -> str:
    """Return CEL of the text of the first of `conditions` that holds. All texts begin with the same `FIELD VALUE with `."""
    head, tail = f"{texts[0].partition(' with ')[0]} with ", _common_end(texts)
    parts = [_joined(text.removeprefix(head).removesuffix(tail)) for text in texts]
    chosen = "".join(f"{condition} ? {part} : " for condition, part in zip(conditions, parts[:-1], strict=False))
    return f"{_joined(head)} + ({chosen}{parts[-1]})" + (f" + {cel(tail)}" if tail else "")


def _common_end(texts: Sequence[str]) -> str:
    """Return the longest end of all texts that begins with the reason, the hint, or the hint's last alternative."""
    first = texts[0]
    ends = (first[at:] for at in range(len(first)) if first.startswith((": ", "; ", ", or "), at))
    return next((end for end in ends if "\0" not in end and all(text.endswith(end) for text in texts)), "")


def _joined(text: str) -> str:
    """Return CEL of a text of `_text_with_paths`."""
    return " + ".join(piece if piece.startswith("self.") else cel(piece) for piece in text.split("\0") if piece)


def _has_value(schema: Schema, subject: str, path: str, values: Values) -> str:
    """Return CEL that is true if `subject` has one of `values` at `path`, or any if there are none, and false if the field is absent."""
    part, _, rest = path.partition(".")
    name = part.removesuffix("[]")
    field, below = f"{subject}.{name}", schema["properties"][name]
    if not rest and values == ANY:
        return f"has({field})"
    guard = f"has({field}) && " if is_optional(schema, name) else ""
    if part.endswith("[]"):
        inner = _has_value(below["items"], "item", rest, values) if rest else f"item in {cel_literal(values)}"
        return f"{guard}{field}.exists(item, {inner})"
    return guard + (_has_value(below, field, rest, values) if rest else _is_among(field, values, below.get("enum", ())))


def _is_among(field: str, values: Values, enum: Sequence[str]) -> str:
    """Return the shortest CEL that is true if a field, of an enum where there are names, has one of `values`."""
    if values == (SEVERAL,):
        return f"{field} > 1"
    if values == (True,):
        return field
    others = [value for value in enum if value not in values]
    among = f"{field} == {cel_literal(values[0])}" if len(values) == 1 else f"{field} in {cel_literal(values)}"
    if not 0 < len(others) < len(values):
        return among
    return f"{field} != {cel_literal(others[0])}" if len(others) == 1 else f"!({field} in {cel_literal(others)})"


def _immutable(spec: type[ApiModel], schema: Schema) -> dict[str, tuple[str, ...]]:
    """Return the immutable fields of a spec by the name in their message, which the blocks of a union share: one is set at most."""
    unions = {f"the block of spec.{selector}": blocks for selector, blocks in spec.unions.items()}
    others = {*spec.mutable, *chain(*unions.values())}
    return {f"spec.{field}": (field,) for field in schema["properties"] if field not in others} | unions


def make_immutable(schema: Schema, fields: Collection[str], message: str) -> None:
    """Add transition rules by which `fields` of an object cannot change; optional ones can be neither set nor removed."""
    optional = [field for field in fields if is_optional(schema, field)]
    if optional:
        _append(schema, Rule(" && ".join(map(_is_unchanged, optional)), message))
    for field in fields:
        below = schema["properties"][field]
        if field not in optional and len(below.get("properties", ())) > MANY_FIELDS:
            make_immutable(below, below["properties"], message)
        elif field not in optional:
            _append(below, Rule("self == oldSelf", message))


def _is_unchanged(field: str) -> str:
    """Return CEL that is true if an optional field is as it was."""
    # The API server's cost estimate of `self.?x == oldSelf.?x` is unbounded.
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"


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
