"""A hint works: its fields exist, and a spec that follows it is accepted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hints import FOLLOWED, Fix, fields_in
from tunesmith_api.compatibility import LIMITS, available, conflicts, refusals
from tunesmith_api.crdgen.crd import KINDS, root_schema
from tunesmith_api.failures import EVAL, FAILURES, SERVE, TUNE, FailureClass
from tunesmith_api.symptoms import SIGNALS

ROOT = Path(__file__).parents[3]
SCHEMAS = {kind.name: root_schema(kind)["properties"]["spec"] for kind in KINDS}
TYPES = {kind.name: kind.spec for kind in KINDS}
ONLY: dict[str, frozenset[str]] = {
    "training": frozenset({TUNE}),
    "parallelism": frozenset({TUNE}),
    "benchmarks": frozenset({EVAL}),
    "rollout": frozenset({SERVE}),
    "deadline": frozenset({TUNE, EVAL}),
}
"""Field -> the kinds that have it. A hint for another kind must not name it."""
OF_JOBS = frozenset({FailureClass.DEADLINE_EXCEEDED})
"""Classes that a service never reports."""


def has_field(kind: str, path: str) -> bool:
    """Return whether the schema of a kind has `path`, such as spec.datasets[].uri."""
    schema: Any = {"properties": {"spec": SCHEMAS[kind]}}
    for part in path.split("."):
        below = schema.get("properties", {}).get(part.removesuffix("[]"))
        if below is None:
            return False
        schema = below["items"] if part.endswith("[]") else below
    return True


def class_hints() -> Iterator[tuple[str, FailureClass, str]]:
    for class_, row in FAILURES.items():
        for kind in (TUNE, EVAL, *(() if class_ in OF_JOBS else (SERVE,))):
            yield kind, class_, row.hint_for(kind)


EACH_HINT = pytest.mark.parametrize(("kind", "class_", "hint"), tuple(class_hints()))


@EACH_HINT
def test_a_hint_names_fields_that_its_kind_has(kind: str, class_: FailureClass, hint: str) -> None:
    assert [path for path in fields_in(hint) if not has_field(kind, path)] == []


@EACH_HINT
def test_a_hint_writes_spec_before_a_field(kind: str, class_: FailureClass, hint: str) -> None:
    """It distinguishes the field from a chart value, and kubectl explain takes it."""
    bare = re.findall(r"(?<![\w.])(?:training|resources|storage|export|parallelism|rollout|pod)\.\w+", hint)
    assert bare == []


@pytest.mark.parametrize("field", ONLY)
def test_the_table_of_fields_of_one_kind_is_right(field: str) -> None:
    assert {kind for kind in SCHEMAS if has_field(kind, f"spec.{field}")} == ONLY[field]


@EACH_HINT
def test_a_hint_names_no_field_of_another_kind(kind: str, class_: FailureClass, hint: str) -> None:
    others = [field for field, kinds in ONLY.items() if kind not in kinds]
    assert [field for field in others if re.search(rf"\b{field}\b[.\[]", hint)] == []


SPEAKS_TO: dict[str, tuple[str, ...]] = {
    "operator/tunesmith_operator/plan": (TUNE, EVAL, SERVE),
    "runtime/tunesmith_runtime/data": (TUNE,),
    "runtime/tunesmith_runtime/train": (TUNE,),
    "runtime/tunesmith_runtime/export": (TUNE,),
    "runtime/tunesmith_runtime/evaluate": (EVAL,),
    "runtime/tunesmith_runtime/serve": (SERVE,),
    "runtime/tunesmith_runtime/fetch": (TUNE, EVAL, SERVE),
    "runtime/tunesmith_runtime/fetch/adapter_template.py": (TUNE,),
    "runtime/tunesmith_runtime/fetch/initial.py": (TUNE,),
    "runtime/tunesmith_runtime/fetch/quantized_base.py": (TUNE,),
    "runtime/tunesmith_runtime/storage": (TUNE, EVAL, SERVE),
}
"""Folder, or file that is apart from its folder -> the kinds that report its messages: all of them for the runtime, at least one of them for the operator."""
OF_OTHERS = frozenset({"spec.active"})
"""Fields of kinds of other APIs (Kueue's Workload)."""


def texts(folder: str) -> Iterator[str]:
    """Yield the strings of a package without docstrings."""
    place = ROOT / folder
    apart = {ROOT / name for name in SPEAKS_TO} - {place}
    for path in [place] if place.is_file() else sorted({*place.rglob("*.py")} - apart):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                yield node.value


@pytest.mark.parametrize("folder", SPEAKS_TO)
def test_messages_name_fields_of_the_schema(folder: str) -> None:
    fields = {path for text in texts(folder) for path in fields_in(text)} - OF_OTHERS
    everybody = folder.startswith("runtime")
    there = all if everybody else any
    assert {path for path in fields if not there(has_field(kind, path) for kind in SPEAKS_TO[folder])} == set()


@pytest.mark.parametrize("folder", SPEAKS_TO)
def test_advice_writes_spec_before_a_field(folder: str) -> None:
    """By it the operator recognizes that the job must be created again for the change."""
    fields = "|".join(sorted({field for schema in SCHEMAS.values() for field in schema["properties"]}))
    advice = re.compile(rf"\b(?:set|raise|lower|halve|double|remove|write) (?:the block \w+|(?:{fields})(?:\.\w|: ))")
    # The API server shows the message of pydantic below the name of the field.
    assert [text for text in texts(folder) if advice.search(text)] == []


def test_hints_about_signals_name_fields_of_all_kinds() -> None:
    fields = {path for _, hint in SIGNALS.values() for path in fields_in(hint)}
    assert all(has_field(kind, path) for kind in SCHEMAS for path in fields)


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: f"{row.kind} {row.field}")
def test_the_advice_of_a_limit_proposes_no_value_that_another_row_refuses(row: Any) -> None:
    proposed = {word.strip(",") for word in re.split(r"[ :]", row.hint)}
    refused = {value for value in enum_at(row.kind, row.field) if not row.allows(value)}
    assert proposed & {str(value) for value in refused} == set()


