"""The user's cluster is used if one is named, and no secret is printed."""

import argparse
import stat
from pathlib import Path

import pytest

from devcluster import ClusterError, cli, environment
from devcluster.access import ensure_s3_credentials, exports, is_external, read_s3_credentials
from devcluster.paths import Paths, cache_paths

NAMES = (
    *("KUBECONFIG", "TUNESMITH_REGISTRY", "TUNESMITH_S3_ENDPOINT"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE"),
)
USERS = {
    "KUBECONFIG": "/home/me/.kube/config",
    "TUNESMITH_REGISTRY": "registry.example:5000",
    "TUNESMITH_S3_ENDPOINT": "https://s3.example",
    "AWS_ACCESS_KEY_ID": "access",
    "AWS_SECRET_ACCESS_KEY": "hush-hush",
}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return cache_paths()


def name_a_cluster(monkeypatch: pytest.MonkeyPatch, *, without: str = "") -> None:
    for name, value in USERS.items():
        if name != without:
            monkeypatch.setenv(name, value)


def test_a_named_cluster_is_used(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    name_a_cluster(monkeypatch)
    used = environment()
    assert (used.embedded, used.registry, used.s3_endpoint) == (False, "registry.example:5000", "https://s3.example")
    assert used.kubeconfig == Path("/home/me/.kube/config")
    assert (used.s3_access_key, used.s3_secret_key) == ("access", "hush-hush")


@pytest.mark.parametrize(
    ("name", "needed_by"),
    [
        ("TUNESMITH_REGISTRY", "registry"),
        ("TUNESMITH_S3_ENDPOINT", "s3_endpoint"),
        ("AWS_ACCESS_KEY_ID", "s3_access_key"),
        ("AWS_SECRET_ACCESS_KEY", "s3_secret_key"),
    ],
)
def test_a_missing_setting_of_a_users_cluster_is_an_error_only_when_used(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, name: str, needed_by: str
) -> None:
    name_a_cluster(monkeypatch, without=name)
    used = environment()
    assert not used.embedded
    assert [variable for variable in used.unnamed() if name in variable] == used.unnamed() != []
    with pytest.raises(ClusterError, match=f"so also set .*{name}") as caught:
        getattr(used, needed_by)
    assert "\n" not in str(caught.value)
    others = {"registry", "s3_endpoint"} - {needed_by}
    assert all(getattr(used, other) for other in others)


def test_up_lists_the_missing_settings_of_a_users_cluster(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name_a_cluster(monkeypatch, without="TUNESMITH_S3_ENDPOINT")
    monkeypatch.setattr(cli.shutil, "which", lambda name: name)
    monkeypatch.setattr(cli, "run", lambda argv: "node/one\n")
    assert cli.up(paths, argparse.Namespace()) == 0
    assert "not set: TUNESMITH_S3_ENDPOINT;" in capsys.readouterr().out


def test_several_kubeconfigs_are_refused_with_the_command_that_merges_them(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_a_cluster(monkeypatch)
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    with pytest.raises(ClusterError, match="kubectl config view --flatten"):
        environment()


def test_without_a_cluster_the_error_names_the_command_that_starts_it(paths: Paths) -> None:
    with pytest.raises(ClusterError, match="make cluster"):
        environment()


def test_our_own_kubeconfig_in_the_environment_is_the_embedded_cluster(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(paths.kubeconfig))
    assert not is_external(paths)


def test_the_embedded_cluster_is_described_by_its_files(paths: Paths) -> None:
    keys = ensure_s3_credentials(paths.s3_credentials)
    paths.kubeconfig.write_text("{}")
    used = environment()
    assert (used.embedded, used.kubeconfig, used.bin_dir) == (True, paths.kubeconfig, paths.bin)
    assert (used.s3_access_key, used.s3_secret_key) == keys


def test_s3_keys_are_created_once_and_readable_by_the_owner_only(paths: Paths) -> None:
    keys = ensure_s3_credentials(paths.s3_credentials)
    assert ensure_s3_credentials(paths.s3_credentials) == keys
    assert stat.S_IMODE(paths.s3_credentials.stat().st_mode) == 0o600


def test_the_secret_key_is_in_neither_the_exports_nor_a_printed_environment(paths: Paths) -> None:
    _, secret = ensure_s3_credentials(paths.s3_credentials)
    paths.kubeconfig.write_text("{}")
    assert secret not in str(exports(paths))
    assert secret not in str(environment())


@pytest.mark.parametrize("text", ["", "[default]\naws_access_key_id = x\n", "no ini"])
def test_a_broken_credentials_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ClusterError, match=str(tmp_path / "file")):
        read_s3_credentials(tmp_path / "file")
