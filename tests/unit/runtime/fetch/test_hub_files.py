"""Single files and parts of files of a repository, by the hubs' own clients."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.hub_server import Fault, Hub, hub
from tests.servers import free_port
from tests.unit.runtime.fetch.hub_imports import LARGE, SCHEMES, SHARDS, URI, servers
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.hub_files import HubFiles, find_files, find_model_files

SHARD = "model-1.safetensors"


def found(scheme: str, *urls: str) -> HubFiles:
    return find_model_files(URI.format(scheme), servers(scheme, *urls), trusted=False, adapter=False)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("start", "length"), [(0, 8), (1000, 100_000), (199_990, 100)])
def test_a_part_of_a_shard_is_read_without_the_rest(large: Hub, scheme: str, start: int, length: int) -> None:
    part = found(scheme, large.url).read_range(SHARD, start, length)
    assert part == SHARDS[SHARD][start : start + length]
    assert large.sent == {SHARD: len(part)}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_of_a_server_that_ignores_ranges_no_more_is_read_than_the_part(large: Hub, scheme: str) -> None:
    large.ignores_ranges = True
    large.faults.append(Fault("/cdn/", block_seconds=0.01))
    assert found(scheme, large.url).read_range(SHARD, 8, 100) == SHARDS[SHARD][8:108]
    assert large.sent[SHARD] < len(SHARDS[SHARD])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_part_comes_from_the_next_server_and_the_token_is_not_sent_to_the_cdn(
    large: Hub, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN" if scheme == "hf" else "MODELSCOPE_API_TOKEN", "secret-of-the-hub")
    with hub({"org/large": LARGE}) as mirror:
        files = found(scheme, mirror.url, large.url)
        mirror.faults.append(Fault("/cdn/", status=503))
        assert files.read_range(SHARD, 0, 8) == SHARDS[SHARD][:8]
    sent = {path.startswith("/cdn/") for path, each in large.headers if any("secret" in text for text in each.values())}
    assert sent == {False}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault("model-1", status=404), FailureClass.HUB_CORRUPT),
        (Fault("/cdn/", cut_after=4), FailureClass.HUB_UNREACHABLE),
    ],
)
def test_a_part_that_cannot_be_read_is_a_failure_with_the_file(
    large: Hub, scheme: str, fault: Fault, failure: FailureClass
) -> None:
    files = found(scheme, large.url)
    large.faults.append(fault)
    with pytest.raises(RunFailure, match=SHARD) as caught:
        files.read_range(SHARD, 0, 100)
    assert caught.value.failure is failure


def test_a_small_file_is_compared_with_the_listing_and_an_absent_one_is_none(large: Hub, tmp_path: Path) -> None:
    files = found("ms", large.url)
    assert files.read_bytes("config.json") == LARGE["config.json"]
    assert files.read_bytes("absent.json") is None
    large.faults.append(Fault("tokenizer.json", content=b'{"a": 2}'))
    with pytest.raises(RunFailure, match=r"tokenizer\.json") as caught:
        files.read_bytes("tokenizer.json")
    assert caught.value.failure is FailureClass.HUB_CORRUPT
    assert hashlib.sha256(LARGE["tokenizer.json"]).hexdigest() in [each.etag for each in files.list()]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_files_of_a_server_that_does_not_answer_are_unreachable(quick: None, scheme: str) -> None:
    with pytest.raises(RunFailure) as caught:
        find_files(URI.format(scheme), servers(scheme, f"http://127.0.0.1:{free_port()}"))
    assert caught.value.failure is FailureClass.HUB_UNREACHABLE
