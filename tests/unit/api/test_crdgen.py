"""The generated files are up to date, small, and describe every field."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from tests.manifests import load_all
from tunesmith_api.base import ApiModel
from tunesmith_api.choices import NOT_AVAILABLE
from tunesmith_api.compatibility import LIMITS
from tunesmith_api.crdgen.__main__ import main
from tunesmith_api.crdgen.crd import KINDS, Kind, crd, root_schema
from tunesmith_api.crdgen.files import to_yaml
from tunesmith_api.crdgen.structural import structural_schema

ROOT = Path(__file__).resolve().parents[3]
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field below an object schema with its path, including list items and map values."""
    for name, below in schema.get("properties", {}).items():
        yield f"{path}.{name}", below
        yield from fields(below, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield f"{path}{mark}", schema[key]
            yield from fields(schema[key], f"{path}{mark}")


def spec_and_status(kind: Kind) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in ("spec", "status"):
        yield from fields(root_schema(kind)["properties"][part], part)


def test_the_committed_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--root", str(ROOT)]) == 0, capsys.readouterr().out


def test_check_lists_outdated_files_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = Path("charts", "tunesmith", "values.schema.json")
    (tmp_path / values).parent.mkdir(parents=True)
    shutil.copy(ROOT / values, tmp_path / values)
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert "out of date: crds/finetunejobs.yaml" in capsys.readouterr().out
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / values]
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0


@EACH_KIND
def test_a_crd_leaves_a_fifth_of_the_annotation_of_plain_apply_free(kind: Kind) -> None:
    """kubectl apply stores the object as compact JSON of Go in an annotation, and all annotations have at most 256 KiB."""
    text = json.dumps(crd(kind), separators=(",", ":"), ensure_ascii=False)
    assert len(re.sub("[<>&]", r"\\u0026", text).encode()) < 200_000


@EACH_KIND
def test_no_integer_or_string_in_a_list_has_a_rule(kind: Kind) -> None:
    """Kubernetes 1.30 estimates its length by the size of a request, times the items, and rejects the CRD."""
    costly = [
        path
        for path, field in spec_and_status(kind)
        if "[]" in path and field.get("x-kubernetes-int-or-string") and "x-kubernetes-validations" in field
    ]
    assert costly == []


@EACH_KIND
def test_every_field_is_described(kind: Kind) -> None:
    silent = [
        path
        for path, schema in spec_and_status(kind)
        if not path.endswith(("[]", "{}")) and not schema.get("description", "").endswith(".")
    ]
    assert silent == []


@EACH_KIND
def test_the_description_of_a_field_gives_its_default(kind: Kind) -> None:
    missing = [
        (path, schema["default"])
        for path, schema in spec_and_status(kind)
        if not isinstance(schema.get("default", {}), dict)
        and schema["default"] != ""
        and f"Default {shown(schema['default'])}" not in schema["description"]
    ]
    assert missing == []


def shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


@EACH_KIND
def test_the_description_of_an_optional_field_explains_its_absence(kind: Kind) -> None:
    """A scalar of the spec is required, has a default, or a description with `Default: ...`; members of a union need none."""
    spec = root_schema(kind)["properties"]["spec"]
    objects = [("spec", spec), *((path, schema) for path, schema in fields(spec, "spec"))]
    silent = [
        f"{path}.{name}"
        for path, schema in objects
        for name, below in schema.get("properties", {}).items()
        if below.get("type") not in {"object", "array"}
        and name not in schema.get("required", ())
        and "default" not in below
        and "Default" not in below["description"]
        and not any(name in rule.get("message", "") for rule in schema.get("x-kubernetes-validations", ()))
    ]
    assert silent == []


@EACH_KIND
def test_every_value_is_bounded_so_that_the_cost_of_rules_is(kind: Kind) -> None:
    unbounded = [path for path, schema in spec_and_status(kind) if not is_bounded(schema)]
    assert unbounded == []


def is_bounded(schema: dict[str, Any]) -> bool:
    match schema.get("type"):
        case "string":
            return "maxLength" in schema or "enum" in schema or schema.get("format") == "date-time"
        case "array":
            return "maxItems" in schema and "x-kubernetes-list-type" in schema
        case "object" if "additionalProperties" in schema:
            return "maxProperties" in schema
        case "object":
            return "properties" in schema
        case "integer" | "number" | "boolean":
            return True
        case None:
            return schema.get("x-kubernetes-int-or-string") is True and "maxLength" in schema
    return False


@EACH_KIND
def test_no_refusal_is_a_bare_regular_expression(kind: Kind) -> None:
    """The API server reports a pattern verbatim; a rule has a message."""
    assert [path for path, schema in spec_and_status(kind) if "pattern" in schema] == []


@EACH_KIND
def test_the_status_has_no_defaults(kind: Kind) -> None:
    assert [path for path, schema in spec_and_status(kind) if path.startswith("status") and "default" in schema] == []


@EACH_KIND
def test_every_column_shows_a_field_of_the_schema(kind: Kind) -> None:
    known = {f".{path}" for path, _ in spec_and_status(kind)} | {".metadata.creationTimestamp"}
    assert {column.path for column in kind.columns} <= known


@EACH_KIND
def test_every_limit_is_a_rule(kind: Kind) -> None:
    text = json.dumps(crd(kind))
    assert [row for row in LIMITS if row.kind == kind.name and f": {NOT_AVAILABLE}; {row.hint}" not in text] == []


@EACH_KIND
def test_the_message_of_a_rule_fits_a_line_and_gives_advice(kind: Kind) -> None:
    for _, schema in [("", root_schema(kind)), *spec_and_status(kind)]:
        for rule in schema.get("x-kubernetes-validations", ()):
            message = rule.get("message") or rule["messageExpression"]
            assert "\n" not in rule["rule"] + message
            assert len(message) > 20, rule


def test_yaml_has_no_anchors_and_keeps_its_order() -> None:
    shared = ["a"]
    assert to_yaml({"z": shared, "b": shared}) == "z:\n- a\nb:\n- a\n"


def test_the_files_are_the_crds() -> None:
    for kind in KINDS:
        assert load_all((ROOT / "crds" / f"{kind.plural}.yaml").read_text(encoding="utf-8")) == [crd(kind)]


class Inner(ApiModel):
    """Inside."""

    share: float = Field(0.5, gt=0, lt=1, description="Share.")


class Outer(ApiModel):
    """Outside."""

    inner: Inner = Field(default_factory=Inner, description="In.")
    count: int | None = Field(None, ge=1, description="Count.")


def test_an_optional_field_may_be_absent() -> None:
    count = structural_schema(Outer)["properties"]["count"]
    assert count == {"description": "Count.", "type": "integer", "format": "int64", "minimum": 1}


def test_a_block_with_defaults_is_filled_in_as_a_whole() -> None:
    inner = structural_schema(Outer)["properties"]["inner"]
    assert inner["default"] == {"share": 0.5}
    assert inner["properties"]["share"]["exclusiveMinimum"] is True
    assert inner["properties"]["share"]["minimum"] == 0


def test_a_union_of_types_is_refused_with_the_alternative() -> None:
    class Either(ApiModel):
        """Either."""

        value: int | str = Field(description="Value.")

    with pytest.raises(ValueError, match="use an enum and one optional block per member"):
        structural_schema(Either)
