"""The small files of a model on a hub: config.json, the tokenizer and the chat template, but no weights."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import quote

from tunesmith_runtime.data.tokenizer_file import FILES as TOKENIZER_FILES

CONFIG = "config.json"
FORBIDDEN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
SECONDS = 20
"""Time that a server may take to answer."""


@dataclass(frozen=True)
class Hub:
    """How the files of a hub's models are addressed."""

    endpoint_variable: str
    endpoint: str
    token_variable: str
    path: str
    revision: str
    """Default revision."""


HUBS = {
    "hf": Hub("HF_ENDPOINT", "https://huggingface.co", "HF_TOKEN", "{name}/resolve/{revision}/{file}", "main"),
    "ms": Hub(
        "MODELSCOPE_ENDPOINT",
        "https://www.modelscope.cn",
        "MODELSCOPE_API_TOKEN",
        "api/v1/models/{name}/repo?Revision={revision}&FilePath={file}",
        "master",
    ),
}
"""Scheme of a URI -> its hub."""


def endpoint_of(hub: Hub) -> str:
    """Return the URL of the server of a hub."""
    return (os.environ.get(hub.endpoint_variable) or hub.endpoint).rstrip("/")


class NotRead(Exception):
    """A file cannot be downloaded. The message has its URL and the cause."""


def download(uri: str, folder: Path) -> None:
    """Download the small files of the model at hf://… or ms://… into `folder`.

    Raises NotRead for a file that cannot be read, unless it is absent and is not config.json.
    """
    scheme, _, rest = uri.partition("://")
    hub = HUBS[scheme]
    name, _, revision = rest.partition("@")
    folder.mkdir(parents=True, exist_ok=True)
    for file in (CONFIG, *TOKENIZER_FILES):
        path = hub.path.format(name=name, revision=quote(revision or hub.revision, safe=""), file=file)
        url = f"{endpoint_of(hub)}/{path}"
        try:
            save(url, folder / file, os.environ.get(hub.token_variable))
        except (OSError, HTTPException, ValueError) as error:
            if file == CONFIG or not _is_absent(error):
                raise NotRead(f"{url}: {cause_of(error, hub)}") from error


def _is_absent(error: Exception) -> bool:
    return isinstance(error, urllib.error.HTTPError) and error.code == HTTPStatus.NOT_FOUND


def cause_of(error: Exception, hub: Hub | None = None) -> str:
    """Return why a file was not read, with the fix where the hub refuses access or its endpoint is no URL."""
    if hub and isinstance(error, urllib.error.HTTPError) and error.code in FORBIDDEN:
        return f"{error}: set {hub.token_variable} to a token that may read the repository"
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return f"{error}: set {hub.endpoint_variable} to a URL" if hub and isinstance(error, ValueError) else str(error)


def open_url(url: str, token: str | None = None, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    """Return the answer of a server. Raises OSError, HTTPException and ValueError."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", **(headers or {})})
    if token:
        # A hub redirects to the servers of its CDN, which must not get the token.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    response: HTTPResponse = urllib.request.urlopen(request, timeout=SECONDS)
    return response


def save(url: str, path: Path, token: str | None = None) -> None:
    """Download a URL to `path`. Raises OSError, HTTPException and ValueError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = path.with_name(f"{path.name}.incomplete")
    with open_url(url, token) as response, incomplete.open("wb") as target:
        shutil.copyfileobj(response, target)
        size = response.headers["Content-Length"]
        if size and target.tell() != int(size):
            raise OSError(f"the connection ended after {target.tell()} of {size} bytes")
    incomplete.replace(path)
