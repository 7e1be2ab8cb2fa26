"""`make audit`: check the locks against the database of known vulnerabilities, with pip-audit.

A database that does not answer, or does not know a version, is an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from devcluster.errors import ClusterError
from devcluster.images import ROOT

LOCKS = tuple(ROOT / "locks" / f"{name}.txt" for name in ("operator", "runtime", "lmdeploy", "vllm", "ascend", "dev"))
"""The locks of both images, of the engines that can be added to the runtime, of the runtime for Ascend, and of development."""
PROGRAM = ("tool", "run", "--from", "pip-audit==2.10.0", "pip-audit")
OPTIONS = ("--strict", "--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json")


def main(uv: str, locks: Sequence[Path] = LOCKS) -> int:
    """Print the known vulnerabilities of each lock. Return 1 if there are any."""
    known = [f"{lock.name}: {line}" for lock in locks for line in vulnerabilities(audit(uv, lock))]
    print("\n".join(known) or f"no known vulnerability in {', '.join(lock.name for lock in locks)}")
    return 1 if known else 0


def audit(uv: str, lock: Path) -> Any:
    """The report of pip-audit about a lock. Raises ClusterError if it is incomplete."""
    done = subprocess.run([uv, *PROGRAM, *OPTIONS, "-r", str(lock)], capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        cause = (done.stderr.strip().splitlines() or ["pip-audit printed nothing"])[-1]
        raise ClusterError(
            f"{lock.name} could not be checked with pip-audit and PyPI's advisory database: {cause}"
        ) from error


def vulnerabilities(report: Any) -> Iterator[str]:
    """A line for each known vulnerability."""
    for package in report["dependencies"]:
        for vulnerability in package["vulns"]:
            names = ", ".join((vulnerability["id"], *vulnerability["aliases"]))
            fixed = " or ".join(vulnerability["fix_versions"]) or "no version yet"
            yield f"{package['name']} {package['version']}: {names}, fixed in {fixed}"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except ClusterError as error:
        sys.exit(f"audit: {error}")
