"""Every generated file and its text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tunesmith_api.crdgen.crd import KINDS, crd
from tunesmith_api.crdgen.reference import compatibility_page, failures_page, kind_page

HEADER = "# Generated from crds/tunesmith_api by `python -m tunesmith_api.crdgen`: change the types, not this file.\n"


class _PlainDumper(yaml.SafeDumper):
    """YAML without anchors, which the API's own tools do not write either."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(value: Any) -> str:
    """`value` as YAML in its own order."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, width=120, allow_unicode=True)


def generated_files(root: Path) -> dict[Path, str]:
    """Path and text of each generated file of the project in `root`."""
    reference = root / "docs" / "reference"
    return {
        **{root / "crds" / f"{kind.plural}.yaml": HEADER + to_yaml(crd(kind)) for kind in KINDS},
        **{reference / f"{kind.name.lower()}.md": kind_page(kind) for kind in KINDS},
        reference / "failures.md": failures_page(),
        reference / "compatibility.md": compatibility_page(),
    }
