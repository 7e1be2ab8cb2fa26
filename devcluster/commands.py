"""Run commands to their end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster.errors import ClusterError

TAIL_LINES = 12


def run(
    argv: Sequence[str],
    *,
    fix: str = "",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> str:
    """Run a command and return its standard output. Raises ClusterError with the end of its output, and the fix."""
    try:
        result = subprocess.run(
            argv,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise ClusterError(f"{argv[0]} does not exist{'; ' + fix if fix else ''}") from None
    if result.returncode:
        tail = (result.stderr.strip() or result.stdout.strip()).splitlines()[-TAIL_LINES:]
        command = " ".join(argv[:4]) + (" ..." if len(argv) > 4 else "")
        raise ClusterError("\n  ".join([f"`{command}` failed{'; ' + fix if fix else ''}:", *tail]))
    return result.stdout


def succeeds(argv: Sequence[str]) -> bool:
    """Whether the command exists and exits with 0."""
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
