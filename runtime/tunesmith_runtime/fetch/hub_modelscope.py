"""A repository on a server that speaks the API of ModelScope, by modelscope_hub.

The hub names no commit of a branch. Each file is therefore checked against the sha256 of the listing, and the listing is
read again if a file has changed since.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from modelscope_hub import HubApi, errors

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.hub_errors import first_line, no_hub, unreachable
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

BRANCH = "master"
BLOCK_BYTES = 64 << 10
DENIED = {
    errors.AuthenticationError: "correct MODELSCOPE_API_TOKEN in the Secret that hub.tokenSecret of the chart's values names",
    errors.PermissionDeniedError: "ask its owner for access on its page, and put a token of that account as "
    "MODELSCOPE_API_TOKEN into the Secret that hub.tokenSecret of the chart's values names in this namespace",
}


class ModelScope:
    """One repository; see HubServer. `endpoint`: None for the server that the environment names, usually the hub's own."""

    def __init__(
        self, uri: str, name: str, revision: str | None, endpoint: str | None, kind: RepositoryKind = MODEL
    ) -> None:
        self._api = HubApi(endpoint=endpoint)
        self._name, self._revision, self._kind = name, revision or BRANCH, kind
        self.server = str(self._api.legacy.endpoint)
        self._where = f"{kind.noun} {uri}: {self.server}"

    def list_files(self) -> Listing:
        with self._failures():
            found = self._api.list_repo_files(self._name, self._kind.name, revision=self._revision)
        files = (HubFile(each.path, each.size, _digest(each.sha256)) for each in found if not each.is_dir)
        return Listing(self._revision, tuple(files))

    def download(self, file: HubFile, revision: str, directory: Path) -> None:
        with self._failures(file.path):
            self._api.download_file(
                self._name,
                self._kind.name,
                file.path,
                revision=revision,
                local_dir=directory,
                expected_sha256=file.digest.hex if file.digest else None,
                file_size=file.size_bytes,
            )

    def read_range(self, file: HubFile, revision: str, start: int, length: int) -> bytes:
        asked = range_header(start, length)
        with (
            self._failures(file.path),
            self._api.legacy.download_stream(self._name, self._kind.name, file.path, revision, asked) as answer,
        ):
            return read_part(answer.iter_content(BLOCK_BYTES), answer.status_code, start, length)

    @contextmanager
    def _failures(self, path: str | None = None) -> Iterator[None]:
        where = f"{self._where}: {path}" if path else self._where
        try:
            yield
        except errors.NotExistError as error:
            if path:
                message = f"{where}: 404: the hub lists this file and does not have it"
                raise RunFailure(FailureClass.HUB_CORRUPT, message) from error
            hint = (
                f"check org, name and @revision in {self._kind.field}; a private {self._kind.noun} needs MODELSCOPE_API_TOKEN in the "
                "Secret that hub.tokenSecret of the chart's values names"
            )
            raise RunFailure(self._kind.missing, f"{where}: {first_line(error)}", hint) from error
        except (errors.AuthenticationError, errors.PermissionDeniedError) as error:
            hint = next(hint for class_, hint in DENIED.items() if isinstance(error, class_))
            raise RunFailure(FailureClass.HUB_FORBIDDEN, f"{where}: {first_line(error)}", hint) from error
        except errors.RateLimitError as error:
            message = f"{where}: 429 Too Many Requests"
            if path:  # the client has waited several times already
                raise RunFailure(FailureClass.HUB_RATE_LIMITED, message) from error
            raise RateLimited(message, error.retry_after) from error
        except errors.FileIntegrityError as error:
            raise RunFailure(FailureClass.HUB_CORRUPT, f"{where}: {first_line(error)}") from error
        except requests.JSONDecodeError as error:
            raise no_hub(where, error) from error
        except (errors.HubError, requests.RequestException, OSError) as error:
            raise unreachable(self._kind, where, error) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise no_hub(where, error) from error


def _digest(sha256: str | None) -> Digest | None:
    return Digest("sha256", sha256.lower()) if sha256 else None
