"""Each failure of a hub, by the hubs' own clients: its class, the sentence, and what is waited out or resumed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import Fault, Hub, Repository, hub
from tests.unit.runtime.fetch.hub_imports import (
    LARGE,
    SCHEMES,
    SHARDS,
    URI,
    content_of,
    failure_of,
    import_model,
    servers,
)
from tunesmith_api.failures import FAILURES, FailureClass, Retry
from tunesmith_api.run import Store
from tunesmith_runtime.fetch import hub as hub_module
from tunesmith_runtime.fetch import hub_types


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("fault", "failure", "sentence"),
    [
        (Fault("org/large", status=500), "HubUnreachable", "500"),
        (Fault("org/large", status=401), "HubForbidden|ModelNotFound", "401"),
        (Fault("org/large", status=403), "HubForbidden", "403"),
        (Fault("org/large", status=429, headers={"Retry-After": "3600"}), "HubRateLimited", "3600 s"),
        (Fault("org/large", status=200, body=b"<html>log in</html>"), "HubUnreachable", "not that of a hub"),
        (Fault("model-1", status=404), "HubCorrupt", "model-1.safetensors: 404"),
        (Fault("cdn/.*model-1", content=b"x" * 200_000), "HubCorrupt", "model-1.safetensors"),
        (Fault("cdn/.*model-1", content=SHARDS["model-1.safetensors"][:150_000]), "HubCorrupt", "model-1.safetensors"),
    ],
    ids=lambda value: f"{value.path} {value.status}" if isinstance(value, Fault) else None,
)
def test_each_failure_of_a_hub_has_its_class_and_names_server_and_file(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str, fault: Fault, failure: str, sentence: str
) -> None:
    large.faults.append(fault)
    found = failure_of(folder_store, tmp_path / "1", scheme, large.url)
    assert str(found.failure) in failure.split("|"), found
    assert sentence in found.message
    assert f"model {scheme}://org/large: {large.url}: " in found.message
    assert found.exit_code == FAILURES[found.failure].exit_code


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_connection_that_breaks_is_resumed_at_the_byte_where_it_broke(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)  # whole chunks only are kept
    large.faults.append(Fault("cdn/.*model-1", cut_after=150_000, times=1))
    uri, _ = import_model(folder_store, tmp_path / "1", URI.format(scheme), servers(scheme, large.url))
    assert content_of(folder_store, uri) == LARGE
    assert large.sent["model-1.safetensors"] == 200_000
    assert any("model-1" in path and headers.get("range") == "bytes=150000-" for path, headers in large.headers)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("path", ["api/", "model-1"])
def test_a_limited_rate_is_waited_out_for_the_seconds_in_the_answer(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str, path: str
) -> None:
    large.faults.append(Fault(path, status=429, headers={"Retry-After": "1"}, times=1))
    started = time.monotonic()
    uri, _ = import_model(folder_store, tmp_path / "1", URI.format(scheme), servers(scheme, large.url))
    assert time.monotonic() - started >= 1
    assert content_of(folder_store, uri) == LARGE


def test_a_rate_that_stays_limited_ends_the_attempt_which_is_retried(
    tmp_path: Path, folder_store: Store, large: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_types, "RATE_LIMIT_DEFAULT_SECONDS", 0.01)
    large.faults.append(Fault("org/large", status=429))
    failure = failure_of(folder_store, tmp_path / "1", "hf", large.url)
    assert failure.failure is FailureClass.HUB_RATE_LIMITED
    assert len(large.asked) == hub_types.RATE_LIMIT_TRIES
    assert FAILURES[failure.failure].retry is Retry.COUNTED


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("token", [None, "hf_other"])
def test_the_hint_of_a_gated_repository_names_the_token(
    tmp_path: Path, folder_store: Store, scheme: str, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = {"hf": "HF_TOKEN", "ms": "MODELSCOPE_API_TOKEN"}[scheme]
    if token:
        monkeypatch.setenv(variable, token)
    with hub({"org/large": Repository(dict(LARGE), needs_token="hf_right")}) as server:
        failure = failure_of(folder_store, tmp_path / "1", scheme, server.url)
    assert failure.failure is FailureClass.HUB_FORBIDDEN
    assert variable in str(failure.hint)
    assert "hf_other" not in failure.message + str(failure.hint)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_revision_that_moves_during_the_download_does_not_mix(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing is read again when its commit is gone, or, as ModelScope names no commit, when a file does not match it."""
    newer = LARGE | {
        "model-0.safetensors": b"newer" * 1000,
        "model-2.safetensors": b"other" * 1000,
        "tokenizer.json": b"{}",
    }
    monkeypatch.setattr(hub_module, "FILES_AT_ONCE", 1)

    class Moving(dict[str, bytes]):
        def get(self, key: str, default: Any = None) -> Any:
            if key == "model-1.safetensors":
                large.repositories["org/large"].files = newer
            return super().get(key, default)

    large.repositories["org/large"].files = Moving(LARGE)
    uri, _ = import_model(folder_store, tmp_path / "1", URI.format(scheme), servers(scheme, large.url))
    assert content_of(folder_store, uri) == newer


