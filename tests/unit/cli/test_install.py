"""The command `tunesmith`, installed from the repository into environments that have nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster.paths import cache_paths
from tests.unit.cli.commands.test_estimate import ROWS, WORDS, manifest, put, write
from tunesmith_api.release import VERSION

ROOT = Path(__file__).resolve().parents[3]
UV = cache_paths().cache / "tools" / "bin" / "uv"


def install(environment: Path, package: str) -> None:
    """Install what `package` names, such as .[rows], with the versions of the lock."""
    command = [UV, "pip", "install", "--quiet", f"--python={environment}", "--constraint=locks/dev.txt", package]
    subprocess.run(command, cwd=ROOT, check=True)


@pytest.mark.deep
def test_a_bare_environment_has_the_command_and_its_messages_lead_to_the_rest(tmp_path: Path) -> None:
    environment = tmp_path / "bare"
    subprocess.run([UV, "venv", "--quiet", f"--python={sys.executable}", environment], check=True)
    install(environment, ".")
    job = write(tmp_path, manifest("words", put(tmp_path / "m", WORDS), put(tmp_path / "data", {"train.jsonl": ROWS})))

    def tunesmith(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [environment / "bin" / "tunesmith", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert tunesmith("version").stdout == f"{VERSION}\n"
    assert "use:         model: {name: qwen3-8b}" in tunesmith("models", "show", "qwen3-8b").stdout
    assert "alpaca-zh" in tunesmith("datasets", "alpaca").stdout
    assert "spec.resources.memory" in tunesmith("explain", "OOMKilled").stdout
    unread = tunesmith("check", "-f", str(job))
    assert "is not installed: in a clone of the repository, run uv tool install '.[rows]'" in unread.stdout

    install(environment, ".[rows]")
    checked = tunesmith("check", "-f", str(job), "-o", "json")
    assert [each["kept"] for each in json.loads(checked.stdout)[0]["datasets"]] == [200]
    estimated = tunesmith("estimate", "-f", str(job), "-o", "json")
    assert json.loads(estimated.stdout)[0]["estimate"]["rows"] == 200
    installed = {path.name.partition("-")[0] for path in environment.glob("lib/*/site-packages/*.dist-info")}
    assert installed & {"torch", "transformers", "datasets", "kopf", "kubernetes"} == set()
