"""Processes that outlive the command that starts them. Later commands find them by their pid files.

A pid alone may belong to somebody else by now. A pid file therefore also holds the process's start time and the
machine's boot id: a process is ours only if all three agree (proc(5), field `starttime`).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from devcluster.errors import ClusterError, ComponentEnded

POLL_SECONDS = 0.1
LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class Component:
    """A process: how to start it, and how to check that it is ready.

    `files` are written before it starts; a change of them, of `argv` or of the program restarts it.
    `ports` are (address, port) pairs that it listens on, for the check that nobody else does.
    """

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], str]
    files: Mapping[Path, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[tuple[str, int], ...] = ()
    ready_seconds: float = 180.0
    stop_seconds: float = 10.0

    def fingerprint(self) -> str:
        """Identity of the description. It changes if a running process no longer matches the component."""
        program = Path(self.argv[0]).resolve()
        identity = (program.stat().st_mtime_ns, program.stat().st_size) if program.exists() else ()
        files = sorted((str(path), text) for path, text in self.files.items())
        content = [self.argv, files, sorted(self.environment.items()), str(program), identity]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class Identity:
    """Identity of a process, unique also after its pid is reused or the machine is rebooted."""

    pid: int
    start: int
    boot: str


@dataclass(frozen=True)
class Record:
    """The content of a pid file."""

    identity: Identity
    fingerprint: str

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Read a pid file. None if it does not exist or is damaged, as after a loss of power."""
        try:
            content = json.loads(path.read_text())
            return cls(Identity(**content["identity"]), content["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def parse_stat(text: str) -> tuple[str, int, int]:
    """State letter, parent and start time from /proc/PID/stat; the command's name in it may hold anything."""
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1]), int(fields[19])


def identify(pid: int) -> Identity | None:
    """The identity of a live process; None if there is none, or only a zombie."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in "ZX" else Identity(pid, stat[2], boot_id())


def parent(pid: int) -> int | None:
    """The parent's pid; None if there is no such process."""
    stat = _stat(pid)
    return stat[1] if stat else None


def _stat(pid: int) -> tuple[str, int, int] | None:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (OSError, ValueError, IndexError):
        return None


def is_alive(identity: Identity) -> bool:
    return identify(identity.pid) == identity


def kill(identity: Identity, number: signal.Signals, wait_seconds: float) -> bool:
    """Signal the process with this identity and wait for its end. True if it is gone, also if it was before."""
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return not is_alive(identity)
    try:
        if is_alive(identity):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)
    return wait_until(lambda: _is_gone(identity), wait_seconds)


def _is_gone(identity: Identity) -> bool:
    with suppress(ChildProcessError):  # not our child: an earlier command started it, and process 1 reaps it
        os.waitpid(identity.pid, os.WNOHANG)
    return not is_alive(identity)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition for so many seconds. Return its last result."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _spawn(component: Component, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            component.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=dict(component.environment),
            start_new_session=True,
        )


@dataclass(frozen=True)
class Supervisor:
    """Starts, finds and stops components. Its only state is the folders of pid files and logs."""

    run: Path
    logs: Path

    def pid_file(self, name: str) -> Path:
        return self.run / f"{name}.pid"

    def log_file(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def record(self, name: str) -> Record | None:
        """The record of a component that is alive."""
        record = Record.read(self.pid_file(name))
        return record if record and is_alive(record.identity) else None

    def complaint(self, component: Component) -> str:
        """Why the component cannot be used; empty if it can."""
        record = self.record(component.name)
        if record is None:
            return "died" if self.pid_file(component.name).exists() else "not running"
        if record.fingerprint != component.fingerprint():
            return "configuration changed"
        return component.ready()

    def start(self, component: Component) -> None:
        """Write the files of a component and start it in its own session, without waiting for it."""
        for path, text in component.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for folder in (self.run, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        log = self.log_file(component.name)
        if log.exists():
            log.replace(log.with_suffix(".log.old"))
        try:
            process = _spawn(component, log)
        except FileNotFoundError:
            fix = "`python3 -m devcluster tools` fetches and builds the programs"
            raise ClusterError(f"{component.argv[0]} is not there: {fix}") from None
        process.returncode = 0  # avoids a ResourceWarning: nobody waits for this object
        identity = identify(process.pid)
        if identity is None:
            raise ComponentEnded(component.name, self.describe_failure(component, "ended during its start"))
        Record(identity, component.fingerprint()).write(self.pid_file(component.name))

    def wait(self, component: Component) -> None:
        """Wait until the component is ready. Raises with the end of its log if it ends or takes too long."""
        deadline = time.monotonic() + component.ready_seconds
        while missing := component.ready():
            record = self.record(component.name)
            if record is None or _is_gone(record.identity):
                raise ComponentEnded(component.name, self.describe_failure(component, "ended while it started"))
            if time.monotonic() > deadline:
                raise ClusterError(
                    self.describe_failure(component, f"is not ready after {component.ready_seconds:.0f}s: {missing}")
                )
            time.sleep(POLL_SECONDS)

    def stop(self, name: str, seconds: float = 10.0) -> None:
        """End the component if it runs, by SIGTERM, then by SIGKILL. Raises if both fail."""
        record = self.record(name)
        ended = record is None or (
            kill(record.identity, signal.SIGTERM, seconds) or kill(record.identity, signal.SIGKILL, 10.0)
        )
        if record and not ended:
            raise ClusterError(f"{name} (process {record.identity.pid}) does not end, not even after SIGKILL")
        self.pid_file(name).unlink(missing_ok=True)

    def describe_failure(self, component: Component, what: str) -> str:
        log = self.log_file(component.name)
        tail = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if log.exists() else []
        return "\n  ".join([f"{component.name} {what}; the end of {log}:", *tail])