def test_a_server_that_sends_another_commit_is_refused(tmp_path: Path, folder_store: Store, large: Hub) -> None:
    large.faults.append(Fault("resolve/.*tokenizer", headers={"X-Repo-Commit": "f" * 40}))
    failure = failure_of(folder_store, tmp_path / "1", "hf", large.url)
    assert failure.failure is FailureClass.HUB_CORRUPT
    assert "ffffffffffff in place of" in failure.message


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_model_that_does_not_fit_on_the_disk_is_refused_before_its_weights(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=700_000))
    failure = failure_of(folder_store, tmp_path / "1", scheme, large.url)
    assert failure.failure is FailureClass.DISK_FULL
    assert "take 0.0 GB more" in failure.message
    assert not large.sent


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_disk_that_fills_up_during_the_download_is_full_and_no_fault_of_the_hub(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that the client opens for a shard lead to /dev/full, on which every write fails with ENOSPC."""
    import builtins
    import io

    opened = io.open

    def full(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        is_partial = str(file).endswith(".incomplete") and str(tmp_path / "1") in str(file)
        return opened("/dev/full" if is_partial and mode[0] in "wa" else file, mode, *arguments, **options)

    monkeypatch.setattr(builtins, "open", full)
    monkeypatch.setattr(io, "open", full)
    failure = failure_of(folder_store, tmp_path / "1", scheme, large.url)
    assert failure.failure is FailureClass.DISK_FULL, failure


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_host_without_an_address_is_named_with_a_hint_about_names(
    tmp_path: Path, folder_store: Store, scheme: str
) -> None:
    failure = failure_of(folder_store, tmp_path / "1", scheme, "http://no-such-host.invalid")
    assert failure.failure is FailureClass.HUB_UNREACHABLE
    assert "no-such-host.invalid: the host name has no address" in failure.message
    assert all(word in str(failure.hint) for word in ("DNS", "hub.endpoints", "hub.order"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_certificate_that_is_not_trusted_is_named(
    tmp_path: Path, folder_store: Store, scheme: str, tls_server: Any
) -> None:
    failure = failure_of(folder_store, tmp_path / "1", scheme, tls_server.endpoint)
    assert failure.failure is FailureClass.HUB_UNREACHABLE
    assert "the certificate is not trusted" in failure.message
    assert "SSL_CERT_FILE" in str(failure.hint)


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path, folder_store: Store) -> None:
    with hub({"org/large": {**LARGE, "..\0.json": b"{}"}}) as server:
        failure = failure_of(folder_store, tmp_path / "1", "hf", server.url)
    assert failure.failure is FailureClass.BAD_MODEL
