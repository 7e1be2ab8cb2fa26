"""The features that a run needs of a store are tried before the training, and a missing feature is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.limited_store import Answer, Request, limited
from tests.s3 import S3Server
from tests.unit.runtime.fetch.support import MODEL, ROWS, Fetcher
from tunesmith_api.failures import FAILURES, FailureClass, Retry
from tunesmith_api.run import Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import join, open_storage

Rule = Callable[[Request], Answer | str | None]
NOT_IMPLEMENTED = Answer(501, "NotImplemented")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not look like a store that does not answer."""
    retries = {"mode": "standard", "total_max_attempts": 2}
    monkeypatch.setattr("tunesmith_runtime.storage.s3.METADATA", {"read_timeout": 60, "retries": retries})


def conditions(answer: Answer | str) -> Rule:
    """A store with a fixed answer to every conditional PUT."""
    return lambda request: answer if request.condition else None


def uploads(method: str, answer: Answer) -> Rule:
    """A store with a fixed answer to a call of multipart uploads."""
    return lambda request: answer if request.method == method and "upload" in request.target else None


LACKING: dict[str, tuple[Rule, str]] = {
    "501": (
        conditions(NOT_IMPLEMENTED),
        r"conditional writes: PUT .* with If-None-Match: \* was answered NotImplemented",
    ),
    "501 without a body": (conditions(Answer(501)), "conditional writes"),
    "400": (conditions(Answer(400, "InvalidArgument")), r"conditional writes: .* was answered InvalidArgument"),
    "405": (conditions(Answer(405, "MethodNotAllowed")), "conditional writes"),
    "ignored": (conditions("ignored"), "conditional writes: .* 200, although the object exists"),
    "always 412": (
        conditions(Answer(412, "PreconditionFailed")),
        "conditional writes: .* 412, although there is no object",
    ),
    "no uploads": (uploads("POST", NOT_IMPLEMENTED), "multipart uploads: CreateMultipartUpload .* NotImplemented"),
    "uploads are 400": (uploads("POST", Answer(400, "InvalidRequest")), "multipart uploads: CreateMultipartUpload"),
    "uploads are 404": (uploads("POST", Answer(404, "NoSuchKey")), "multipart uploads"),
    "no parts": (uploads("PUT", NOT_IMPLEMENTED), "multipart uploads: UploadPart"),
    "no writes": (lambda request: NOT_IMPLEMENTED if request.method == "PUT" else None, "the call PutObject"),
}


def left(server: S3Server, bucket: str) -> list[str]:
    """Objects and unfinished uploads in a bucket."""
    client = server.client()
    objects = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return [item["Key"] for item in [*objects, *client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]]


def test_the_probe_of_a_capable_store_leaves_no_trace(store: Store) -> None:
    storage = open_storage(store)
    storage.write_bytes(join(store.uri, "there"), b"1")
    storage.probe(join(store.uri, "run", ".probe"))
    assert [entry.path for entry in storage.list(store.uri)] == ["there"]


def test_the_probe_is_six_requests(s3: S3Server) -> None:
    bucket = s3.new_bucket()
    with limited(s3, lambda _: None) as proxy:
        store = s3.store(bucket, endpoint=proxy.endpoint)
        open_storage(store).probe(join(store.uri, ".probe"))
    assert [request.method for request in proxy.requests] == ["PUT", "PUT", "POST", "PUT", "POST", "DELETE"]
    assert left(s3, bucket) == []


@pytest.mark.parametrize("name", LACKING)
def test_a_missing_feature_is_named_with_the_stores_answer(s3: S3Server, name: str) -> None:
    rule, sentence = LACKING[name]
    bucket = s3.new_bucket()
    with limited(s3, rule) as proxy:
        store = s3.store(bucket, endpoint=proxy.endpoint)
        with pytest.raises(RunFailure, match=sentence) as failure:
            open_storage(store).probe(join(store.uri, ".probe"))
    assert failure.value.failure is FailureClass.STORAGE_UNSUPPORTED
    assert FAILURES[failure.value.failure].retry is Retry.NEVER
    assert proxy.endpoint in failure.value.message
    assert left(s3, bucket) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (conditions(Answer(403, "AccessDenied")), FailureClass.STORAGE_403),
        (conditions(Answer(400, "ExpiredToken")), FailureClass.STORAGE_403),
        (conditions(Answer(503, "SlowDown")), FailureClass.STORAGE_UNREACHABLE),
        (conditions(Answer(500, "InternalError")), FailureClass.STORAGE_UNREACHABLE),
        (conditions(Answer(409, "OperationAborted")), FailureClass.STORAGE_UNREACHABLE),
        (conditions(Answer(404, "NoSuchBucket")), FailureClass.BAD_SPEC),
        (uploads("POST", Answer(403, "AccessDenied")), FailureClass.STORAGE_403),
        (uploads("PUT", Answer(503, "SlowDown")), FailureClass.STORAGE_UNREACHABLE),
    ],
)
def test_an_unrelated_error_is_not_a_missing_feature(s3: S3Server, rule: Rule, expected: FailureClass) -> None:
    bucket = s3.new_bucket()
    with limited(s3, rule) as proxy:
        store = s3.store(bucket, endpoint=proxy.endpoint)
        with pytest.raises(RunFailure) as failure:
            open_storage(store).probe(join(store.uri, ".probe"))
    assert failure.value.failure is expected
    assert left(s3, bucket) == []


@pytest.mark.parametrize("method", ["if-none-match", "if-match"])
def test_an_unsupported_conditional_write_is_not_unreachable(s3: S3Server, method: str) -> None:
    """As an import into the store does before a run is known."""
    with limited(s3, lambda request: NOT_IMPLEMENTED if request.condition == method else None) as proxy:
        store = s3.store(s3.new_bucket(), endpoint=proxy.endpoint)
        storage, uri = open_storage(store), join(store.uri, "claim.json")
        with pytest.raises(RunFailure) as failure:
            storage.write_once(uri, b"1") if method == "if-none-match" else storage.replace_bytes(uri, b"1", '"tag"')
    assert failure.value.failure is FailureClass.STORAGE_UNSUPPORTED


@pytest.mark.parametrize("verb", ["prepare", "fetch"])
@pytest.mark.parametrize("answer", [NOT_IMPLEMENTED, "ignored"])
def test_a_job_on_an_unsupported_store_ends_before_the_download(
    s3: S3Server, tmp_path: Path, verb: str, answer: Answer | str
) -> None:
    bucket = s3.new_bucket()
    with limited(s3, conditions(answer)) as proxy:
        fetcher = Fetcher(s3.store(bucket, endpoint=proxy.endpoint), tmp_path)
        job = fetcher.job(
            fetcher.put("models/m", MODEL), join(fetcher.put("data", {"train.jsonl": ROWS}), "train.jsonl")
        )
        before = left(s3, bucket)
        with pytest.raises(RunFailure, match="lacks conditional writes") as failure:
            getattr(fetcher, verb)(job)
        assert failure.value.failure is FailureClass.STORAGE_UNSUPPORTED
        assert left(s3, bucket) == before
        assert not any("model.safetensors" in request.target for request in proxy.requests if request.method == "GET")
