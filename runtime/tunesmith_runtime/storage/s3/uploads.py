"""Upload of a file: one request, or parts several at a time. An interrupted upload of the same content is continued."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import botocore.exceptions as raised

from tunesmith_runtime.storage.files import disk_failures
from tunesmith_runtime.storage.parts import Part, PartBody, split_file
from tunesmith_runtime.storage.s3.connection import STREAMS_PER_FILE, Connection
from tunesmith_runtime.storage.s3.failures import split

log = logging.getLogger(__name__)

PART_BYTES = 32 << 20
MOST_PARTS = 9_000
"""S3 allows 10,000 parts: a larger file has larger parts."""
SINGLE_BYTES = 2 * PART_BYTES
"""Files up to this size are uploaded by one request."""
UPLOAD_TRIES = 3
"""Tries of an upload that another pod completes or aborts at the same time."""

Uploaded = dict[int, dict[str, Any]]
"""Parts of an unfinished upload by their number, which counts from 1, as `list_parts` returns them."""


def upload(connection: Connection, path: Path, uri: str, is_addressed: bool) -> None:
    """Upload the file `path` to `uri` atomically.

    `is_addressed`: `uri` names the content, so every upload to it has the same bytes. Then parts that an interrupted upload
    has left are not sent again, and a failed upload leaves its parts for the next one. Raises RunFailure.
    """
    bucket, key = split(uri)
    target = {"Bucket": bucket, "Key": key}
    with disk_failures(path), path.open("rb", buffering=0) as file, connection.failures(uri):
        size_bytes = path.stat().st_size
        if size_bytes <= SINGLE_BYTES:
            body = PartBody(file.fileno(), Part(0, 0, size_bytes))
            connection.client.put_object(**target, Body=body if size_bytes else b"")
            return
        parts = split_file(size_bytes, max(PART_BYTES, -(-size_bytes // MOST_PARTS)))
        for trial in range(1, UPLOAD_TRIES + 1):
            try:
                _upload_parts(connection.client, target, file.fileno(), parts, is_addressed)
                break
            except raised.ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchUpload":
                    raise
                if is_addressed and _size_of(connection.client, target) == size_bytes:
                    break  # another pod has completed the same content
                if trial == UPLOAD_TRIES:
                    raise
                log.warning("%s: the upload was aborted by another client; starting again", uri)


def _upload_parts(client: Any, target: dict[str, str], descriptor: int, parts: list[Part], is_addressed: bool) -> None:
    upload_id, present = _unfinished(client, target, parts) if is_addressed else (None, {})
    if upload_id is None:
        upload_id = client.create_multipart_upload(**target)["UploadId"]
    upload = {**target, "UploadId": upload_id}

    def send(part: Part) -> dict[str, Any]:
        number = part.number + 1
        if number in present:
            return {"PartNumber": number, "ETag": present[number]["ETag"]}
        sent = client.upload_part(**upload, PartNumber=number, Body=PartBody(descriptor, part))
        return {"PartNumber": number, "ETag": sent["ETag"]}

    pool = ThreadPoolExecutor(STREAMS_PER_FILE)
    try:
        sent = [future.result() for future in [pool.submit(send, part) for part in parts]]
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent})
    except Exception:
        pool.shutdown(cancel_futures=True)  # no part may follow the abort
        if not is_addressed:
            with suppress(raised.ClientError, raised.BotoCoreError):  # the first failure is more specific
                client.abort_multipart_upload(**upload)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _unfinished(client: Any, target: dict[str, str], parts: list[Part]) -> tuple[str | None, Uploaded]:
    """Return the unfinished upload of `target` that has most of `parts`, and the parts that it has. (None, {}) if there is none.

    An upload with parts of other sizes, as of another release, is not continued. Stores and rights without these two
    listings are no failure: then everything is sent.
    """
    best: tuple[str | None, Uploaded] = (None, {})
    sizes = {part.number + 1: part.size_bytes for part in parts}
    try:
        for key, upload_id in _uploads(client, target["Bucket"], target["Key"]):
            if key != target["Key"]:
                continue
            pages = client.get_paginator("list_parts").paginate(**target, UploadId=upload_id)
            found: Uploaded = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
            is_same_split = all(sizes.get(number) == part["Size"] for number, part in found.items())
            if is_same_split and (best[0] is None or len(found) > len(best[1])):
                best = upload_id, found
    except raised.ClientError as error:
        log.debug("cannot list the unfinished uploads of %s: %s", target["Key"], error)
    return best


def _uploads(client: Any, bucket: str, prefix: str) -> list[tuple[str, str]]:
    """Return key and id of the unfinished uploads to keys that begin with `prefix`."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    return [(item["Key"], item["UploadId"]) for page in pages for item in page.get("Uploads", ())]


def _size_of(client: Any, target: dict[str, str]) -> int | None:
    try:
        return int(client.head_object(**target)["ContentLength"])
    except raised.ClientError:
        return None


def abort_uploads(client: Any, uri: str) -> None:
    """Abort the unfinished uploads below the folder `uri`: their parts take space that no listing of objects shows.

    Stores and rights that refuse this are no failure.
    """
    bucket, key = split(uri)
    try:
        for found_key, upload_id in _uploads(client, bucket, f"{key}/" if key else ""):
            client.abort_multipart_upload(Bucket=bucket, Key=found_key, UploadId=upload_id)
    except raised.ClientError as error:
        log.debug("cannot abort the unfinished uploads below %s: %s", uri, error)
