"""The generated files and their texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tunesmith_api.crdgen.chart import crd_template, values_page, values_yaml
from tunesmith_api.crdgen.crd import KINDS, crd
from tunesmith_api.crdgen.reference import compatibility_page, failures_page, kind_page

HEADER = "# Generated from crds/tunesmith_api by `python -m tunesmith_api.crdgen`: change the types, not this file.\n"


class _PlainDumper(yaml.SafeDumper):
    """YAML without anchors, as kubectl writes it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(value: Any) -> str:
    """Return `value` as YAML, in its own order."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, width=120, allow_unicode=True)


def generated_files(root: Path) -> dict[Path, str]:
    """Return path and text of each generated file of the project in `root`."""
    reference, chart = root / "docs" / "reference", root / "charts" / "tunesmith"
    values = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    crds = {kind.plural: HEADER + to_yaml(crd(kind)) for kind in KINDS}
    return {
        **{root / "crds" / f"{plural}.yaml": text for plural, text in crds.items()},
        **{chart / "templates" / "crds" / f"{plural}.yaml": crd_template(text) for plural, text in crds.items()},
        chart / "values.yaml": values_yaml(values),
        **{reference / f"{kind.name.lower()}.md": kind_page(kind) for kind in KINDS},
        reference / "chart-values.md": values_page(values),
        reference / "failures.md": failures_page(),
        reference / "compatibility.md": compatibility_page(),
    }
