"""Base of every API type: camelCase names, CEL rules, and scalar types with their patterns and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tunesmith_api.grammar import Grammar, Slip
from tunesmith_api.splits import SPLIT
from tunesmith_api.uris import DATA, ENDPOINT, MODEL, STORE, TRACKER


@dataclass(frozen=True)
class Rule:
    """A CEL rule of the CRD (KEP-2876): where `expression` is false, the API server refuses the object with `message`.

    `message_expression` is CEL that computes the message from the value; `message` is then the fallback, which is not needed
    where the expression cannot fail.
    """

    expression: str
    message: str = ""
    message_expression: str | None = None
    field_path: str | None = None

    def schema(self) -> dict[str, Any]:
        """The rule as an entry of `x-kubernetes-validations`."""
        entry = {
            "rule": self.expression,
            "message": self.message,
            "messageExpression": self.message_expression,
            "fieldPath": self.field_path,
        }
        return {name: value for name, value in entry.items() if value}


def listed(names: Sequence[str], word: str = "or") -> str:
    """Return names as "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} {word} {last}" if most else last


def exactly_one(*fields: str) -> Rule:
    """Return the rule that exactly one of `fields` is set."""
    count = " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields)
    return Rule(f"{count} == 1", f"set exactly one of {', '.join(fields)}")


class ApiModel(BaseModel):
    """Base of every type in the API. Unknown fields are ignored: the API server has pruned or refused them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    rules: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules on an object of this type."""

    mutable: ClassVar[frozenset[str]] = frozenset()
    """For a spec: the fields (camelCase) that may change after creation. Empty means: no rule about it."""

    unions: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """For a spec: a field -> blocks, of which the one may be set that is named by the value of the field."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if cls.rules:
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = [rule.schema() for rule in cls.rules]
        return schema

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON-ready data with camelCase names; absent fields stay absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def api_type_in(annotation: Any) -> type[ApiModel] | None:
    """Return the API type in an annotation such as `list[Dataset] | None`; None if it has none."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    if get_origin(annotation) is dict:
        return None
    return next((found for part in get_args(annotation) if (found := api_type_in(part))), None)


