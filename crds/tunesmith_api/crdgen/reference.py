"""The reference pages in Markdown: fields of the kinds, failure classes, compatibility."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith_api import API_VERSION
from tunesmith_api.choices import NOT_AVAILABLE, Choice, Limit
from tunesmith_api.compatibility import LIMITS, available, conflicts, refusals
from tunesmith_api.crdgen.crd import Kind, root_schema
from tunesmith_api.crdgen.rules import is_optional, is_transition
from tunesmith_api.crdgen.structural import Schema
from tunesmith_api.engines import RUNS_ON
from tunesmith_api.failures import BY_EXIT_CODE, FAILURES
from tunesmith_api.kernels import FAST_PATHS
from tunesmith_api.pods import Accelerator

NOTE = (
    "<!-- Generated from crds/tunesmith_api by `python -m tunesmith_api.crdgen`: change the types, not this page. -->\n"
)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def kind_page(kind: Kind) -> str:
    """Return the page of a kind: a table for each object."""
    root = root_schema(kind)
    columns = table(
        ("column", "shows"),
        [(f"{column.name}{' (wide)' if column.priority else ''}", column.description) for column in kind.columns],
    )
    head = (
        f"{NOTE}# {kind.name}\n\n{root['description']}\n\n"
        f"`apiVersion: {API_VERSION}`, `kind: {kind.name}`; `kubectl get {kind.short_name}`:\n\n{columns}"
    )
    spec, status = (root["properties"][name] for name in ("spec", "status"))
    immutable = [
        f"`spec.{field}`" for field in spec["properties"] if kind.spec.mutable and field not in kind.spec.mutable
    ]
    objects = [*_sections("spec", spec, immutable), *_sections("status", status)]
    return "\n".join([head, _rules(root), *objects]).replace("\n\n\n", "\n\n")


def _sections(path: str, schema: Schema, immutable: Sequence[str] = ()) -> Iterator[str]:
    """Yield the tables of an object and of the objects below it."""
    rows = [
        (f"`{name}`", type_words(below), default_words(schema, name), below["description"])
        for name, below in schema["properties"].items()
    ]
    header = ("field", "type", "default", "description")
    yield f"\n## {path}\n\n{schema.get('description', '')}\n\n{table(header, rows)}\n{_rules(schema, immutable)}"
    for name, below in schema["properties"].items():
        inner, mark = (below["items"], "[]") if below.get("type") == "array" else (below, "")
        if len(inner.get("properties", ())) > 1:
            yield from _sections(f"{path}.{name}{mark}", {**inner, "description": below["description"]})


def type_words(schema: Schema) -> str:
    """Return the type of a field, with its bounds."""
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema["type"] == "array":
        return f"list of {type_words(schema['items'])}, at most {schema['maxItems']}"
    if "additionalProperties" in schema:
        return f"map of {type_words(schema['additionalProperties'])}"
    if schema.get("format") == "date-time":
        return "time"
    if len(schema.get("properties", ())) == 1:
        return "object with " + ", ".join(
            f"`{name}` ({below['description']})" for name, below in schema["properties"].items()
        )
    above = ">" if schema.get("exclusiveMinimum") else "≥"
    below = "<" if schema.get("exclusiveMaximum") else "≤"
    bounds = [f"{sign} {schema[key]:,}" for sign, key in ((above, "minimum"), (below, "maximum")) if key in schema]
    return ", ".join([str(schema["type"]), *bounds])


def default_words(schema: Schema, field: str) -> str:
    """Return the default of a field: a value, `required`, or nothing if the description explains absence."""
    if field in schema.get("required", ()):
        return "**required**"
    below = schema["properties"][field]
    if is_optional(schema, field) or below.get("type") == "object":
        return ""
    return f"`{json.dumps(below['default'])}`"


def _rules(schema: Schema, immutable: Sequence[str] = ()) -> str:
    """Return the rules that the types cannot express, by their messages, with the fields that are `immutable`.

    The page of what goes with what has those of its tables.
    """
    tabled = {"", *(str(choice.refusal()) for choice in conflicts())}
    messages = [
        rule.get("message", "")
        for rule in schema.get("x-kubernetes-validations", ())
        if not is_transition(rule) and NOT_AVAILABLE not in rule.get("message", "")
    ]
    lines = [f"- {message}\n" for message in messages if message not in tabled]
    if len(lines) < len(messages):
        lines.append("- values that do not go together: [what goes with what](compatibility.md)\n")
    if immutable:
        lines.append(f"- cannot be changed after creation: {', '.join(immutable)}\n")
    return "Rules:\n\n" + "".join(lines) if lines else ""


def failures_page() -> str:
    """Return the page of the failure classes and of the exit codes, which are a contract."""
    rows = [
        (
            f"`{name}`",
            row.meaning,
            "" if row.exit_code is None else str(row.exit_code),
            row.retry.value,
            "<br>".join((row.hint, *(f"{kind}: {hint}" for kind, hint in row.hints.items()))),
        )
        for name, row in FAILURES.items()
    ]
    codes = [(str(code), f"`{name}`", FAILURES[name].meaning) for code, name in sorted(BY_EXIT_CODE.items())]
    return (
        f"{NOTE}# Failure classes\n\n"
        "`status.lastFailure` describes a failure: `class` is one of the classes below, `message` is what happened and where, "
        "`hint` is what to do (often more specific than below), and `pod`, `container`, `exitCode` and `logTail` locate it. "
        "If a hint names fields of a job that cannot change, it adds that the job must be created again; if it names a field "
        "that `podPolicy` in the chart's values restricts, it adds that. Retry is what the operator does. `Waits`: the attempt "
        "continues, as the pod starts once the cause is gone. `Never`: the job fails. `Counted`: up to `spec.retries` further "
        "attempts. `Always`: a further attempt that is not counted. "
        "`python -m tunesmith_operator.cli explain CLASS` in the operator's image prints a row.\n\n"
        + table(("class", "what happened", "exit code", "retry", "what to do"), rows)
        + "\n## Exit codes\n\n"
        "The exit codes of the runtime's containers are a contract: a code keeps its meaning in all later versions, and new "
        "causes get new codes. 0 is success; a code above 128 that is not in the table is 128 plus the number of the signal "
        "that ended the process (143: SIGTERM). An image of your own may use them: `status.lastFailure` has the class of the "
        "exit code, or the content of the report (`tunesmith_api.run.RunReport`) in the container's termination message.\n\n"
        + table(("exit code", "class", "what happened"), codes)
    )


def compatibility_page() -> str:
    """Return the page on what goes with what."""
    limits = [
        (
            row.kind,
            f"`{row.field}`",
            _can(row),
            row.hint,
        )
        for row in LIMITS
    ]
    combinations = [(refusal.message, refusal.hint) for refusal in map(Choice.refusal, conflicts())]
    engines = [
        (f"`{engine}`", ", ".join(f"`{accelerator}`" for accelerator in Accelerator if accelerator in supported))
        for engine, supported in RUNS_ON.items()
    ]
    return (
        f"{NOTE}# What goes with what\n\n"
        "The schema names more than this version has. The API server refuses the rest at apply; what it cannot decide, the "
        "operator refuses with the condition Stalled and the failure class BadSpec. A run on your machine refuses it alike.\n\n"
        + table(("kind", "field", "this version", "instead"), limits)
        + "\nValues that cannot go together:\n\n"
        + table(("refusal", "instead"), combinations)
        + "\nMethods by tuner. ✓: it trains, and a run that is stopped resumes to the bit on a CPU, which `tests/unit/runtime/train/test_matrix.py` "
        "tests for each; -: refused.\n\n"
        + _matrix("method", "tuner")
        + "\nMethods by strategy, with several devices:\n\n"
        + _matrix("method", "parallelism.strategy")
        + "\nTuners by strategy:\n\n"
        + _matrix("tuner", "parallelism.strategy")
        + "\nOffloading by strategy:\n\n"
        + _matrix("parallelism.offload", "parallelism.strategy")
        + "\nMethods with `parallelism.tensorParallel`:\n\n"
        + _matrix("method", "parallelism.tensorParallel")
        + "\nMethods with `parallelism.pipelineParallel`:\n\n"
        + _matrix("method", "parallelism.pipelineParallel")
        + "\nMethods with `parallelism.contextParallel`:\n\n"
        + _matrix("method", "parallelism.contextParallel")
        + "\nFast paths of a training, by `training.kernels` and device ([what they are](../training.md#fast-paths)):\n\n"
        + _fast_paths()
        + "\nEngines, in the order in which `auto` prefers them:\n\n"
        + table(("engine", "accelerators"), engines)
    )


def _matrix(rows: str, columns: str) -> str:
    """Return a table of the available values of two choices, with a check mark for each pair that is admitted."""
    heads = [f"`{value}`" for value in available(columns)]
    body = [
        (
            f"`{row}`",
            *(
                "-" if refusals("FineTuneJob", _nested({rows: row, columns: column})) else "✓"
                for column in available(columns)
            ),
        )
        for row in available(rows)
    ]
    return table((rows, *heads), body)


def _fast_paths() -> str:
    """Return the table of the fast paths of each device."""
    heads = [f"`auto`, `{accelerator}`" for accelerator in Accelerator]
    rows = [(path.part, *(path.fast[accelerator] for accelerator in Accelerator), path.plain) for path in FAST_PATHS]
    return table(("part of a step", *heads, "`plain`"), rows)


def _nested(values: Mapping[str, str]) -> dict[str, Any]:
    """Return a spec with values at dotted paths."""
    spec: dict[str, Any] = {}
    for path, value in values.items():
        *parents, leaf = path.split(".")
        place = spec
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return spec


def _can(row: Limit) -> str:
    if row.refused_schemes:
        return "not " + ", ".join(f"`{scheme}://`" for scheme in row.refused_schemes)
    return ", ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in row.allowed) or "must be absent"
