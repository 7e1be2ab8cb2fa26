"""The chart's generated files: the CRDs as templates, values.yaml and the table of values, both from values.schema.json."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from tunesmith_api.crdgen.reference import table

Schema = dict[str, Any]

HEADER = """\
# Generated from values.schema.json by `python -m tunesmith_api.crdgen`: change the descriptions and defaults there.
"""
PAGE_NOTE = """\
<!-- Generated from charts/tunesmith/values.schema.json by `python -m tunesmith_api.crdgen`: change the schema, not this page. -->
"""
METADATA = """\
  labels:
    {{- include "tunesmith.labels" . | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""


def crd_template(crd_yaml: str) -> str:
    """Return a CRD as a template that depends on the values `crds.enabled` and `crds.keep`."""
    if "{{" in crd_yaml:
        raise ValueError("Helm reads {{ in a CRD as a template: reword the description")
    head, separator, rest = crd_yaml.partition("\nspec:\n")
    return f"{{{{- if .Values.crds.enabled }}}}\n{head}\n{METADATA}{separator.lstrip()}{rest}{{{{- end }}}}\n"


def values_yaml(schema: Schema) -> str:
    """Return the default values with their descriptions as comments."""
    return HEADER + "".join(_values(schema, ""))


def _values(schema: Schema, indent: str) -> Iterator[str]:
    for name, below in schema["properties"].items():
        if "properties" not in below and "default" not in below:
            continue
        if not indent:
            yield "\n"
        yield (
            textwrap.fill(below["description"], 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
            + "\n"
        )
        if "properties" in below:
            yield f"{indent}{name}:\n"
            yield from _values(below, indent + "  ")
        else:
            yield f"{indent}{name}: {json.dumps(below['default'])}\n"


def values_page(schema: Schema) -> str:
    """Return the table of all values with their defaults."""
    rows = [
        (f"`{path}`", _type(below), f"`{json.dumps(below['default'])}`", below["description"])
        for path, below in _leaves(schema, "")
    ]
    return f"{PAGE_NOTE}# Values of the chart\n\n[The chart](../chart.md) shows how to use them.\n\n" + table(
        ("value", "type", "default", "description"), rows
    )


def _leaves(schema: Schema, prefix: str) -> Iterator[tuple[str, Schema]]:
    for name, below in schema["properties"].items():
        if "properties" in below:
            yield from _leaves(below, f"{prefix}{name}.")
        elif "default" in below:
            yield f"{prefix}{name}", below


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {schema['items']['type']}"
    if schema["type"] == "object":
        return f"map of {schema['additionalProperties']['type']}"
    return schema["type"] if isinstance(schema["type"], str) else " or ".join(schema["type"])