def map_list(*keys: str) -> dict[str, Any]:
    """Return the `json_schema_extra` of a list whose items `keys` identify, so that server-side apply merges by item."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


ATOMIC_LIST: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
SET_LIST: dict[str, Any] = {"x-kubernetes-list-type": "set"}

_ENDS = "beginning and ending with a letter or digit"
NAME = Grammar(
    pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    problem="is not a resource name",
    advice=f"write lower-case letters, digits and -, {_ENDS}",
    lower=True,
    repairs=(("_", "-"), (".", "-"), (" ", "-")),
)
OBJECT_NAME = Grammar(
    pattern="^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    problem="is not an object name",
    advice=f"write lower-case letters, digits, - and ., {_ENDS}",
    lower=True,
    repairs=(("_", "-"), (" ", "-")),
)
CATALOGUE_NAME = Grammar(
    pattern="^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$",
    problem="is not a name of the catalogue",
    advice=f"write lower-case letters, digits, -, _ and ., {_ENDS}, such as qwen3-8b",
    slips=(
        Slip("^[A-Za-z0-9]+://", "is a URI", "write it in the field uri"),
        Slip("^[^/]+/[^/]+$", "is the id of a hub's repository", "write hf://ORG/NAME in the field uri"),
    ),
    repairs=((" ", "-"),),
    lower=True,
)
LABEL_VALUE = Grammar(
    pattern=r"^(([A-Za-z0-9][-\w.]*)?[A-Za-z0-9])?$",
    problem="is not a label value",
    advice=f"write letters, digits, -, _ and ., {_ENDS}",
    repairs=((" ", "-"), ("/", "-"), (":", "-"), ("@", "-")),
)
DURATION = Grammar(
    pattern=r"^([0-9]{1,6}(\.[0-9]{1,6})?(s|m|h|d))+$",
    problem="is not a duration",
    advice="write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d",
    lower=True,
    repairs=(
        (", ", ""), (" ", ""), ("and", ""), ("pt", ""), ("hours", "h"), ("hour", "h"), ("hrs", "h"), ("hr", "h"), ("minutes", "m"), ("minute", "m"),
        ("mins", "m"), ("min", "m"), ("seconds", "s"), ("second", "s"), ("secs", "s"), ("sec", "s"), ("days", "d"), ("day", "d"),
    ),
)  # fmt: skip
TEMPLATE = Grammar(
    pattern=r"^([^{}]|\{\{|\}\}|\{[^{}]+\})*$",
    problem="has a brace that encloses no column",
    advice="write {COLUMN} for the value of a column, and two braces for a literal brace",
    terse=True,
)
QUANTITY = Grammar(
    pattern=r"^[0-9]{1,15}(\.[0-9]{1,9})?([mkMGTP]|[KMGTP]i)?$",
    problem="is not a quantity",
    advice="write a number, alone or with a unit such as 500m, 2 or 16Gi",
    repairs=((" ", ""), ("iB", "i"), ("GB", "Gi"), ("MB", "Mi"), ("gb", "Gi")),
    number=True,
)
QUANTITY_TEXT = replace(QUANTITY, number=False, terse=True)

Name = Annotated[str, Field(min_length=1, max_length=45), NAME]
"""The name of a resource of this API: a DNS label, short enough for the names of its children (63 characters)."""

FurtherName = Annotated[str, Field(min_length=1, max_length=45), replace(NAME, terse=True)]
"""A `Name` in a further place of a CRD."""

ObjectName = Annotated[str, Field(min_length=1, max_length=253), OBJECT_NAME]
"""The name of any other object of the cluster (Secret, ConfigMap, ServiceAccount, class)."""

FurtherObjectName = Annotated[str, Field(min_length=1, max_length=253), replace(OBJECT_NAME, terse=True)]
"""An `ObjectName` in a further place of a CRD."""

QueueName = Annotated[str, Field(min_length=1, max_length=63), OBJECT_NAME]
"""The name of a queue, short enough for the value of a label."""

CatalogueName = Annotated[str, Field(min_length=1, max_length=100), CATALOGUE_NAME]
"""A name of the catalogue: of a model or of a data set."""

FurtherCatalogueName = Annotated[str, Field(min_length=1, max_length=100), replace(CATALOGUE_NAME, terse=True)]
"""A `CatalogueName` in a further place of a CRD."""

TEXT_CHARACTERS = 4096
Text = Annotated[str, Field(max_length=TEXT_CHARACTERS)]
"""A message in status. Whoever writes it cuts it to TEXT_CHARACTERS."""
ShortText = Annotated[str, Field(max_length=253)]
UriText = Annotated[str, Field(max_length=1024)]
"""A URI in status."""

TemplateText = Annotated[str, Field(min_length=1, max_length=TEXT_CHARACTERS), TEMPLATE]
"""Text with columns of a row in braces."""

LabelValue = Annotated[str, Field(max_length=63), LABEL_VALUE]
"""The value of a label of a pod or node."""

Duration = Annotated[str, Field(max_length=32), DURATION]
"""A duration such as `90s`, `30m`, `1h30m`, `2d`; longer ones are cut to ten years."""

FurtherDuration = Annotated[str, Field(max_length=32), replace(DURATION, terse=True)]
"""A `Duration` in a further place of a CRD."""

LONGEST_SECONDS = 10 * 365 * 86400.0
"""Ten years: fits the 32-bit fields of a Deployment, and the calendar of datetime."""


def _not_too_many(value: int | str) -> int | str:
    if isinstance(value, int) and not 0 <= value < 10**15:
        raise ValueError(f"{value} is not a quantity: {QUANTITY.advice}")
    return value


Quantity = Annotated[
    int | str,
    AfterValidator(_not_too_many),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": 10**15 - 1,
            "maxLength": 32,
        }
    ),
    QUANTITY,
]
"""A Kubernetes quantity such as `500m`, `2`, `16Gi`."""

QuantityText = Annotated[str, Field(max_length=32), QUANTITY_TEXT]
"""A quantity in an item of a list, where Kubernetes 1.30 takes a rule on an integer or string for too expensive."""

ModelUri = Annotated[str, Field(max_length=1024), MODEL]
"""`hf://org/name@revision`, `ms://org/name@revision`, `s3://bucket/prefix`, `pvc://claim/path` or `file:///path`."""

FurtherModelUri = Annotated[str, Field(max_length=1024), replace(MODEL, terse=True)]
"""A `ModelUri` in a further place of a CRD."""

DataUri = Annotated[str, Field(max_length=1024), DATA]
"""`s3://bucket/key` (`*` matches names), `https://host/file`, `pvc://claim/path`, `hf://org/name`, `ms://org/name` or `file:///path`."""

FurtherDataUri = Annotated[str, Field(max_length=1024), replace(DATA, terse=True)]
"""A further `DataUri` of a CRD, with short messages: those of DATA do not fit twice."""

SplitText = Annotated[str, Field(max_length=128), SPLIT]
"""A split of a data set, such as `train` or `train[:90%]`."""

FurtherSplitText = Annotated[str, Field(max_length=128), replace(SPLIT, terse=True)]
"""A `SplitText` in a further place of a CRD."""

StoreUri = Annotated[str, Field(max_length=1024), STORE]
"""A destination: `s3://bucket/prefix`, `pvc://claim/path` or `file:///path`."""

Endpoint = Annotated[str, Field(max_length=512), ENDPOINT]
"""The URL of an S3 API."""

JudgeUrl = Annotated[
    str,
    Field(max_length=512),
    replace(ENDPOINT, problem="is not the URL of an OpenAI API", advice="write https://HOST/v1", slips=(), terse=True),
]
"""The URL of an OpenAI API."""

TrackerUrl = Annotated[str, Field(max_length=512), TRACKER]
"""The URL of a tracking server."""


def parse_duration(text: str) -> float:
    """Return the seconds in a `Duration` such as `1h30m`, at most ten years."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    total, number = 0.0, ""
    for character in text:
        if character in units:
            total, number = total + float(number) * units[character], ""
        else:
            number += character
    return min(total, LONGEST_SECONDS)
