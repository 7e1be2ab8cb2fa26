"""`make audit` with a script in place of pip-audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster.errors import ClusterError
from tools.audit import LOCKS, main

CLEAN: dict[str, Any] = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
FLAW = {"id": "PYSEC-2026-7", "aliases": ["CVE-2026-1"], "fix_versions": ["3.14.6"], "description": "..."}
PipAudit = Callable[..., str]


@pytest.fixture
def pip_audit(tmp_path: Path) -> PipAudit:
    """Makes a program that prints this report, whatever its arguments."""

    def make(*packages: dict[str, Any], error: str = "", code: int = 0) -> str:
        report = json.dumps({"dependencies": packages, "fixes": []}) if packages else ""
        (tmp_path / "report").write_text(report)
        (tmp_path / "error").write_text(error)
        program = tmp_path / "uv"
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/report\ncat {tmp_path}/error >&2\nexit {code}\n")
        program.chmod(0o755)
        return str(program)

    return make


def test_a_known_vulnerability_is_an_error_that_names_lock_package_and_fix(
    pip_audit: PipAudit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pip_audit({**CLEAN, "vulns": [FLAW]}, code=1), LOCKS[:1]) == 1
    assert capsys.readouterr().out == "operator.txt: aiohttp 3.14.5: PYSEC-2026-7, CVE-2026-1, fixed in 3.14.6\n"


def test_the_audit_passes_only_if_every_lock_was_checked(
    pip_audit: PipAudit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pip_audit(CLEAN)) == 0
    assert (
        "no known vulnerability in operator.txt, runtime.txt, lmdeploy.txt, vllm.txt, ascend.txt, dev.txt"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "error", ["Traceback\nProxyError: no route to the index", "ERROR: aiohttp (3.14.5): not found on PyPI", ""]
)
def test_an_unreachable_database_is_an_error_with_its_cause(pip_audit: PipAudit, error: str) -> None:
    with pytest.raises(ClusterError, match=r"operator.txt could not be checked .*PyPI's advisory database") as raised:
        main(pip_audit(error=error, code=1))
    assert (error.splitlines() or ["pip-audit printed nothing"])[-1] in str(raised.value)


def test_every_lock_is_checked() -> None:
    assert {*LOCKS} == {*LOCKS[0].parent.glob("*.txt")}
