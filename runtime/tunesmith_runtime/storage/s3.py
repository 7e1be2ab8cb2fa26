"""s3://bucket/key: any S3 API, through boto3.

Credentials are AWS_* variables or the ServiceAccount's identity, never the node's. An endpoint that is dead or never
answers fails within half a minute: metadata requests have three attempts of at most eight seconds. Only transfers of
content, which always follow a metadata request, have longer timeouts.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions as raised
import botocore.session
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime import credentials
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.storage import Entry
from tunesmith_runtime.storage.files import disk_failures
from tunesmith_runtime.storage.manifest import INCOMPLETE

log = logging.getLogger(__name__)

PART_BYTES = 32 << 20
CHUNK_BYTES = 1 << 20
PARTS_AT_ONCE = 4
PART_TRIES = 3
"""boto3 does not retry a response that breaks off midway."""

CONFIG: dict[str, Any] = {
    "connect_timeout": 5,
    "max_pool_connections": 32,
    # Optional checksums break older servers. Content is verified by the manifest's sha256.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
METADATA: dict[str, Any] = {"read_timeout": 8, "retries": {"mode": "standard", "total_max_attempts": 3}}
CONTENT: dict[str, Any] = {"read_timeout": 60, "retries": {"mode": "standard", "total_max_attempts": 4}}
TRANSFER = TransferConfig(
    multipart_threshold=2 * PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE
)

PROBE = b"Tunesmith checks this store. The object is deleted immediately."
ONLY_IF_ABSENT = {"IfNoneMatch": "*"}
NOT_MET = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
UNKNOWN_CALL = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
"""Error codes for calls and headers that a store does not implement."""
PASSING = frozenset({401, 403, 408, 409, 429})
"""Statuses below 500 that do not depend on the features of a store."""

MISSING_KEY = frozenset({"NoSuchKey", "404", "NotFound"})
UNKNOWN_KEY = (
    "correct AWS_ACCESS_KEY_ID in the credentials Secret, or spec.storage.endpoint or store.endpoint of the chart's values: if both "
    "are empty, the endpoint is AWS"
)
REFUSED = {
    "InvalidAccessKeyId": UNKNOWN_KEY,
    "XAdminUserNotFound": UNKNOWN_KEY,  # versitygw's code, with status 404
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY in the credentials Secret: it does not belong to its AWS_ACCESS_KEY_ID",
    "ExpiredToken": "renew the credentials in the Secret: they have expired",
    "RequestTimeTooSkewed": "correct the clock of the node or of the object storage",
    "AccessDenied": "allow these credentials to list, read, write and delete there (without the right to list, a missing object has the same error)",
}
UNSENDABLE = (ValueError, UnicodeEncodeError)
"""Errors of http.client for headers that it cannot send. Their text holds the header with its signature."""
ENDPOINT = (
    "write spec.storage.endpoint as https://host or https://host:port, and spec.storage.region as the store names it"
)
OTHER_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise RunFailure(FailureClass.BAD_SPEC, f"{uri}: no bucket", "write s3://bucket/prefix")
    return bucket, key.strip("/")


def _refusal(uri: str, error: raised.ClientError, endpoint: str) -> RunFailure:
    """Return the failure that an error response of the endpoint means."""
    answer = error.response.get("Error", {})
    code, text = str(answer.get("Code", "")), answer.get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return NotFound(uri, f"there is no bucket {split(uri)[0]!r} at {endpoint}")
    if code in MISSING_KEY:
        return NotFound(uri)
    if status in (401, 403) or code in REFUSED:
        return RunFailure(FailureClass.STORAGE_403, f"{uri} at {endpoint}: {code} ({text})", REFUSED.get(code))
    if code in OTHER_REGION:
        message = f"{uri} at {endpoint}: {code} ({text})"
        return RunFailure(
            FailureClass.STORAGE_UNREACHABLE,
            message,
            "set spec.storage.region to the region of the bucket, and spec.storage.endpoint where that region has another",
        )
    if code in UNKNOWN_CALL:
        call = error.operation_name
        return _unsupported(endpoint, f"the call {call}", f"{call} {uri}", _answer(error))
    if code == "PreconditionFailed":
        return RunFailure(
            FailureClass.STORAGE_CORRUPT,
            f"{uri} changed while it was read",
            "write data to new names instead of over old ones",
        )
    return RunFailure(FailureClass.STORAGE_UNREACHABLE, f"{uri} at {endpoint}: {code} ({text})")


def _unsupported(endpoint: str, lacks: str, tried: str, answer: str) -> RunFailure:
    """Return the failure of a store that `lacks` a feature, shown by its `answer` to the call `tried`."""
    return RunFailure(FailureClass.STORAGE_UNSUPPORTED, f"{endpoint} lacks {lacks}: {tried} was answered {answer}")


def _answer(error: raised.ClientError) -> str:
    answer = error.response.get("Error", {})
    return f"{answer.get('Code')} ({answer.get('Message')})"


def _is_about_feature(error: raised.ClientError) -> bool:
    """Whether an error may be about an unsupported call instead of credentials, load or the region."""
    code = error.response.get("Error", {}).get("Code")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status in PASSING or code in {*REFUSED, *OTHER_REGION, "NoSuchBucket", "RequestTimeout"}:
        return False
    return status == 501 or 400 <= status < 500


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
    def _content(self) -> Any:
        return self._connect(CONTENT)

    @contextmanager
    def _failures(self, uri: str) -> Iterator[None]:
        """Raise errors of boto3 as RunFailure that names `uri` and the endpoint."""
        try:
            yield
        except raised.ClientError as error:
            raise _refusal(uri, error, self.endpoint) from error
        except raised.SSLError as error:
            raise RunFailure(
                FailureClass.STORAGE_TLS, f"{uri}: the certificate of {self.endpoint} is not trusted: {error}"
            ) from error
        except (raised.NoCredentialsError, raised.PartialCredentialsError, raised.CredentialRetrievalError) as error:
            hint = "name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in spec.storage.credentialsSecret or in store.credentialsSecret of the chart's values, or give the ServiceAccount an identity at the store"
            raise RunFailure(
                FailureClass.STORAGE_403, f"{uri} at {self.endpoint}: no credentials: {error}", hint
            ) from error
        except raised.ParamValidationError as error:
            raise RunFailure(FailureClass.BAD_SPEC, f"{uri}: {error}", "write s3://bucket/prefix") from error
        except raised.EndpointProviderError as error:
            raise RunFailure(FailureClass.BAD_SPEC, f"{uri}: {error}", ENDPOINT) from error
        except raised.BotoCoreError as error:
            if type(error.kwargs.get("error")) in UNSENDABLE:
                message = f"{uri} at {self.endpoint}: the credentials or the region contain a character that no HTTP header can carry"
                raise RunFailure(
                    FailureClass.STORAGE_403, message, "write them again, on one line and without quotes"
                ) from None
            raise RunFailure(FailureClass.STORAGE_UNREACHABLE, f"{uri}: {error}") from error

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
                    raise self._without_conditions(uri, condition, _answer(error)) from error
                raise
        return True

    def _without_conditions(self, uri: str, condition: dict[str, str], answer: str) -> RunFailure:
        header = "If-None-Match: *" if condition == ONLY_IF_ABSENT else "If-Match"
        return _unsupported(self.endpoint, "conditional writes", f"PUT {uri} with {header}", answer)

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
            if not isinstance(error, raised.ClientError) or not _is_about_feature(error):
                raise
            answer = _answer(error)
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
                if _is_about_feature(error):
                    tried = f"{error.operation_name} {uri}"
                    raise _unsupported(self.endpoint, "multipart uploads", tried, _answer(error)) from error
                raise

    def fingerprint(self, uri: str, entry: Entry) -> str:
        return f"{entry.etag.strip(chr(34))}/{entry.size_bytes}"

    def upload(self, path: Path, uri: str) -> None:
        bucket, key = split(uri)
        with disk_failures(path), path.open("rb") as file, self._failures(uri):
            self._content.upload_fileobj(file, bucket, key, Config=TRANSFER)

    def delete(self, uri: str) -> None:
        bucket, key = split(uri)
        with self._failures(uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    def download(self, uri: str, path: Path, entry: Entry) -> None:
        """Download in parts, some at a time. PATH.incomplete-parts records the version of the object and the parts on disk."""
        partial, done = path.with_name(path.name + INCOMPLETE), path.with_name(path.name + INCOMPLETE + "-parts")
        with disk_failures(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            missing = _missing_parts(partial, done, entry)
            with partial.open("r+b") as file, done.open("ab", buffering=0) as journal:

                def fetch_part(part: int) -> None:
                    self._fetch_part(uri, entry, part, file.fileno())
                    journal.write(b"%d\n" % part)

                pool = ThreadPoolExecutor(PARTS_AT_ONCE)
                try:
                    for future in [pool.submit(fetch_part, part) for part in missing]:
                        future.result()
                finally:
                    pool.shutdown(cancel_futures=True)
            partial.replace(path)
            done.unlink()

    def _fetch_part(self, uri: str, entry: Entry, part: int, descriptor: int) -> None:
        bucket, key = split(uri)
        first = part * PART_BYTES
        last = min(first + PART_BYTES, entry.size_bytes) - 1
        for trial in range(1, PART_TRIES + 1):
            with self._failures(uri):
                answer = self._content.get_object(
                    Bucket=bucket, Key=key, Range=f"bytes={first}-{last}", IfMatch=entry.etag
                )
            try:
                offset = first
                for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                    offset += os.pwrite(descriptor, chunk, offset)
                if offset == last + 1:
                    return
                reason = f"the answer ended at byte {offset} of {entry.size_bytes}"
            except raised.BotoCoreError as error:
                reason = str(error)
            log.warning("%s: %s (try %d of %d)", uri, reason, trial, PART_TRIES)
            time.sleep(trial)
        raise RunFailure(FailureClass.STORAGE_UNREACHABLE, f"{uri} at {self.endpoint}: {reason}")


def _missing_parts(partial: Path, done: Path, entry: Entry) -> list[int]:
    """Return the parts still to download; discard parts of another version of the object."""
    parts = range(-(-entry.size_bytes // PART_BYTES))
    title = f"{entry.etag} {entry.size_bytes}"
    # a last line without a line break is incomplete
    lines = done.read_text().split("\n")[:-1] if done.is_file() and partial.is_file() else []
    if lines and lines[0] == title:
        return sorted(set(parts) - {int(line) for line in lines[1:] if line.isdigit()})
    with partial.open("wb") as file:
        file.truncate(entry.size_bytes)
    done.write_text(title + "\n")
    return list(parts)