def enum_at(kind: str, path: str) -> list[Any]:
    """Return the values of an enum field; empty for other fields."""
    schema: Any = SCHEMAS[kind]
    for part in path.split("."):
        schema = schema["properties"][part.removesuffix("[]")]
        schema = schema["items"] if part.endswith("[]") else schema
    return list(schema.get("enum", ()))


def test_the_hint_of_a_conflict_proposes_only_what_is_available() -> None:
    proposed = {name for choice in conflicts() for name in re.findall(r"use tuner (\w+)", choice.refusal().hint)}
    assert proposed <= set(available("tuner"))


@pytest.mark.parametrize("fix", FOLLOWED.values(), ids=FOLLOWED)
def test_a_spec_that_follows_a_hint_is_accepted(fix: Fix) -> None:
    for after in fix.after:
        spec = TYPES[fix.kind].model_validate(after).to_dict()
        assert refusals(fix.kind, spec) == []


def test_every_hint_that_names_a_field_has_a_case() -> None:
    """Except hints that name only spec.pod or spec.storage."""
    naming = {
        (class_, kind)
        for kind, class_, hint in class_hints()
        if any(not path.startswith(("spec.pod", "spec.storage")) for path in fields_in(hint))
        and kind in FAILURES[class_].hints
    }
    followed = {(fix.class_, fix.kind) for fix in FOLLOWED.values()}
    assert naming - followed == set()


@pytest.mark.parametrize("kind", [EVAL, SERVE])
def test_the_hint_of_the_chosen_engine_proposes_more_devices(kind: str) -> None:
    hint = FAILURES[FailureClass.DEVICE_OUT_OF_MEMORY].hint_for(kind)
    assert "double spec.resources.count unless status.engine is transformers" in hint  # spec.engine may be auto
