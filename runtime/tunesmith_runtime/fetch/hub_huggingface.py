"""A repository on a server that speaks the API of Hugging Face, by huggingface_hub.

The branch is resolved to a commit once, and every file is downloaded at that commit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
from huggingface_hub import HfApi, errors, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, parse_ratelimit_headers
from huggingface_hub.utils._http import default_client_factory, http_stream_backoff

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.hub_errors import causes, first_line, no_hub, unreachable
from tunesmith_runtime.fetch.hub_types import (
    MODEL,
    Digest,
    HubFile,
    Listing,
    RateLimited,
    RepositoryKind,
    range_header,
    read_part,
)
from tunesmith_runtime.retry_after import retry_after

LIST_SECONDS = 20.0
COMMIT = re.compile("[0-9a-f]{40}")
RESOLVED = re.compile("/resolve/([0-9a-f]{40})/")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
IS_GATED = "the repository is gated"
NEEDS_TOKEN = (
    "accept the license on the repository's page, and put a token of that account as HF_TOKEN into the Secret that hub.tokenSecret of "
    "the chart's values names in this namespace"
)
OTHER_ACCOUNT = (
    "accept the license on the repository's page with the account of HF_TOKEN and wait for its approval, or use the token of an "
    "account that has access"
)


class HuggingFace:
    """One repository; see HubServer. `endpoint`: None for the server that the environment names, usually the hub's own."""

    def __init__(
        self, uri: str, name: str, revision: str | None, endpoint: str | None, kind: RepositoryKind = MODEL
    ) -> None:
        _treat_answers()
        self._api = HfApi(endpoint=endpoint)
        self._name, self._revision, self._kind = name, revision, kind
        self.server = str(self._api.endpoint)
        self._where = f"{kind.noun} {uri}: {self.server}"

    def list_files(self) -> Listing:
        with self._failures():
            info = self._api.repo_info(
                self._name,
                repo_type=self._kind.name,
                revision=self._revision,
                timeout=LIST_SECONDS,
                files_metadata=True,
            )
        if not info.sha or not COMMIT.fullmatch(info.sha):
            raise RunFailure(FailureClass.HUB_UNREACHABLE, f"{self._where}: the answer names no commit")
        return Listing(info.sha, tuple(_file(each) for each in info.siblings or []))

    def download(self, file: HubFile, revision: str, directory: Path) -> None:
        with self._failures(file.path):
            self._api.hf_hub_download(
                self._name, file.path, repo_type=self._kind.name, revision=revision, local_dir=directory
            )

    def read_range(self, file: HubFile, revision: str, start: int, length: int) -> bytes:
        url = hf_hub_url(
            self._name, file.path, repo_type=self._kind.name, revision=revision, endpoint=self._api.endpoint
        )
        # Errors within the block are not for http_stream_backoff, which would begin the block again.
        asked = {"headers": build_hf_headers() | range_header(start, length), "timeout": LIST_SECONDS}
        with self._failures(file.path), http_stream_backoff("GET", url, retry_on_exceptions=(), **asked) as answer:
            hf_raise_for_status(answer)
            return read_part(answer.iter_raw(), answer.status_code, start, length)

    @contextmanager
    def _failures(self, path: str | None = None) -> Iterator[None]:
        where = f"{self._where}: {path}" if path else self._where
        try:
            yield
        except _TooManyRequests as error:
            raise RateLimited(f"{where}: {error}", error.seconds) from error
        except _OtherCommit as error:
            raise RunFailure(FailureClass.HUB_CORRUPT, f"{where}: {error}") from error
        except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, httpx.HTTPError, OSError) as error:
            raise _failure(self._kind, where, error, is_listed=path is not None) from error
        except errors.HFValidationError as error:
            hint = f"check org and name in {self._kind.field}"
            raise RunFailure(self._kind.missing, f"{where}: {first_line(error)}", hint) from error
        except (ValueError, KeyError, TypeError) as error:
            raise no_hub(where, error) from error


