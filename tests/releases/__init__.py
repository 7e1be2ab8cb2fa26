"""Earlier releases, packed, for the tests of upgrades: the chart as `helm package` makes it, the operator as a zip that
Python imports from. `python -m tests.releases REVISION` packs one, by the version that its chart names.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from devcluster.paths import cache_paths

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent
CHART = "charts/tunesmith"
PAGE = "docs/chart.md"
CODE = ("crds/tunesmith_api", "operator/tunesmith_operator")


@dataclass(frozen=True)
class Release:
    """The files of one release."""

    chart: Path
    operator: Path
    """Goes into PYTHONPATH."""
    admin: Path
    """The ClusterRole without which an admin of a namespace could not install it, by its docs/chart.md."""


def release(version: str) -> Release:
    """The release of that version."""
    folder = FOLDER / version
    return Release(
        folder / f"tunesmith-{version}.tgz",
        folder / f"tunesmith-operator-{version}.zip",
        folder / "tunesmith-admin.yaml",
    )


def pack(revision: str) -> Release:
    """Pack what `revision` of the project's git holds."""
    archive = subprocess.run(
        ["git", "archive", revision, CHART, PAGE, *CODE], cwd=ROOT, capture_output=True, check=True
    )
    with TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
        helm = [cache_paths().program("helm"), "package", f"{folder}/{CHART}", "--destination"]
        made = subprocess.run([*helm, folder], capture_output=True, text=True, check=True).stdout
        chart = Path(made.rpartition(": ")[2].strip())
        packed = release(chart.stem.rpartition("-")[2])
        packed.chart.parent.mkdir(exist_ok=True)
        packed.chart.write_bytes(chart.read_bytes())
        packed.admin.write_text(Path(folder, PAGE).read_text().partition("```yaml\n")[2].partition("```")[0])
        with zipfile.ZipFile(packed.operator, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
            for package in CODE:
                for module in sorted(Path(folder, package).rglob("*.py")):
                    target.write(module, module.relative_to(Path(folder, package).parent))
    return packed
