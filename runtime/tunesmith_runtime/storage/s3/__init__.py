"""s3://bucket/key: any S3 API, through boto3.

Credentials are AWS_* variables or the ServiceAccount's identity, never the node's. An endpoint that is dead or never
answers fails within half a minute: metadata requests have three attempts of at most eight seconds. Only transfers of
content, which always follow a metadata request, have longer timeouts.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions as raised
import botocore.session
from botocore.config import Config

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime import credentials
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.s3.connection import Connection
from tunesmith_runtime.storage.s3.downloads import download
from tunesmith_runtime.storage.s3.failures import (
    ENDPOINT,
    MISSING_KEY,
    UNKNOWN_CALL,
    answer_of,
    failures,
    is_about_feature,
    split,
    unsupported,
)
from tunesmith_runtime.storage.s3.uploads import abort_uploads, upload

CONFIG: dict[str, Any] = {
    "connect_timeout": 5,
    "max_pool_connections": 32,
    # Optional checksums break older servers. Content is verified by the manifest's sha256.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
METADATA: dict[str, Any] = {"read_timeout": 8, "retries": {"mode": "standard", "total_max_attempts": 3}}
CONTENT: dict[str, Any] = {"read_timeout": 60, "retries": {"mode": "standard", "total_max_attempts": 4}}

PROBE = b"Tunesmith checks this store. The object is deleted immediately."
ONLY_IF_ABSENT = {"IfNoneMatch": "*"}
NOT_MET = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})


def _session() -> boto3.session.Session:
    """Return a session that ignores the cloud's metadata service, which would provide the node's credentials."""
    core = botocore.session.get_session()
    core.get_component("credential_provider").remove("iam-role")
    return boto3.session.Session(botocore_session=core)


class S3:
    """An S3 endpoint with the credentials of this process."""

    def __init__(self, store: Store) -> None:
        credentials.trim()
        credentials.check(credentials.AWS, FailureClass.STORAGE_403)
        self.endpoint = store.endpoint or f"AWS region {store.region}"
        if store.ca_bundle and not Path(store.ca_bundle).is_file():
            raise RunFailure(
                FailureClass.STORAGE_TLS,
                f"the CA bundle {store.ca_bundle} does not exist",
                "check spec.storage.caBundle, else store.caBundle of the chart's values: name and key of the ConfigMap",
            )
        self._store = store.model_copy(
            update={"endpoint": store.endpoint and store.endpoint.strip(), "region": store.region.strip()}
        )
        self._client = self._connect(METADATA)

    def _connect(self, timeouts: dict[str, Any]) -> Any:
        # With an endpoint, boto3's "auto" is path style as well (botocore.args).
        style = "path" if self._store.path_style else "virtual" if self._store.endpoint else "auto"
        try:
            return _session().client(
                "s3",
                endpoint_url=self._store.endpoint,
                region_name=self._store.region,
                verify=self._store.ca_bundle,
                config=Config(s3={"addressing_style": style}, **CONFIG, **timeouts),
            )
        except (ValueError, raised.InvalidRegionError) as error:
            raise RunFailure(FailureClass.BAD_SPEC, f"storage: {error}", ENDPOINT) from error

    @cached_property
    def _content(self) -> Connection:
        return Connection(self._connect(CONTENT), self.endpoint)

    def _failures(self, uri: str) -> AbstractContextManager[None]:
        return failures(uri, self.endpoint)

    def stat(self, uri: str) -> Entry | None:
        bucket, key = split(uri)
        try:
            with self._failures(uri):
                head = self._client.head_object(Bucket=bucket, Key=key) if key else None
        except NotFound:
            return None
        return head and Entry(key.rsplit("/", 1)[-1], head["ContentLength"], head["ETag"])

    def list(self, uri: str) -> list[Entry]:
        bucket, key = split(uri)
        prefix = key + "/" if key else ""
        with self._failures(uri):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            found = [item for page in pages for item in page.get("Contents", ())]
        entries = [Entry(item["Key"][len(prefix) :], item["Size"], item["ETag"]) for item in found]
        return sorted(
            (entry for entry in entries if not entry.path.endswith("/") and entry.path), key=lambda entry: entry.path
        )

    def read_bytes(self, uri: str) -> bytes | None:
        bucket, key = split(uri)
        with self._failures(uri):
            try:
                return self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
            except raised.ClientError as error:
                if error.response["Error"]["Code"] in MISSING_KEY:
                    return None
                raise

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        bucket, key = split(uri)
        with self._failures(uri):
            asked = f"bytes={start}-{start + length - 1}"
            body: bytes = self._client.get_object(Bucket=bucket, Key=key, Range=asked)["Body"].read()
            return body

    def write_bytes(self, uri: str, content: bytes, if_absent: bool) -> bool:
        return self._put(uri, content, ONLY_IF_ABSENT if if_absent else {})

    def replace_bytes(self, uri: str, content: bytes, etag: str) -> bool:
        return self._put(uri, content, {"IfMatch": etag})

    def _put(self, uri: str, content: bytes, condition: dict[str, str]) -> bool:
        bucket, key = split(uri)
        with self._failures(uri):
            try:
                self._client.put_object(Bucket=bucket, Key=key, Body=content, **condition)
            except raised.ClientError as error:
                code = error.response["Error"]["Code"]
                if condition and code in NOT_MET | MISSING_KEY:
                    return False
                if condition and code in UNKNOWN_CALL:
                    raise self._without_conditions(uri, condition, answer_of(error)) from error
                raise
        return True

    def _without_conditions(self, uri: str, condition: dict[str, str], answer: str) -> RunFailure:
        header = "If-None-Match: *" if condition == ONLY_IF_ABSENT else "If-Match"
        return unsupported(self.endpoint, "conditional writes", f"PUT {uri} with {header}", answer)

    def probe(self, uri: str) -> None:
        """Make six small calls: two conditional writes, the second of which must fail, a multipart upload, and a deletion."""
        self._probe_condition(uri)
        try:
            if self._put(uri, PROBE, ONLY_IF_ABSENT):
                raise self._without_conditions(uri, ONLY_IF_ABSENT, "200, although the object exists")
            self._probe_multipart(uri)
        except BaseException:
            with suppress(RunFailure):  # the first failure is more specific
                self.delete(uri)
            raise
        self.delete(uri)

    def _probe_condition(self, uri: str) -> None:
        """Write an absent object. If that is refused and the plain write is not, the store lacks the condition."""
        answer = "412, although there is no object"
        try:
            if self._put(uri, PROBE, ONLY_IF_ABSENT):
                return
        except RunFailure as failure:
            error = failure.__cause__
            if not isinstance(error, raised.ClientError) or not is_about_feature(error):
                raise
            answer = answer_of(error)
        self._put(uri, PROBE, {})
        self.delete(uri)
        raise self._without_conditions(uri, ONLY_IF_ABSENT, answer)

    def _probe_multipart(self, uri: str) -> None:
        """Upload a few bytes with the calls that files of more than 64 MiB need."""
        bucket, key = split(uri)
        upload: dict[str, Any] = {"Bucket": bucket, "Key": key}
        with self._failures(uri):
            try:
                upload["UploadId"] = self._client.create_multipart_upload(**upload)["UploadId"]
                part = self._client.upload_part(**upload, PartNumber=1, Body=PROBE)
                parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
                self._client.complete_multipart_upload(**upload, MultipartUpload=parts)
            except raised.ClientError as error:
                if "UploadId" in upload:
                    with suppress(raised.ClientError):
                        self._client.abort_multipart_upload(**upload)
                if is_about_feature(error):
                    tried = f"{error.operation_name} {uri}"
                    raise unsupported(self.endpoint, "multipart uploads", tried, answer_of(error)) from error
                raise

    def fingerprint(self, uri: str, entry: Entry) -> str:
        return f"{entry.etag.strip(chr(34))}/{entry.size_bytes}"

    def download(self, uri: str, path: Path, entry: Entry) -> str:
        return download(self._content, uri, path, entry)

    def upload(self, path: Path, uri: str, is_addressed: bool) -> None:
        upload(self._content, path, uri, is_addressed)

    def discard_uploads(self, uri: str) -> None:
        with self._failures(uri):
            abort_uploads(self._client, uri)

    def copy(self, source: str, target: str) -> None:
        (bucket, key), (to_bucket, to_key) = split(source), split(target)
        with self._failures(source):
            self._content.client.copy({"Bucket": bucket, "Key": key}, to_bucket, to_key)

    def delete(self, uri: str) -> None:
        bucket, key = split(uri)
        with self._failures(uri):
            self._client.delete_object(Bucket=bucket, Key=key)
