"""The reference pages, as Markdown: the kinds' fields, the failure classes, what this version can do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tunesmith_api import API_VERSION
from tunesmith_api.compatibility import CONFLICTS, LIMITS, Limit
from tunesmith_api.crdgen.crd import Kind, root_schema
from tunesmith_api.crdgen.rules import is_optional
from tunesmith_api.crdgen.structural import Schema
from tunesmith_api.failures import BY_EXIT_CODE, FAILURES

NOTE = (
    "<!-- Generated from crds/tunesmith_api by `python -m tunesmith_api.crdgen`: change the types, not this page. -->\n"
)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def kind_page(kind: Kind) -> str:
    """All fields of a kind, one table per object."""
    root = root_schema(kind)
    columns = table(
        ("column", "shows"),
        [(f"{column.name}{' (wide)' if column.priority else ''}", column.description) for column in kind.columns],
    )
    head = (
        f"{NOTE}# {kind.name}\n\n{root['description']}\n\n"
        f"`apiVersion: {API_VERSION}`, `kind: {kind.name}`; `kubectl get {kind.short_name}`:\n\n{columns}"
    )
    objects = [section for name in ("spec", "status") for section in _sections(name, root["properties"][name])]
    return "\n".join([head, _rules(root), *objects]).replace("\n\n\n", "\n\n")


def _sections(path: str, schema: Schema) -> Iterator[str]:
    """The table of an object and those of the objects below it."""
    rows = [
        (f"`{name}`", type_words(below), default_words(schema, name), below["description"])
        for name, below in schema["properties"].items()
    ]
    header = ("field", "type", "default", "description")
    yield f"\n## {path}\n\n{schema.get('description', '')}\n\n{table(header, rows)}\n{_rules(schema)}"
    for name, below in schema["properties"].items():
        inner, mark = (below["items"], "[]") if below.get("type") == "array" else (below, "")
        if len(inner.get("properties", ())) > 1:
            yield from _sections(f"{path}.{name}{mark}", {**inner, "description": below["description"]})


def type_words(schema: Schema) -> str:
    """The type of a field, with its bounds."""
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
    """The default of a field: a value, `required`, or nothing where absent means something of its own."""
    if field in schema.get("required", ()):
        return "**required**"
    below = schema["properties"][field]
    if is_optional(schema, field) or below.get("type") == "object":
        return ""
    return f"`{json.dumps(below['default'])}`"


def _rules(schema: Schema) -> str:
    """The sentences with which the API server refuses what the types cannot say."""
    messages = [
        rule["message"]
        for rule in schema.get("x-kubernetes-validations", ())
        if "oldSelf" not in rule["rule"] and "not available in this version" not in rule["message"]
    ]
    immutable = [
        f"`{rule['message'].split()[0]}`"
        for rule in schema.get("x-kubernetes-validations", ())
        if "oldSelf" in rule["rule"]
    ]
    lines = [f"- {message}\n" for message in messages]
    if immutable:
        lines.append(f"- cannot be changed after creation: {', '.join(immutable)}\n")
    return "Rules:\n\n" + "".join(lines) if lines else ""


def failures_page() -> str:
    """The classes of `status.lastFailure`, and the exit codes, which are a contract."""
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
        "`status.lastFailure` says why something failed: `class` is one of these, `message` says what happened and where, "
        "`hint` what to do about it (often better than the one below, as it knows the case), and `pod`, `container`, "
        "`exitCode` and `logTail` where it was. A hint for a job whose fixed fields it names adds that the job must be created again, and one "
        "that names what `podPolicy` in the chart's values restricts adds that too. Retry says what the operator does: `Waits` ends no "
        "attempt, as the pod starts by itself when the trouble is over; `Never` gives the job up; `Counted` tries again "
        "`spec.retries` times; `Always` goes on without counting. `python -m tunesmith_operator.cli explain CLASS` in the operator's image prints a row.\n\n"
        + table(("class", "what happened", "exit code", "retry", "what to do"), rows)
        + "\n## Exit codes\n\n"
        "The exit codes of the runtime's containers are a contract: a code keeps its meaning in all later versions, and new "
        "causes get new codes. 0 is success; a code above 128 that is not in the table is 128 and the number of the signal "
        "that ended the process (143: it was asked to stop). An image of your own may use them: a container that ends with "
        "one is told of by its class, and one that writes a report into its termination message "
        "(`tunesmith_api.run.RunReport`) by its own words.\n\n" + table(("exit code", "class", "what happened"), codes)
    )


def compatibility_page() -> str:
    """What this version can do of what the schema has room for."""
    limits = [
        (
            row.kind,
            f"`{row.field}`",
            _can(row),
            row.advice,
            "apply" if row.at_apply else "condition",
        )
        for row in LIMITS
    ]
    conflicts = [(row.sentence,) for row in CONFLICTS]
    return (
        f"{NOTE}# What goes with what\n\n"
        "The schema has room for more than this version can do. What it cannot do is refused with a sentence: at apply by "
        "the API server, or by the operator with the condition Stalled and the failure class BadSpec.\n\n"
        + table(("kind", "field", "this version", "instead", "refused by"), limits)
        + "\nWhat cannot go together:\n\n"
        + table(("refusal",), conflicts)
    )


def _can(row: Limit) -> str:
    if row.refused_schemes:
        return "not " + ", ".join(f"`{scheme}://`" for scheme in row.refused_schemes)
    return ", ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in row.allowed) or "must be absent"