class _TooManyRequests(Exception):
    """The answer 429. The client would sleep as long as the answer asks, without any bound."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__("429 Too Many Requests")
        self.seconds = seconds


class _OtherCommit(Exception):
    """A file of another commit than was asked for, which the client would accept."""


@cache
def _treat_answers() -> None:
    """Let all requests of huggingface_hub go through `_check_answer`. Done once, as it closes the client that threads may use."""
    huggingface_hub.set_client_factory(_new_client)


def _new_client() -> httpx.Client:
    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], _check_answer]}
    return client


def _check_answer(response: httpx.Response) -> None:
    """Raise _TooManyRequests or _OtherCommit for an answer that the client must not treat itself."""
    if response.status_code == 429:
        raise _TooManyRequests(_retry_after(response))
    asked, served = RESOLVED.search(response.request.url.path), response.headers.get("X-Repo-Commit")
    if asked and served and served != asked[1]:
        raise _OtherCommit(f"the server sent commit {served[:12]} in place of {asked[1][:12]}")


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds to wait, by the header RateLimit or Retry-After; None if neither names them."""
    limits = parse_ratelimit_headers(response.headers)
    if limits is not None and limits.remaining == 0:
        return float(limits.reset_in_seconds)
    return retry_after(response.headers.get("Retry-After", ""))


def _file(sibling: Any) -> HubFile:
    if sibling.lfs is not None:
        return HubFile(sibling.rfilename, sibling.lfs.size, Digest("sha256", sibling.lfs.sha256))
    blob = Digest("git", sibling.blob_id) if COMMIT.fullmatch(sibling.blob_id or "") else None
    return HubFile(sibling.rfilename, sibling.size, blob)


def _failure(kind: RepositoryKind, where: str, error: Exception, is_listed: bool) -> RunFailure:
    """Return the failure that an error of the client means. `is_listed`: it is about a file that the hub has listed."""
    answered = next((each for each in causes(error) if isinstance(each, errors.HfHubHTTPError)), None)
    if answered is None:
        if "Consistency check failed" in str(error):
            return RunFailure(FailureClass.HUB_CORRUPT, f"{where}: {first_line(error)}")
        if isinstance(error, errors.OfflineModeIsEnabled):
            return RunFailure(FailureClass.HUB_UNREACHABLE, f"{where}: {first_line(error)}", "remove HF_HUB_OFFLINE")
        return unreachable(kind, where, error)
    status = answered.response.status_code
    has_token = any(os.environ.get(name) for name in TOKENS)
    if isinstance(answered, errors.GatedRepoError):
        which = "the token has no access" if has_token else "there is no token"
        hint = OTHER_ACCOUNT if has_token else NEEDS_TOKEN
        return RunFailure(FailureClass.HUB_FORBIDDEN, f"{where}: {status}: {IS_GATED}, and {which}", hint)
    if is_listed and status == 404:
        return RunFailure(FailureClass.HUB_CORRUPT, f"{where}: 404: the hub lists this file and does not have it")
    if isinstance(answered, errors.RevisionNotFoundError):
        message = f"{where}: {status}: there is no such revision"
        return RunFailure(kind.missing, message, f"check the @revision in {kind.field}")
    if isinstance(answered, errors.RepositoryNotFoundError):
        rest = "" if has_token else "; there is no token, so a private repository is not found either"
        return RunFailure(
            kind.missing,
            f"{where}: {status}: there is no such repository{rest}",
            f"check org and name in {kind.field}; a private {kind.noun} needs HF_TOKEN in the Secret that hub.tokenSecret of the "
            "chart's values names",
        )
    if status in (401, 403):
        return RunFailure(FailureClass.HUB_FORBIDDEN, f"{where}: {status}: {_reason(answered)}")
    if status == 404:
        return RunFailure(kind.missing, f"{where}: 404", f"check org, name and revision in {kind.field}")
    return RunFailure(FailureClass.HUB_UNREACHABLE, f"{where}: {status}: {_reason(answered)}")


def _reason(error: errors.HfHubHTTPError) -> str:
    """Return the hub's own sentence, or the reason phrase of the status."""
    return str(error.server_message or error.response.reason_phrase).splitlines()[0]
