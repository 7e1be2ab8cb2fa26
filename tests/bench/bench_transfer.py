"""Speed and memory of transfers beside s5cmd, on one S3 server: `python -m tests.bench transfer`.

2 GB in 4 files, as a model's shards. Each round uploads and downloads once with every contestant, in alternating order, each in a
process of its own. Disk and page cache are those of this machine: what a contestant reads was just written (warm), and
what was written before is flushed to the disk first. Ours hashes every byte, in both directions, and checks a download
against its manifest; the time of s5cmd includes its start (about 20 ms), ours begins after the imports.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from tests.s3 import REGION, S3Server, run_server

FILES = 4
FILE_BYTES = 500_000_000
ROUNDS = 5
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Measured:
    """One transfer: its duration, and the peak memory of its process."""

    seconds: float
    rss_bytes: int


@dataclass(frozen=True)
class Race:
    """What a transfer needs: the server with its bucket, a folder of the same files, and a folder for downloads."""

    server: S3Server
    bucket: str
    source: Path
    target: Path

    @property
    def environment(self) -> dict[str, str]:
        """Credentials of the server for a process."""
        return {**os.environ, **self.server.environment, "AWS_REGION": REGION}

    def fresh_target(self) -> Path:
        """An empty folder for a download."""
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir()
        return self.target


def s5cmd(race: Race, direction: str) -> Measured:
    """Transfer with s5cmd and its defaults."""
    remote = f"s3://{race.bucket}/s5cmd/"
    paths = {"upload": [f"{race.source}/*", remote], "download": [f"{remote}*", f"{race.target}/"]}
    program = distribution("s5cmd").locate_file("s5cmd/bin/s5cmd")
    command = [str(program), "--log=error", f"--endpoint-url={race.server.endpoint}", "cp", *paths[direction]]
    start = time.monotonic()
    process = subprocess.Popen(command, env=race.environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Measured(time.monotonic() - start, usage.ru_maxrss * 1024)


def tunesmith(race: Race, direction: str) -> Measured:
    """Transfer as a pod does: publish a folder under the digest of its content, or download and verify it."""
    folder = race.source if direction == "upload" else race.target
    store = race.server.store(race.bucket, "tunesmith").to_dict()
    command = [sys.executable, "-m", "tests.bench.transfer_process", direction, json.dumps(store), str(folder)]
    output = subprocess.run(command, env=race.environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Measured(**json.loads(output))


CONTESTANTS: dict[str, Callable[[Race, str], Measured]] = {"tunesmith": tunesmith, "s5cmd": s5cmd}


@contextmanager
def prepared() -> Iterator[Race]:
    """Run a server beside a folder of random files, below the folder for temporary files."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as folder:
        root = Path(folder)
        source = root / "source"
        source.mkdir()
        for number in range(FILES):
            with (source / f"model-{number + 1:05d}-of-{FILES:05d}.safetensors").open("wb") as file:
                for _ in range(FILE_BYTES // MEGABYTE):
                    file.write(os.urandom(MEGABYTE))
        for server in run_server(root):
            yield Race(server, server.new_bucket(), source, root / "target")


def measure(rounds: int) -> Iterator[tuple[str, str, Measured]]:
    """Yield contestant, direction and result of each transfer."""
    with prepared() as race:
        for number in range(rounds):
            order = list(CONTESTANTS) if number % 2 == 0 else list(reversed(CONTESTANTS))
            for direction in ("upload", "download"):
                for name in order:
                    if direction == "upload":
                        shutil.rmtree(race.server.root / race.bucket / name, ignore_errors=True)
                    else:
                        race.fresh_target()
                    os.sync()
                    yield name, direction, CONTESTANTS[name](race, direction)


def rows(results: Iterable[tuple[str, str, Measured]]) -> Iterator[tuple[str, str]]:
    """Return the lines of the table: medians and ranges, the ratio of each round, and the highest peak of memory."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for name, direction, result in results:
        found.setdefault((direction, name), []).append(result)
    size = FILES * FILE_BYTES / MEGABYTE
    for direction in ("upload", "download"):
        for name in CONTESTANTS:
            measured = found[direction, name]
            speeds = [size / each.seconds for each in measured]
            peak = max(each.rss_bytes for each in measured) / MEGABYTE
            yield (
                f"{direction} of {size / 1000:.0f} GB in {FILES} files, {name}",
                f"{statistics.median(speeds):.0f} MB/s ({min(speeds):.0f}-{max(speeds):.0f}), peak {peak:.0f} MB",
            )
        pairs = zip(found[direction, "tunesmith"], found[direction, "s5cmd"], strict=True)
        ratios = [theirs.seconds / ours.seconds for ours, theirs in pairs]
        yield (
            f"{direction}: tunesmith's rate over s5cmd's, of {len(ratios)} rounds",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        )


def main(rounds: int = ROUNDS) -> None:
    """Print the table."""
    for name, value in rows(measure(rounds)):
        print(f"{name:<62}{value:>42}", flush=True)
    print(
        f"load of the machine afterwards: {', '.join(f'{load:.1f}' for load in os.getloadavg())} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
