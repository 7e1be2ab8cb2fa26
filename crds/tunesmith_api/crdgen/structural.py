"""From a pydantic model to a structural schema, the subset of OpenAPI v3.0 that a CRD may use.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from tunesmith_api.base import ApiModel

Schema = dict[str, Any]

KEYWORDS = (
    "description", "type", "format", "default", "enum", "pattern", "minLength", "maxLength", "minimum", "exclusiveMinimum",
    "maximum", "exclusiveMaximum", "minItems", "maxItems", "minProperties", "maxProperties", "items", "additionalProperties",
    "required", "properties", "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)  # fmt: skip
"""Keywords of a schema, in the order in which they are written."""

INT32_MAX = 2**31 - 1


class _WithFactories(GenerateJsonSchema):
    """The default of a block contains the defaults of its fields, as CEL rules see the default as it is written."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory = schema.get("default_factory")
        return (
            factory().to_dict()
            if isinstance(factory, type) and issubclass(factory, ApiModel)
            else super().get_default_value(schema)
        )


def structural_schema(model: type[ApiModel], *, defaults: bool = True) -> Schema:
    """Return the structural schema of `model`. Status has no defaults, as absent means unknown, and no rules, as only the
    operator writes it."""
    schema = model.model_json_schema(by_alias=True, schema_generator=_WithFactories)
    return _structural(schema, schema.pop("$defs", {}), defaults)


def _structural(schema: Schema, definitions: dict[str, Schema], defaults: bool) -> Schema:
    schema = _bounds(_single_type(_inlined(schema, definitions), definitions))
    schema.pop("title", None)
    if not defaults or schema.get("default", "") is None:
        schema.pop("default", None)
    if not defaults:
        schema.pop("x-kubernetes-validations", None)
    if "properties" in schema:
        schema["properties"] = {
            name: _structural(value, definitions, defaults) for name, value in schema["properties"].items()
        }
    for below in ("items", "additionalProperties"):
        if below in schema:
            schema[below] = _structural(schema[below], definitions, defaults)
            schema[below].pop("description", None)  # the description of the field covers them
    if unknown := schema.keys() - set(KEYWORDS):
        raise ValueError(f"a structural schema cannot have {sorted(unknown)}: change the type of {schema}")
    return {key: schema[key] for key in KEYWORDS if key in schema}


def _inlined(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return the target of `$ref`, merged with the keywords beside it."""
    schema = dict(schema)
    reference = schema.pop("$ref", None)
    return {**definitions[reference.removeprefix("#/$defs/")], **schema} if reference else schema


def _single_type(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return `X | None` as an optional X, and `int | str` as int-or-string. Raises ValueError for other unions."""
    members = [member for member in schema.pop("anyOf", ()) if member.get("type") != "null"]
    if not members or (schema.get("x-kubernetes-int-or-string") and len(members) > 1):
        return schema
    if len(members) > 1:
        raise ValueError(f"a union of {members} has no structural form: use an enum and one optional block per member")
    return _single_type({**_inlined(members[0], definitions), **schema}, definitions)


def _bounds(schema: Schema) -> Schema:
    """OpenAPI v3.0 has exclusive bounds as flags. Of the formats of numbers, only int64 adds to type and bounds."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in schema:
            schema[bound], schema[exclusive] = schema[exclusive], True
    if schema.get("type") == "integer" and schema.get("maximum", INT32_MAX + 1) > INT32_MAX:
        schema["format"] = "int64"
    return schema
