"""Decisions on building and pushing the images."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from devcluster import cli, images
from devcluster.errors import ClusterError
from devcluster.images import build_secrets, is_local, is_pushed
from devcluster.images_base import PULLED_BASE, base_reference, find_uv
from devcluster.paths import Paths

ROOT = Path(__file__).resolve().parents[3]
CONTAINERFILES = ("operator/Containerfile", "runtime/Containerfile")


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("localhost:5001/tunesmith/operator:1", True),
        ("127.0.0.1:5001/tunesmith/operator:1", True),
        ("registry.example.com/team/tunesmith/operator:1", False),
        ("localhost.example.com:5001/tunesmith/operator:1", False),
    ],
)
def test_plain_http_is_used_for_this_machine_only(name: str, local: bool) -> None:
    assert is_local(name) is local


def test_an_unreachable_registry_is_an_error_with_the_fix() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"127\.0\.0\.1:{port} does not answer .*`make cluster`"):
            is_pushed(f"127.0.0.1:{port}/tunesmith/operator:1")


@pytest.mark.parametrize(("free", "built", "warns"), [(29, False, True), (29, True, False), (31, False, False)])
def test_up_warns_of_a_disk_too_small_for_the_first_build_of_the_images(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    free: int,
    built: bool,
    warns: bool,
) -> None:
    monkeypatch.setattr(images.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free * 10**9))
    paths = Paths(tmp_path if built else tmp_path / "not made yet")
    if built:
        paths.images.write_text("{}")
    for what_starts in (cli.toolchain, "ensure_debian"), (cli.builds, "ensure_programs"), (cli.cluster, "up"):
        monkeypatch.setattr(*what_starts, lambda *_: print("starting"))
    monkeypatch.setattr(cli, "_check", lambda paths: None)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert cli.up(paths, argparse.Namespace()) == 0
    warning = capsys.readouterr().out.partition("starting")[0]
    assert ("the first build of the images needs 30 GB: make room" in warning) is warns


def test_the_build_gets_the_machines_certificates_and_mirrors(tmp_path: Path) -> None:
    bundle, settings = tmp_path / "ca.pem", tmp_path / "uv.toml"
    bundle.touch()
    settings.touch()
    variables = {"SSL_CERT_FILE": str(bundle), "UV_CONFIG_FILE": str(settings)}
    assert build_secrets(variables) == {"ca": bundle, "uv": settings}


def test_a_missing_file_is_no_secret(tmp_path: Path) -> None:
    variables = {"SSL_CERT_FILE": str(tmp_path / "none.pem"), "UV_CONFIG_FILE": str(tmp_path / "none.toml")}
    assert build_secrets(variables) == {}


def test_a_base_image_can_be_named_instead_of_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PULLED_BASE, "docker.io/library/python:3.12-slim")
    assert base_reference() == "docker.io/library/python:3.12-slim"


def test_our_own_base_image_has_the_tag_of_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PULLED_BASE, raising=False)
    assert base_reference().startswith("localhost/tunesmith/base:")
    assert base_reference() == base_reference()


def test_a_missing_uv_is_an_error_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="make env"):
        find_uv(tmp_path)


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_an_image_runs_as_a_numeric_user_that_is_not_root(name: str) -> None:
    # runAsNonRoot can only be checked by the kubelet if the user is a number.
    users = [line for line in (ROOT / name).read_text().splitlines() if line.startswith("USER ")]
    assert users == ["USER 65532:65532"]
