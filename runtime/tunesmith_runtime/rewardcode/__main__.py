"""`python -m tunesmith_runtime.rewardcode --code FILE --socket PATH`: answers requests for rewards at a Unix socket.

A request and its answer are a line of JSON each, a connection apiece:

{"prompts": [...], "completions": [...], "columns": {name: [...]}}
{"rewards": [...], "line": line of the function, "sha256": of the code}, or {"error": {"kind", "message", "line"}, "sha256"}

This process gives up its network, starts the process that loads the code (worker.py), and ends that process at its time limit. It passes
results on unchanged; the training checks them.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from tunesmith_runtime.rewardcode.protocol import GRACE_SECONDS, MOST_BYTES, encode, error
from tunesmith_runtime.rewardcode.sockets import NotIsolated, refuse_sockets

EXIT_CODE = 97
"""Exit code of class RewardCodeFailed."""
ENVIRONMENT = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": os.defpath, "OMP_NUM_THREADS": "1"}
"""The whole environment of the code."""


class Worker:
    """The process that runs the code; started again after it has ended."""

    def __init__(self, code: Path, seconds: float, memory: int) -> None:
        self._code, self._seconds, self._memory = code, seconds, memory
        self._process: subprocess.Popen[bytes] | None = None

    def answer(self, request: bytes) -> bytes:
        """Return the answer to a request, both with a line break."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            answer = self._read(process)
        except (BrokenPipeError, EOFError):
            return encode(error("ended", f"exit code {self._end()}"))
        except TimeoutError:
            self._end()
            return encode(error("timeout", f"no answer within {self._seconds:g} s"))
        return answer

    def _read(self, process: subprocess.Popen[bytes]) -> bytes:
        """Read a line. Raises EOFError at the end of the process, TimeoutError after its time."""
        assert process.stdout is not None
        deadline, line = time.monotonic() + self._seconds + GRACE_SECONDS, b""
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            part = os.read(process.stdout.fileno(), 1 << 16)
            line += part
            if not part or len(line) > MOST_BYTES:
                raise EOFError
        return line

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [str(self._code), f"{self._seconds}", f"{self._memory}"]
        return subprocess.Popen(
            [sys.executable, "-m", "tunesmith_runtime.rewardcode.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=ENVIRONMENT | {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
            start_new_session=True,
        )

    def _end(self) -> int:
        """End the process with all that it has started; return its exit code."""
        process, self._process = self._process, None
        assert process is not None
        ended = process.poll()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        return code if ended is None else ended


def serve(listener: socket.socket, worker: Worker) -> None:
    """Answer one request of each connection, one after the other."""
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as file:
            try:
                request = file.readline()
                if request.endswith(b"\n"):
                    connection.sendall(worker.answer(request))
            except OSError as problem:  # the training is gone
                print(f"a connection has ended: {problem}", file=sys.stderr, flush=True)


def main() -> int:
    """Serve until the container is stopped; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tunesmith_runtime.rewardcode", description="Answer requests for rewards."
    )
    parser.add_argument("--code", type=Path, required=True, help="file with the function reward")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to listen at")
    parser.add_argument("--seconds", type=float, default=60.0, help="time of a call (default: %(default)s)")
    parser.add_argument("--memory", type=int, default=0, help="bytes that the code may allocate (default: unlimited)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    options.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(options.socket))
        listener.listen(128)
        try:
            refuse_sockets()
        except NotIsolated as problem:
            print(f"the code of the reward is not run: {problem}", file=sys.stderr, flush=True)
            return EXIT_CODE
        print(
            f"{options.code.name} {sha256(options.code.read_bytes()).hexdigest()[:12]}: waiting for requests",
            flush=True,
        )
        serve(listener, Worker(options.code, options.seconds, options.memory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
