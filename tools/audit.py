"""`make audit`: what we pin, held against the database of known vulnerabilities, by pip-audit.

A database that does not answer is an error and no good news. So is a version that it does not know.
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

LOCKS = tuple(ROOT / "locks" / f"{name}.txt" for name in ("operator", "runtime", "lmdeploy", "dev"))
"""Of both images, of the engine that can be added to one, and of development."""
PROGRAM = ("tool", "run", "--from", "pip-audit==2.10.0", "pip-audit")
OPTIONS = ("--strict", "--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json")


def main(uv: str, locks: Sequence[Path] = LOCKS) -> int:
    """Print what is known against each lock; 1 where there is something."""
    known = [f"{lock.name}: {line}" for lock in locks for line in findings(answer(uv, lock))]
    print("\n".join(known) or f"nothing is known against what {', '.join(lock.name for lock in locks)} pin")
    return 1 if known else 0


def answer(uv: str, lock: Path) -> Any:
    """What pip-audit says of a lock."""
    done = subprocess.run([uv, *PROGRAM, *OPTIONS, "-r", str(lock)], capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        said = (done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1]
        raise ClusterError(
            f"nothing can be said of {lock.name}: pip-audit and PyPI's advisory database, which this needs, "
            f"could not be had in full: {said}"
        ) from error


def findings(told: Any) -> Iterator[str]:
    """A line for each known vulnerability."""
    for package in told["dependencies"]:
        for one in package["vulns"]:
            names = ", ".join((one["id"], *one["aliases"]))
            mended = " or ".join(one["fix_versions"]) or "no version yet"
            yield f"{package['name']} {package['version']}: {names}; mended in {mended}"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except ClusterError as error:
        sys.exit(f"audit: {error}")
