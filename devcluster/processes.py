"""Processes that outlive the command that started them, and are found again by their pid files.

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
    """One process: how it is started, and how one knows that it works.

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
        """Changes whenever a running process would no longer be what this component describes."""
        program = Path(self.argv[0]).resolve()
        identity = (program.stat().st_mtime_ns, program.stat().st_size) if program.exists() else ()
        files = sorted((str(path), text) for path, text in self.files.items())
        content = [self.argv, files, sorted(self.environment.items()), str(program), identity]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class Identity:
    """What tells one process from every other one, also after its pid is used again or the machine was rebooted."""

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
        """None if there is no such file, or none that can be understood (a machine that lost power leaves those)."""
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
    """Signal that very process and wait for its end; True if it is gone. A process that is gone already is no error."""
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
    with suppress(ChildProcessError):  # not our child: started by an earlier command, and reaped by process 1
        os.waitpid(identity.pid, os.WNOHANG)
    return not is_alive(identity)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition; the last answer counts."""
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
    """Starts, finds again and stops components; it holds no state but the folders of the pid files and the logs."""

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
        """Why the component can't be used as it is; empty if it can."""
        record = self.record(component.name)
        if record is None:
            return "died" if self.pid_file(component.name).exists() else "not running"
        if record.fingerprint != component.fingerprint():
            return "configuration changed"
        return component.ready()

    def start(self, component: Component) -> None:
        """Write its files, start it in a session of its own, and leave at once: `wait` waits for it."""
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
        process.returncode = 0  # it is not this object's to wait for: no ResourceWarning when it goes
        identity = identify(process.pid)
        if identity is None:
            raise ComponentEnded(component.name, self.describe_failure(component, "ended at once"))
        Record(identity, component.fingerprint()).write(self.pid_file(component.name))

    def wait(self, component: Component) -> None:
        """Return when the component is ready; raise with the end of its log when it dies or takes too long."""
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
        """End the component if it runs: SIGTERM, then SIGKILL. Raises if even that fails."""
        record = self.record(name)
        ended = record is None or (
            kill(record.identity, signal.SIGTERM, seconds) or kill(record.identity, signal.SIGKILL, 10.0)
        )
        if record and not ended:
            raise ClusterError(f"{name} (process {record.identity.pid}) does not end, not even by SIGKILL")
        self.pid_file(name).unlink(missing_ok=True)

    def describe_failure(self, component: Component, what: str) -> str:
        log = self.log_file(component.name)
        tail = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if log.exists() else []
        return "\n  ".join([f"{component.name} {what}; the end of {log}:", *tail])
