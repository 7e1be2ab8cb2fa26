"""Leases: what a pod uses stays, and what a pod has left behind ends by itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tunesmith_runtime.cache import leases
from tunesmith_runtime.cache.leases import LEASE_SECONDS, START_SECONDS, Leases


def seconds_left(folder: Path, holder: str) -> float:
    return (folder / holder).stat().st_mtime - time.time()


def test_the_files_of_all_pods_are_in_use(tmp_path: Path) -> None:
    one, two = Leases(tmp_path, "team.one"), Leases(tmp_path, "team.two")
    assert one.own() == {}
    one.take({"a": 1, "b": 2})
    two.take({"b": 2, "c": 3})
    assert one.own() == {"a": 1, "b": 2}
    assert two.live() == {"a": 1, "b": 2, "c": 3}


def test_a_lease_that_is_not_renewed_ends(tmp_path: Path) -> None:
    gone, here = Leases(tmp_path, "team.gone"), Leases(tmp_path, "team.here")
    gone.take({"a": 1}, seconds=-1)
    here.take({"b": 2})
    assert here.live() == {"b": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["team.here"]


def test_the_lease_of_fetch_lasts_until_a_slow_image_is_pulled(tmp_path: Path) -> None:
    Leases(tmp_path, "pod").take({"a": 1})
    assert START_SECONDS - 60 < seconds_left(tmp_path, "pod") <= START_SECONDS


def test_a_running_container_renews_the_lease_of_its_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    pod = Leases(tmp_path, "pod")
    pod.take({"a": 1}, seconds=-1)
    with pod.renewed():
        deadline = time.monotonic() + 10
        while seconds_left(tmp_path, "pod") < LEASE_SECONDS - 60 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.utime(tmp_path / "pod", (0, 0))
        while seconds_left(tmp_path, "pod") < LEASE_SECONDS - 60 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seconds_left(tmp_path, "pod") > LEASE_SECONDS - 60
    assert pod.own() == {"a": 1}


def test_a_pod_without_files_in_the_cache_has_no_lease(tmp_path: Path) -> None:
    with Leases(tmp_path, "pod").renewed():
        assert list(tmp_path.iterdir()) == []


def test_a_damaged_lease_protects_nothing_and_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("{")
    os.utime(tmp_path / "bad", (time.time(), time.time() + 60))
    assert Leases(tmp_path, "pod").live() == {}
