"""What a job names, as far as it can be read from this machine: local files, object storage, the catalogue, a model's hub."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith_api.base import listed
from tunesmith_api.catalogue import builtin
from tunesmith_api.catalogue.entries import Entry
from tunesmith_api.catalogue.nearest import nearest
from tunesmith_api.datasets import Dataset, EvalDataset
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import Store
from tunesmith_cli import hubfiles

if TYPE_CHECKING:
    from tunesmith_runtime.data.encode import Encoder
    from tunesmith_runtime.errors import RunFailure
    from tunesmith_runtime.estimate.architecture import Architecture
    from tunesmith_runtime.estimate.workload import Workload
    from tunesmith_runtime.storage import Storage

READABLE = ("file", "s3")
"""Schemes of URIs of models that are read from this machine, beside those of hubs."""
READABLE_ROWS = (*READABLE, *hubfiles.HUBS, "https")
"""Schemes of URIs of rows that are read from this machine."""
ASSUMED_ROWS = 1000
"""Rows of a data set that is not read, where neither the catalogue nor the spec has their number."""

OF_THIS_MACHINE = ("Storage", "Hub")
"""Failure classes that begin so are about this machine's access, not about the job."""
GIVE_MODEL = "give a folder with config.json by --model"


class NotKnown(Exception):
    """Something that cannot be read from here. The message names it, the cause and what to do."""


def is_of_this_machine(failure: RunFailure) -> bool:
    """Return whether a failure is about the access of this machine to a storage, a hub or a web server."""
    return str(failure.failure).startswith(OF_THIS_MACHINE)


def cause_of(failure: RunFailure) -> str:
    """Return what prevented a read. The hints of failures are for pods, so that of the storage is about this shell."""
    variables = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and AWS_REGION"
    is_storage = str(failure.failure).startswith("Storage")
    return f"{failure.message}; check {variables} in this shell" if is_storage else failure.message


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
    what = "a name that is not built in" if model.name else "a resource"
    raise NotKnown(f"spec.model is {what}, so only the cluster knows the model: {GIVE_MODEL}")


def names_not_builtin(spec: FineTuneJobSpec) -> Iterator[str]:
    """Yield a sentence for each name of a job that the built-in catalogue does not have."""
    held_out = (spec.validation.datasets if spec.validation else None) or []
    named: list[tuple[str, str | None, Mapping[str, Entry]]] = [("spec.model.name", spec.model.name, builtin.models())]
    named += [(f"spec.datasets[{at}].name", each.name, builtin.datasets()) for at, each in enumerate(spec.datasets)]
    named += [
        (f"spec.validation.datasets[{at}].name", each.name, builtin.datasets()) for at, each in enumerate(held_out)
    ]
    yield from (_not_builtin(field, name, known) for field, name, known in named if name and name not in known)


def _not_builtin(field: str, name: str, known: Mapping[str, Entry]) -> str:
    return (
        f"{field} {name} is not in the built-in catalogue, so only the cluster can look it up: "
        f"unless it is in a catalogue of your own, write {listed(nearest(name, known))}"
    )


def _readable_model(spec: FineTuneJobSpec, given: Path | None) -> tuple[str, bool]:
    """Return the URI of a model, and whether it is on a hub. Raises NotKnown where it cannot be read from this machine."""
    uri = given.resolve().as_uri() if given else model_uri(spec)
    scheme = uri.partition("://")[0]
    if scheme not in READABLE and scheme not in hubfiles.HUBS:
        raise NotKnown(f"model {uri}: {scheme}:// is not read from here; {GIVE_MODEL}")
    return uri, scheme in hubfiles.HUBS


@contextmanager
def _faults_of(uri: str) -> Iterator[None]:
    """Raise NotKnown for whatever prevents that the model at `uri` is read."""
    from tunesmith_runtime.errors import RunFailure

    try:
        yield
    except ImportError as error:
        raise NotKnown(f"model {uri}: {missing_package(error)}") from error
    except RunFailure as failure:
        raise NotKnown(f"model {uri}: {cause_of(failure)}; {GIVE_MODEL}") from failure
    except (hubfiles.NotRead, OSError, ValueError) as error:
        raise NotKnown(f"model {uri}: {error}; {GIVE_MODEL}") from error


def find_architecture(spec: FineTuneJobSpec, given: Path | None, scratch: Path) -> tuple[str, Architecture]:
    """Return the URI of the folder with a model's small files, and its sizes. Raises NotKnown."""
    uri, is_on_hub = _readable_model(spec, given)
    with _faults_of(uri):
        if is_on_hub:  # no headers of weights are read, so that numpy is not needed
            from tunesmith_runtime.estimate.architecture import from_config
            from tunesmith_runtime.modelcheck.config import parse_config

            folder = scratch / "hub"
            hubfiles.download(uri, folder)
            return folder.as_uri(), from_config(parse_config(uri, (folder / hubfiles.CONFIG).read_bytes()))
        from tunesmith_runtime.fetch.model_files import StoredFiles
        from tunesmith_runtime.fetch.model_sizes import read_architecture

        return uri, read_architecture(StoredFiles(storage_of(spec), uri))


