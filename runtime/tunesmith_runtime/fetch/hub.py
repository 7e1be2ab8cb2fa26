"""Models from a hub: Hugging Face (hf://org/name@revision) and ModelScope (ms://org/name@revision), by their own clients.

Only safetensors, JSON and tokenizer files are downloaded; the model's Python code only if the resource trusts it. All files
belong to the same version: a branch is resolved to a commit first, or each file is checked against the sha256 in the listing.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_runtime import credentials
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.names import GGUF, SAFE, check_names
from tunesmith_runtime.modelcheck.config import CONFIG

log = logging.getLogger(__name__)

WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
CODE = ["*.py"]
UNWANTED = ["*/*", "consolidated*"]
"""Subfolders hold the same weights in other formats; so does Mistral's consolidated file."""


REDIRECTIONS = {
    "hf": ("HF_ENDPOINT", "HUGGINGFACE_CO_STAGING"),
    "ms": ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "MODELSCOPE_PREFER_AI_SITE"),
}
"""Environment variables that redirect the hubs' clients to another server."""


def redirection(uri: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables that redirect the client of a hub URI to a server other than the hub's; usually empty."""
    return {name: value for name in REDIRECTIONS[parse(uri)[0]] if (value := environment.get(name))}


def parse(uri: str) -> tuple[str, str, str | None]:
    """Scheme, org/name, and revision of a hub URI."""
    scheme, _, rest = uri.partition("://")
    name, _, revision = rest.partition("@")
    return scheme, name, revision or None


def download_snapshot(
    uri: str, directory: Path, trust_remote_code: bool, adapter: bool, check_config: Callable[[Path], None]
) -> None:
    """Download the model (or adapter) at a hub URI to a local folder: its safetensors, or its only GGUF file if it has none.

    `check_config` is called when config.json is downloaded, before the weights are. Raises RunFailure (ModelNotFound,
    BadModel, UnsafeWeights, HubUnreachable), and any error of `check_config`.
    """
    scheme, name, revision = parse(uri)
    credentials.trim()
    credentials.check(credentials.HUBS, FailureClass.MODEL_NOT_FOUND)

    def patterns(names: list[str]) -> list[str]:
        check_names(uri, names, adapter)
        weights = WANTED if any(each.endswith(SAFE) for each in names) else [f"*{GGUF}"]
        return weights + (CODE if trust_remote_code else [])

    {"hf": _hugging_face, "ms": _model_scope}[scheme](uri, name, revision, directory, patterns, check_config)
    for leftover in directory.glob(".*"):  # the clients keep their state in hidden files
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()


def _not_found(uri: str, error: Exception, hint: str) -> RunFailure:
    return RunFailure(FailureClass.MODEL_NOT_FOUND, f"model {uri}: {str(error).splitlines()[0]}", hint)


def _unreachable(uri: str, error: Exception) -> RunFailure:
    return RunFailure(
        FailureClass.HUB_UNREACHABLE, f"model {uri}: {type(error).__name__}: {str(error).splitlines()[0]}"
    )


@contextmanager
def _hugging_face_failures(uri: str) -> Iterator[None]:
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise _not_found(uri, error, "accept the model's licence on the hub and give the pod HF_TOKEN") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise _not_found(uri, error, "check org, name and revision; a private model needs HF_TOKEN") from error
    except (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        httpx.HTTPError,
        OSError,
    ) as error:
        raise _unreachable(uri, error) from error


def _hugging_face(
    uri: str,
    name: str,
    revision: str | None,
    directory: Path,
    patterns: Callable[[list[str]], list[str]],
    check_config: Callable[[Path], None],
) -> None:
    from huggingface_hub import HfApi

    with _hugging_face_failures(uri):
        api = HfApi()
        info = api.model_info(name, revision=revision, timeout=20)
        wanted = patterns([file.rfilename for file in info.siblings or []])
        log.info("%s is commit %s", uri, info.sha)
        for allowed in ([CONFIG], wanted):
            api.snapshot_download(
                name, revision=info.sha, local_dir=directory, allow_patterns=allowed, ignore_patterns=UNWANTED
            )
            check_config(directory)


def _model_scope(
    uri: str,
    name: str,
    revision: str | None,
    directory: Path,
    patterns: Callable[[list[str]], list[str]],
    check_config: Callable[[Path], None],
) -> None:
    from modelscope_hub import HubApi, errors

    try:
        api = HubApi()
        files = [file for file in api.list_repo_files(name, "model", revision=revision) if not file.is_dir]
        wanted = patterns([file.path for file in files])
        listed = [{"Path": file.path, "Size": file.size, "Sha256": file.sha256, "Type": "blob"} for file in files]
        for allowed in ([CONFIG], wanted):
            api.download_repo(
                name,
                "model",
                revision=revision,
                local_dir=directory,
                allow_patterns=allowed,
                ignore_patterns=UNWANTED,
                file_list=listed,
            )
            check_config(directory)
    except errors.NotExistError as error:
        raise _not_found(uri, error, "check org, name and revision") from error
    except (errors.AuthenticationError, errors.PermissionDeniedError) as error:
        raise _not_found(uri, error, "a private model needs MODELSCOPE_API_TOKEN") from error
    except (errors.HubError, OSError) as error:
        raise _unreachable(uri, error) from error
