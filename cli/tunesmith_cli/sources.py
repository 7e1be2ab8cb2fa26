"""What a job names, as far as it can be read from this machine: local files, object storage, the catalogue, a model's hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith_api.catalogue import builtin
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import Store
from tunesmith_api.training import Dataset
from tunesmith_cli import hubfiles

if TYPE_CHECKING:
    from tunesmith_runtime.data.encode import Encoder
    from tunesmith_runtime.estimate.architecture import Architecture
    from tunesmith_runtime.estimate.workload import Workload
    from tunesmith_runtime.storage import Storage

READABLE = ("file", "s3")
"""Schemes of URIs that are read from this machine."""
ASSUMED_ROWS = 1000
"""Rows of a data set that is not read, where neither the catalogue nor the spec has their number."""

GIVE_MODEL = "give a folder with config.json by --model"


class NotKnown(Exception):
    """Something that cannot be read from here. The message names it, the cause and what to do."""


def storage_of(spec: FineTuneJobSpec) -> Storage:
    """Return the storage of a job, with the AWS_* variables of this shell."""
    from tunesmith_runtime.storage import open_storage

    given = spec.storage
    endpoint = (given.endpoint if given else None) or os.environ.get("AWS_ENDPOINT_URL")
    region = (given.region if given else None) or os.environ.get("AWS_REGION") or "us-east-1"
    path_style = given.path_style if given and given.path_style is not None else bool(endpoint)
    ca_bundle = os.environ.get("AWS_CA_BUNDLE")
    return open_storage(
        Store(uri="file:///", endpoint=endpoint, region=region, path_style=path_style, ca_bundle=ca_bundle)
    )


def model_uri(spec: FineTuneJobSpec) -> str:
    """Return the URI of the model of a job: of a name, that of the built-in catalogue. Raises NotKnown."""
    model = spec.model
    if model.uri:
        return model.uri
    if entry := builtin.models().get(model.name or ""):
        return entry.uris()[0]
    what = (
        f"spec.model.name {model.name} is not in the built-in catalogue" if model.name else "spec.model is a resource"
    )
    raise NotKnown(f"{what}, so only the cluster knows the model: {GIVE_MODEL}")


def find_architecture(spec: FineTuneJobSpec, given: Path | None, scratch: Path) -> tuple[str, Architecture]:
    """Return the URI of the folder with a model's small files, and its sizes. Raises NotKnown."""
    from tunesmith_runtime.errors import RunFailure
    from tunesmith_runtime.estimate.architecture import UnknownArchitecture, from_config

    uri = given.resolve().as_uri() if given else model_uri(spec)
    scheme = uri.partition("://")[0]
    try:
        if scheme in hubfiles.HUBS:
            from tunesmith_runtime.modelcheck.config import parse_config

            folder = scratch / "hub"
            hubfiles.download(uri, folder)
            return folder.as_uri(), from_config(parse_config(uri, (folder / hubfiles.CONFIG).read_bytes()))
        if scheme in READABLE:
            from tunesmith_runtime.fetch.assessment import read_architecture

            return uri, read_architecture(storage_of(spec), uri)
    except ImportError as error:
        raise NotKnown(f"model {uri}: {missing_package(error)}") from error
    except (hubfiles.NotRead, UnknownArchitecture) as error:
        raise NotKnown(f"model {uri}: {error}; {GIVE_MODEL}") from error
    except RunFailure as failure:
        raise NotKnown(f"model {uri}: {failure.message}; {GIVE_MODEL}") from failure
    raise NotKnown(f"model {uri}: {scheme}:// is not read from here; {GIVE_MODEL}")


def find_encoder(spec: FineTuneJobSpec, given: Path | None, folder: Path) -> Encoder:
    """Return the encoder of a job, by the small files of its model, which are left in `folder`. Raises NotKnown."""
    if spec.training.chat_template:
        raise NotKnown("training.chatTemplate is in a ConfigMap, which is not read from here")
    from tunesmith_runtime.errors import RunFailure
    from tunesmith_runtime.fetch.assessment import download_small_files, light_encoder

    uri = given.resolve().as_uri() if given else model_uri(spec)
    scheme = uri.partition("://")[0]
    try:
        if scheme in hubfiles.HUBS:
            hubfiles.download(uri, folder)
        elif scheme in READABLE:
            download_small_files(storage_of(spec), uri, folder)
        else:
            raise NotKnown(f"model {uri}: {scheme}:// is not read from here; {GIVE_MODEL}")
        return light_encoder(folder, spec)
    except hubfiles.NotRead as error:
        raise NotKnown(f"model {uri}: {error}; {GIVE_MODEL}") from error
    except RunFailure as failure:
        raise NotKnown(f"model {uri}: {failure.message}; {GIVE_MODEL}") from failure
    except (OSError, ValueError) as error:
        raise NotKnown(f"model {uri}: config.json cannot be read: {error}; {GIVE_MODEL}") from error


def count_rows(spec: FineTuneJobSpec, model: str, scratch: Path) -> tuple[Workload, int]:
    """Return the rows of a job, counted by the tokenizer in the folder `model`, and the bytes of their files. Raises NotKnown."""
    held_out = spec.validation.separate if spec.validation else []
    for dataset in (*spec.datasets, *held_out):
        check_readable(dataset)
    try:
        from tunesmith_runtime.errors import RunFailure
        from tunesmith_runtime.fetch.assessment import read_rows
        from tunesmith_runtime.fetch.data import DataSource, find_data
        from tunesmith_runtime.workdir import Work
    except ImportError as error:
        raise NotKnown(missing_package(error)) from error
    storage = storage_of(spec)
    sources = [*map(DataSource.of, spec.datasets), *map(DataSource.of_validation, held_out)]
    try:
        data = find_data(storage, sources)
        workload, _ = read_rows(spec, Work(scratch / "work"), storage, model, data)
    except ImportError as error:
        raise NotKnown(missing_package(error)) from error
    except RunFailure as failure:
        raise NotKnown(failure.message) from failure
    return workload, sum(entry.size_bytes for each in data.values() for _, entry in each.rows())


def check_readable(dataset: Dataset) -> None:
    """Raise NotKnown for a data set whose rows are not read from this machine."""
    scheme = dataset.source.partition("://")[0]
    if dataset.name is not None:
        raise NotKnown(f"{dataset.name} is a name, which the cluster looks up")
    if scheme not in READABLE:
        raise NotKnown(f"{dataset.source}: {scheme}:// is not read from here")


def assumed_rows(spec: FineTuneJobSpec) -> int:
    """Return the rows of all data sets by the built-in catalogue and maxRows, and ASSUMED_ROWS for each other one."""
    return sum(_assumed_rows(each) for each in spec.datasets)


def _assumed_rows(dataset: Dataset) -> int:
    entry = builtin.datasets().get(dataset.name or "")
    found = entry.rows if entry else None
    return min(found or dataset.max_rows or ASSUMED_ROWS, dataset.max_rows or found or ASSUMED_ROWS)


def missing_package(error: ImportError) -> str:
    """Return the sentence about a package that reads rows and weights."""
    return f"the package {error.name} is not installed: install tunesmith[runtime] to read rows and weights"
