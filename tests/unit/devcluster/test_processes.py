"""Processes are found by their pid files, and only our processes are ended."""

import dataclasses
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devcluster.errors import ClusterError
from devcluster.processes import Component, Record, Supervisor, identify, is_alive, parse_stat


def sleeper(**changes: Any) -> Component:
    component = Component(name="sleeper", argv=("/bin/sleep", "60"), ready=lambda: "")
    return dataclasses.replace(component, **changes)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "run", tmp_path / "logs")
    yield supervisor
    supervisor.stop("sleeper")


@given(st.text(alphabet=st.characters(exclude_characters="\x00"), max_size=15))
def test_a_command_name_of_any_characters_does_not_confuse_the_reading_of_stat(name: str) -> None:
    text = f"7 ({name}) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
    assert parse_stat(text) == ("S", 1, 4711)


def test_a_started_component_is_found_by_another_supervisor(supervisor: Supervisor) -> None:
    supervisor.start(sleeper())
    found = Supervisor(supervisor.run, supervisor.logs).record("sleeper")
    assert found is not None
    assert is_alive(found.identity)


def test_stopping_ends_the_process_and_removes_its_pid_file(supervisor: Supervisor) -> None:
    supervisor.start(sleeper())
    record = supervisor.record("sleeper")
    assert record is not None
    supervisor.stop("sleeper")
    assert not is_alive(record.identity)
    assert not supervisor.pid_file("sleeper").exists()


def test_stopping_a_stopped_component_is_no_error(supervisor: Supervisor) -> None:
    supervisor.stop("sleeper")


@pytest.mark.parametrize("change", [{"start": 1}, {"boot": "another boot"}], ids=["pid used again", "after a reboot"])
def test_a_process_with_a_reused_pid_is_not_ended(supervisor: Supervisor, change: dict[str, Any]) -> None:
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    try:
        identity = identify(stranger.pid)
        assert identity is not None
        supervisor.run.mkdir(parents=True)
        Record(dataclasses.replace(identity, **change), "").write(supervisor.pid_file("sleeper"))
        assert supervisor.record("sleeper") is None
        supervisor.stop("sleeper")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_written_pid_file_counts_as_none(supervisor: Supervisor) -> None:
    supervisor.run.mkdir(parents=True)
    supervisor.pid_file("sleeper").write_text('{"identity": {"pid": 1')
    assert supervisor.record("sleeper") is None


def test_a_zombie_does_not_count_as_alive() -> None:
    child = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identify(child.pid) is None
    child.wait()


def test_a_running_component_that_is_ready_has_no_complaint(supervisor: Supervisor) -> None:
    supervisor.start(sleeper())
    assert supervisor.complaint(sleeper()) == ""


def test_each_fault_of_a_component_is_named(supervisor: Supervisor) -> None:
    assert supervisor.complaint(sleeper()) == "not running"
    supervisor.start(sleeper())
    assert supervisor.complaint(sleeper(ready=lambda: "port 1 is silent")) == "port 1 is silent"
    assert supervisor.complaint(sleeper(argv=("/bin/sleep", "61"))) == "configuration changed"
    record = supervisor.record("sleeper")
    assert record is not None
    os.kill(record.identity.pid, 9)
    os.waitpid(record.identity.pid, 0)
    assert supervisor.complaint(sleeper()) == "died"


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ("/bin/sleep", "61")},
        {"argv": ("/bin/true", "60")},
        {"files": {Path("/etc/x"): "1"}},
        {"environment": {"KEY": "1"}},
    ],
    ids=["arguments", "program", "files", "environment"],
)
def test_a_changed_description_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert sleeper(**change).fingerprint() != sleeper().fingerprint()


def test_a_component_that_ends_while_it_starts_is_reported_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    broken = sleeper(argv=("/bin/sh", "-c", "echo no such certificate; sleep 0.3; exit 1"), ready=lambda: "not yet")
    supervisor.start(broken)
    with pytest.raises(ClusterError, match=r"(?s)sleeper ended while it started.*no such certificate"):
        supervisor.wait(broken)


def test_a_component_that_is_never_ready_is_reported_with_its_complaint(supervisor: Supervisor) -> None:
    silent = sleeper(ready=lambda: "port 1 is silent", ready_seconds=0.0)
    supervisor.start(silent)
    with pytest.raises(ClusterError, match="not ready after 0s: port 1 is silent"):
        supervisor.wait(silent)


def test_files_exist_before_their_component_starts(supervisor: Supervisor, tmp_path: Path) -> None:
    config = tmp_path / "deep" / "config"
    supervisor.start(sleeper(files={config: "content"}))
    assert config.read_text() == "content"


def test_a_missing_program_is_reported_with_the_command_that_builds_it(supervisor: Supervisor) -> None:
    with pytest.raises(ClusterError, match="/no/such/etcd is not there: `python3 -m devcluster tools`"):
        supervisor.start(sleeper(argv=("/no/such/etcd",)))