def find_encoder(spec: FineTuneJobSpec, given: Path | None, folder: Path, template: str | None = None) -> Encoder:
    """Return the encoder of a job, by the small files of its model, which are left in `folder`. Raises NotKnown.

    `template`: a chat template, instead of that of the job or the model.
    """
    if spec.training.chat_template and template is None:
        raise NotKnown(
            "training.chatTemplate is in a ConfigMap, which is not read from here: give its text by --chat-template"
        )
    uri, is_on_hub = _readable_model(spec, given)
    with _faults_of(uri):
        from tunesmith_runtime.fetch.model_files import StoredFiles
        from tunesmith_runtime.fetch.row_count import light_encoder
        from tunesmith_runtime.fetch.small_files import download_small_files

        if is_on_hub:
            hubfiles.download(uri, folder)
        else:
            download_small_files(StoredFiles(storage_of(spec), uri), folder)
        return light_encoder(folder, spec, template)


def count_rows(spec: FineTuneJobSpec, model: str, scratch: Path) -> tuple[Workload, int]:
    """Return the rows of a job, counted by the tokenizer in the folder `model`, and the bytes of their files. Raises NotKnown."""
    spec = spec.model_copy(update={"decontaminate": None})  # the rows that are dropped are assumed to be few
    try:
        spec = with_builtin_data(spec)
    except ImportError as error:
        raise NotKnown(missing_package(error)) from error
    for dataset in (*spec.datasets, *(spec.validation.separate if spec.validation else [])):
        check_readable(dataset)
    try:
        from tunesmith_cli.remote_rows import find_rows
        from tunesmith_runtime.errors import RunFailure
        from tunesmith_runtime.fetch.data import row_sources
        from tunesmith_runtime.fetch.model_files import StoredFiles
        from tunesmith_runtime.fetch.row_count import read_rows
        from tunesmith_runtime.workdir import Work
    except ImportError as error:
        raise NotKnown(missing_package(error)) from error
    storage = storage_of(spec)
    sources = [source for _, source in row_sources(spec)]
    try:
        data = {source: find_rows(storage, source) for source in sources}
        workload, _ = read_rows(spec, Work(scratch / "work"), StoredFiles(storage, model), storage, data)
    except ImportError as error:
        raise NotKnown(missing_package(error)) from error
    except RunFailure as failure:
        raise NotKnown(cause_of(failure)) from failure
    return workload, sum(entry.size_bytes for each in data.values() for _, entry in each.rows())


def check_readable(dataset: Dataset | EvalDataset) -> None:
    """Raise NotKnown for a data set whose rows are not read from this machine."""
    scheme = dataset.source.partition("://")[0]
    if dataset.name is not None:
        raise NotKnown(f"{dataset.name} is a name, which the cluster looks up")
    if scheme not in READABLE_ROWS:
        raise NotKnown(f"{dataset.source}: {scheme}:// is not read from here")


def with_builtin_data(spec: FineTuneJobSpec) -> FineTuneJobSpec:
    """Return a job with the data sets of the built-in catalogue in the place of their names. Other names stay."""
    from tunesmith_runtime.catalogue import data_of, eval_data_of

    known = builtin.datasets()

    def found(dataset: Dataset) -> Dataset:
        entry = known.get(dataset.name or "")
        return data_of(dataset, entry, entry.uris()[0]) if entry else dataset

    def questions(dataset: EvalDataset) -> EvalDataset:
        entry = known.get(dataset.name or "")
        return eval_data_of(dataset, entry, entry.uris()[0]) if entry else dataset

    validation = spec.validation
    if validation and validation.datasets:
        validation = validation.model_copy(update={"datasets": [found(each) for each in validation.datasets]})
    decontaminate = [questions(each) for each in spec.decontaminate] if spec.decontaminate else spec.decontaminate
    datasets = [found(each) for each in spec.datasets]
    return spec.model_copy(update={"datasets": datasets, "validation": validation, "decontaminate": decontaminate})


def assumed_rows(spec: FineTuneJobSpec) -> int:
    """Return the rows of all data sets by the built-in catalogue and maxRows, and ASSUMED_ROWS for each other one."""
    return sum(_assumed_rows(each) for each in spec.datasets)


def _assumed_rows(dataset: Dataset) -> int:
    entry = builtin.datasets().get(dataset.name or "")
    found = entry.rows if entry else None
    return min(found or dataset.max_rows or ASSUMED_ROWS, dataset.max_rows or found or ASSUMED_ROWS)


def missing_package(error: ImportError) -> str:
    """Return the sentence about a package of the extra `rows`, with the commands that install it."""
    return (
        f"the package {error.name} is not installed: "
        "in a clone of the repository, run uv tool install '.[rows]' or pip install '.[rows]'"
    )
