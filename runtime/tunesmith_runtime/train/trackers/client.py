"""The main program of the process of a tracker's client: opens a run, and adds the points that it reads from standard input."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from tunesmith_api.tracking import TrackerName, Tracking
from tunesmith_runtime.credentials import redacted
from tunesmith_runtime.train.trackers import TRACKERS
from tunesmith_runtime.train.trackers.base import OpenClient, Point, RunState, TrackedRun, TrackerRefused

ERROR_CHARACTERS = 300


def answers(questions: TextIO, open_client: OpenClient, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the answer to each line, until the run is finished or cannot go on. The first line opens the run."""
    try:
        opening = json.loads(questions.readline())
        run = open_client(Tracking.model_validate(opening["tracking"]), TrackedRun(**opening["run"]), folder)
        yield {"page": run.page}
        for line in questions:
            content = json.loads(line)
            if state := content.get("state"):
                run.finish(RunState(state))
                yield {}
                return
            run.log([Point(**point) for point in content["points"]])
            yield {}
    except TrackerRefused as error:
        yield {"refused": shown(error)}
    except Exception as error:  # noqa: BLE001  # clients raise errors of any type
        yield {"failed": shown(error)}


def shown(error: Exception) -> str:
    """Return the first line of an error without credentials."""
    lines = redacted(str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:ERROR_CHARACTERS]


def private_output() -> TextIO:
    """Return standard output, reserved for the answers; the client's own output is discarded."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return output


def main(name: str) -> None:
    """Serve the run of a tracker. Exits at once at the end: clients wait for their server in hooks of the exit."""
    output, open_client = private_output(), TRACKERS[TrackerName(name)].open_client
    assert open_client
    with TemporaryDirectory(prefix=f"{name}-") as folder:
        os.chdir(folder)  # clients read settings from the current folder
        for answer in answers(sys.stdin, open_client, Path(folder)):
            print(json.dumps(answer), file=output, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
