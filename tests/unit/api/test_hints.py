"""A hint leads out: the fields that it names are there, and a spec that follows it is one that this version can do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hints import FOLLOWED, Fix, fields_in
from tunesmith_api.compatibility import CONFLICTS, LIMITS, refusals
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
"""Fields that one kind has and another has not: a hint for that other must not name them."""
OF_JOBS = frozenset({FailureClass.DEADLINE_EXCEEDED})
"""Classes that a service never meets."""


def has_field(kind: str, path: str) -> bool:
    """Whether `path`, such as spec.datasets[].uri, is in the schema of a kind."""
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
def test_a_hint_says_spec_before_a_field(kind: str, class_: FailureClass, hint: str) -> None:
    """So that it can be told from a value of the chart, and be looked up by kubectl explain."""
    bare = re.findall(r"(?<![\w.])(?:training|resources|storage|export|parallelism|rollout|pod)\.\w+", hint)
    assert bare == []


@pytest.mark.parametrize("field", ONLY)
def test_the_table_of_fields_of_one_kind_is_right(field: str) -> None:
    assert {kind for kind in SCHEMAS if has_field(kind, f"spec.{field}")} == ONLY[field]


@EACH_HINT
def test_a_kind_does_not_hear_of_another_kinds_fields(kind: str, class_: FailureClass, hint: str) -> None:
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
    "runtime/tunesmith_runtime/storage": (TUNE, EVAL, SERVE),
}
"""Folder -> the kinds that hear its messages: of the runtime all of them, of the operator one at least."""
OF_OTHERS = frozenset({"spec.active"})
"""Fields of kinds that are not ours (Kueue's Workload)."""


def texts(folder: str) -> Iterator[str]:
    """The strings of a package, docstrings aside."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        apart = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in apart:
                yield node.value


@pytest.mark.parametrize("folder", SPEAKS_TO)
def test_messages_name_fields_that_are_there(folder: str) -> None:
    fields = {path for text in texts(folder) for path in fields_in(text)} - OF_OTHERS
    everybody = folder.startswith("runtime")
    there = all if everybody else any
    assert {path for path in fields if not there(has_field(kind, path) for kind in SPEAKS_TO[folder])} == set()


@pytest.mark.parametrize("folder", SPEAKS_TO)
def test_advice_says_spec_before_a_field(folder: str) -> None:
    """The operator tells by it that a job must be created anew for the change."""
    fields = "|".join(sorted({field for schema in SCHEMAS.values() for field in schema["properties"]}))
    advice = re.compile(rf"\b(?:set|raise|lower|halve|double|remove|write) (?:the block \w+|(?:{fields})(?:\.\w|: ))")
    # The API server shows what pydantic says below the name of the field.
    assert [text for text in texts(folder) if advice.search(text)] == []


def test_hints_about_signals_name_fields_of_all_kinds() -> None:
    fields = {path for _, hint in SIGNALS.values() for path in fields_in(hint)}
    assert all(has_field(kind, path) for kind in SCHEMAS for path in fields)


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: f"{row.kind} {row.field}")
def test_the_advice_of_a_limit_proposes_no_value_that_another_row_refuses(row: Any) -> None:
    proposed = {word.strip(",") for word in re.split(r"[ :]", row.advice)}
    refused = {value for value in enum_at(row.kind, row.field) if not row.allows(value)}
    assert proposed & {str(value) for value in refused} == set()


def enum_at(kind: str, path: str) -> list[Any]:
    """The values that the schema has for a field; none where it has any."""
    schema: Any = SCHEMAS[kind]
    for part in path.split("."):
        schema = schema["properties"][part.removesuffix("[]")]
        schema = schema["items"] if part.endswith("[]") else schema
    return list(schema.get("enum", ()))


def test_the_sentence_of_a_conflict_proposes_only_what_is_available() -> None:
    tuners = {value for row in LIMITS if row.field == "tuner" for value in row.allowed}
    assert all(set(re.findall(r"use tuner (\w+)", row.sentence)) <= tuners for row in CONFLICTS)


@pytest.mark.parametrize("fix", FOLLOWED.values(), ids=FOLLOWED)
def test_a_spec_that_follows_a_hint_is_one_that_this_version_can_do(fix: Fix) -> None:
    for after in fix.after:
        spec = TYPES[fix.kind].model_validate(after).to_dict()
        assert refusals(fix.kind, spec) == []


def test_every_hint_that_names_a_field_of_the_spec_is_followed() -> None:
    """But for those that only say where to look."""
    naming = {
        (class_, kind)
        for kind, class_, hint in class_hints()
        if any(not path.startswith(("spec.pod", "spec.storage")) for path in fields_in(hint))
        and kind in FAILURES[class_].hints
    }
    followed = {(fix.class_, fix.kind) for fix in FOLLOWED.values()}
    assert naming - followed == set()


@pytest.mark.parametrize("kind", [EVAL, SERVE])
def test_more_devices_are_proposed_by_the_engine_that_was_chosen(kind: str) -> None:
    hint = FAILURES[FailureClass.DEVICE_OUT_OF_MEMORY].hint_for(kind)
    assert "double spec.resources.count unless status.engine is transformers" in hint  # spec.engine may be auto
