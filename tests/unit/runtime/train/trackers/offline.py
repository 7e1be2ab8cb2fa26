"""Reads what the clients of W&B and SwanLab write offline, in a process of its own.

`python -m tests.unit.runtime.train.trackers.offline TRACKER FOLDER` prints the attempts as JSON.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STEP = "train/global_step"
HEADER, BLOCK, FULL, LAST = 7, 32768, 1, 4


@dataclass
class Attempt:
    """An attempt at a run, as a client has recorded it."""

    id: str = ""
    name: str = ""
    project: str = ""
    team: str = ""
    config: dict[str, str] = field(default_factory=dict)
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Steps and values in the order in which they were logged."""
    state: str = "running"

    def steps(self, metric: str) -> dict[int, float]:
        """Step -> value of a metric."""
        return {step: values[metric] for step, values in self.points if metric in values}


def attempts(tracker: str, folder: Path) -> list[Attempt]:
    """The attempts below a folder, the earliest first."""
    command = [sys.executable, "-m", __name__, tracker, str(folder)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return [Attempt(**each) for each in found]


def wandb_attempts(folder: Path) -> Iterator[Attempt]:
    """Attempts by the records of `run-ID.wandb`."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        attempt = Attempt()
        for data in log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            add_wandb(attempt, record)
        yield attempt


def log_records(content: bytes) -> Iterator[bytes]:
    """Records of a log file in the format of LevelDB (https://github.com/google/leveldb/blob/main/doc/log_format.md), after the
    header of W&B. Its client for Python has no reader of its own."""
    at, parts = HEADER, b""
    while at + HEADER <= len(content):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


def add_wandb(attempt: Attempt, record: Any) -> None:
    """Add a record of W&B to an attempt, by the client's own messages."""
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run = record.run
        attempt.id, attempt.name, attempt.project, attempt.team = run.run_id, run.display_name, run.project, run.entity
        attempt.config |= {item.key: json.loads(item.value_json) for item in run.config.update}
    elif kind == "history":
        names = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        step = names.pop(STEP)
        attempt.points.append((step, {name: value for name, value in names.items() if not name.startswith("_")}))
    elif kind == "preempting":
        attempt.state = "preempting"
    elif kind == "exit":
        ended = "finished" if record.exit.exit_code == 0 else "failed"
        attempt.state = "preempted" if attempt.state == "preempting" else ended


def swanlab_attempts(folder: Path) -> Iterator[Attempt]:
    """Attempts by the records of `run-TIME-ID`."""
    import yaml
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.proto.swanlab.run.v1.run_pb2 import RunState
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    for path in sorted(folder.glob("run-*/*.swanlab")):
        store, attempt = DataStoreReader(), Attempt()
        store.open(path)
        for data in store:
            record = Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "start":
                run = record.start
                attempt.id, attempt.name, attempt.project, attempt.team = run.id, run.name, run.project, run.workspace
            elif kind == "scalar":
                attempt.points.append((record.scalar.step, {record.scalar.key: record.scalar.value.number}))
            elif kind == "finish":
                attempt.state = RunState.Name(record.finish.state).removeprefix("RUN_STATE_").lower()
        config = yaml.safe_load((path.parent / "files/config.yaml").read_text())
        attempt.config = {name: each["value"] for name, each in config.items()}
        yield attempt


READERS = {"wandb": wandb_attempts, "swanlab": swanlab_attempts}


if __name__ == "__main__":
    print(json.dumps([asdict(each) for each in READERS[sys.argv[1]](Path(sys.argv[2]))]))
