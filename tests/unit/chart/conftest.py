"""helm, and the rendered chart."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster.paths import cache_paths
from tests.manifests import load_all

CHART = Path(__file__).resolve().parents[3] / "charts" / "tunesmith"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
Manifest = dict[str, Any]
Helm = Callable[..., subprocess.CompletedProcess[str]]
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Runs helm, which is built if necessary, with values on its standard input."""
    program = Path(cache_paths().program("helm"))
    if not program.exists():
        subprocess.run([sys.executable, "-m", "devcluster", "tools", "helm"], check=True)

    def run(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(program), *arguments, "--values=-"]
        return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """The chart's manifests under some values, as release `tunesmith` in the namespace `tunesmith-system`."""

    @functools.cache
    def rendered_as(values: str) -> str:
        done = helm("template", "tunesmith", str(CHART), "--namespace=tunesmith-system", values=json.loads(values))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rendered(**values: Any) -> list[Manifest]:
        return load_all(rendered_as(json.dumps(values)))

    return rendered
