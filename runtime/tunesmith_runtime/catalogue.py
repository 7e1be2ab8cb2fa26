"""Names of models and data sets: looked up once in a pod, before anything is fetched.

A name is looked up in the namespace's ConfigMap, then in the store's folder `catalogue/`, then in the built-in catalogue. The
verbs prepare and fetch look it up; fetch leaves the result in the work directory for the containers after it, so that an entry
that changes meanwhile does not change a pod at work. The pods of a service's version all use what its first pod has looked up
(see version_names.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from tunesmith_api.base import CATALOGUE_NAME, listed
from tunesmith_api.catalogue import CONFIG_MAP, DATASETS_FILE, MODELS_FILE, SCHEME, STORE_FOLDER, builtin
from tunesmith_api.catalogue.entries import HUBS, DatasetEntry, Entry
from tunesmith_api.catalogue.nearest import nearest
from tunesmith_api.catalogue.own import BadEntry, dataset_entry, model_entry, read_entries
from tunesmith_api.compatibility import refusals
from tunesmith_api.datasets import Dataset, EvalDataset, RowFormat, RowTemplate, ValidationDataset
from tunesmith_api.evaljob import PICTURE_TYPES, BenchmarkDataset, BenchmarkType
from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_api.refusal import combine
from tunesmith_api.run import CATALOGUE_DIRECTORY, Hub, ModelRole, ResolvedModel, RunSpec, Verb
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.storage import Storage, join, open_storage
from tunesmith_runtime.version_names import record_uri, with_recorded_uris
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Entry)
T = TypeVar("T", EvalDataset, BenchmarkDataset)
TRAINING_TYPES = frozenset({BenchmarkType.QA}) | PICTURE_TYPES
"""Types of benchmarks whose rows are read as those of a training."""


@dataclass(frozen=True)
class Section(Generic[E]):
    """The models, or the data sets, of every catalogue."""

    noun: str
    file: str
    field: str
    """The field of a spec that has the name; {} is the field of the model."""
    missing: FailureClass
    parse: Callable[[str, Any], E]
    builtin: Callable[[], Mapping[str, E]]


MODELS = Section("model", MODELS_FILE, "spec.{}", FailureClass.MODEL_NOT_FOUND, model_entry, builtin.models)
FIELDS: Mapping[ModelRole, str] = {ModelRole.TEACHER: "gkd.teacher", ModelRole.REWARD: "rewards[].model"}
"""Role of a model -> the field below spec that names it, unless that is the model of the spec."""
DATASETS = Section(
    "data set", DATASETS_FILE, "spec.datasets[]", FailureClass.DATASET_NOT_FOUND, dataset_entry, builtin.datasets
)


@dataclass
class Catalogue:
    """The catalogues of a namespace, of its store, and the built-in one."""

    storage: Storage
    store_uri: str
    order: Sequence[str] = tuple(HUBS)
    """Names of the hubs, the preferred one first."""
    folder: Path = field(default_factory=lambda: Path(CATALOGUE_DIRECTORY))
    """Where the ConfigMap is mounted."""

    def find(self, section: Section[E], name: str, where: str) -> E:
        """Return the entry of `name`, which the spec has in `where` (such as spec.model).

        Raises RunFailure: ModelNotFound or DatasetNotFound with the nearest names, BadSpec for an entry at fault.
        """
        texts = self._model_files if section.file == MODELS_FILE else self._dataset_files
        names = set(section.builtin())
        for title, text in texts.items():
            with _faults_of(title):
                entries = read_entries(text or "")
            if name in entries:
                with _faults_of(title, f"{name}: "):
                    return section.parse(name, entries[name])
            names |= {each for each in entries if CATALOGUE_NAME.admits(each)}
        if name in section.builtin():
            return section.builtin()[name]
        raise self._unknown(section, name, names, where, texts)

    def uri(self, section: Section[E], entry: E, where: str) -> str:
        """Return the URI of an entry on the first hub that has it. Raises RunFailure if none of the hubs in use has it."""
        if uris := entry.uris(self.order):
            return uris[0]
        hubs = " and ".join(self.order)
        message = f"{section.noun} {entry.name!r} is on {' and '.join(entry.hubs)} only; the hubs in use are {hubs}"
        raise RunFailure(section.missing, message, f"set {where}.uri instead of {where}.name")

    def _unknown(
        self, section: Section[E], name: str, names: set[str], where: str, texts: Mapping[str, str | None]
    ) -> RunFailure:
        places = [f"{title}{' (absent)' if text is None else ''}" for title, text in texts.items()]
        message = (
            f"{section.noun} {name!r} is in no catalogue: looked up in {', '.join(places)} and the built-in catalogue"
        )
        close = listed(nearest(name, names))
        return RunFailure(section.missing, message, f"write {close} in {where}.name, or set {where}.uri instead")

    @cached_property
    def _model_files(self) -> dict[str, str | None]:
        return dict(self._read(MODELS_FILE))

    @cached_property
    def _dataset_files(self) -> dict[str, str | None]:
        return dict(self._read(DATASETS_FILE))

    def _read(self, file: str) -> Iterator[tuple[str, str | None]]:
        """Yield the title and the text of a file in each place; None where it is absent or may not be read."""
        mounted = self.folder / file
        title = f"ConfigMap {CONFIG_MAP} key {file}"
        yield title, _decode(title, mounted.read_bytes() if mounted.is_file() else None)
        uri = join(self.store_uri, STORE_FOLDER, file)
        try:
            yield uri, _decode(uri, self.storage.read_bytes(uri))
        except NotFound:
            yield uri, None
        except RunFailure as failure:
            # S3 refuses access to an absent object where folders may not be listed.
            if failure.failure is not FailureClass.STORAGE_403:
                raise
            log.warning("%s cannot be read, so it counts as absent: %s", uri, failure.message)
            yield uri, None


@contextmanager
def _faults_of(title: str, entry: str = "") -> Iterator[None]:
    """Report an entry of the file `title` that cannot be used as BadSpec."""
    try:
        yield
    except BadEntry as error:
        message = f"{title}: {entry}{error.message}"
        raise RunFailure(FailureClass.BAD_SPEC, message, f"{error.hint} in {title}") from error


def _decode(title: str, content: bytes | None) -> str | None:
    try:
        return None if content is None else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunFailure(FailureClass.BAD_SPEC, f"{title} is not UTF-8", f"save {title} as UTF-8") from error


def look_up(spec: RunSpec, verb: Verb, work: Work) -> RunSpec:
    """Return `spec` with a URI in the place of every name, and with what the names stand for in `looked_up`.

    Raises RunFailure (ModelNotFound, DatasetNotFound, BadSpec).
    """
    if not spec.has_names:
        return spec
    if verb not in (Verb.PREPARE, Verb.FETCH):
        return work.looked_up()
    storage = open_storage(spec.store)
    is_service = spec.kind == "InferenceService"
    found = with_recorded_uris(spec, storage) if is_service else None
    if found is None:
        found = resolve(spec, Catalogue(storage, spec.store.uri, (spec.hub or Hub()).order))
        found = found.model_copy(update={"names_record": record_uri(spec) if is_service else None})
    work.write_looked_up(found)
    return found


def resolve(spec: RunSpec, catalogue: Catalogue) -> RunSpec:
    """Return `spec` with the names replaced by what `catalogue` has for them."""
    models = {role: _named_model(model, role, spec, catalogue) for role, model in spec.models.items()}
    adapters = [
        each.model_copy(update={"model": _named_model(each.model, ModelRole.ADAPTER, spec, catalogue)})
        for each in spec.adapters
    ]
    data, looked_up = NAMED_DATA[spec.kind](spec, catalogue) if spec.kind in NAMED_DATA else (spec.spec, {})
    return spec.model_copy(update={"models": models, "adapters": adapters, "spec": data, "looked_up": looked_up})


def _named_model(model: ResolvedModel, role: ModelRole, spec: RunSpec, catalogue: Catalogue) -> ResolvedModel:
    if not model.is_named:
        return model
    field = FIELDS.get(role) or ("baseline" if spec.role == "baseline" else "model")
    where = MODELS.field.format(field)
    name = model.uri.removeprefix(SCHEME)
    uri = catalogue.uri(MODELS, catalogue.find(MODELS, name, where), where)
    _check_available(spec, f"model {name!r}", where, {"model": {"uri": uri}}, uri)
    log.info("model %s is %s", name, uri)
    return model.model_copy(update={"uri": uri})


def _data_of_tuning(spec: RunSpec, catalogue: Catalogue) -> tuple[dict[str, Any], dict[str, str]]:
    """The spec of a FineTuneJob with the named data sets replaced, and the digest of what each stands for."""
    job, digests = spec.fine_tune_job(), dict[str, str]()

    def found(datasets: Sequence[Dataset], field: str) -> list[dict[str, Any]]:
        named = [_named_dataset(each, f"{field}[{at}]", spec, catalogue, digests) for at, each in enumerate(datasets)]
        return [dataset.to_dict() for dataset in named]

    data = {**spec.spec, "datasets": found(job.datasets, "spec.datasets")}
    if job.validation and job.validation.datasets:
        data["validation"] = {"datasets": found(job.validation.datasets, "spec.validation.datasets")}
    if job.decontaminate:
        evaluations = [
            _named_eval(each, f"spec.decontaminate[{at}]", spec, catalogue, digests)
            for at, each in enumerate(job.decontaminate)
        ]
        data["decontaminate"] = [each.to_dict() for each in evaluations]
    return data, digests


def _data_of_evaluation(spec: RunSpec, catalogue: Catalogue) -> tuple[dict[str, Any], dict[str, str]]:
    """The spec of an EvalJob with the named data sets replaced, and the digest of what each stands for."""
    digests, benchmarks = dict[str, str](), list[dict[str, Any]]()
    for at, benchmark in enumerate(spec.eval_job().benchmarks):
        data = benchmark.to_dict()
        if benchmark.dataset:
            where = f"spec.benchmarks[{at}].dataset"
            data["dataset"] = _named_eval(benchmark.dataset, where, spec, catalogue, digests).to_dict()
        benchmarks.append(data)
    return {**spec.spec, "benchmarks": benchmarks}, digests


NAMED_DATA: Mapping[str, Callable[[RunSpec, Catalogue], tuple[dict[str, Any], dict[str, str]]]] = {
    "FineTuneJob": _data_of_tuning,
    "EvalJob": _data_of_evaluation,
}
"""Kind -> how its data sets are looked up."""


def _named_dataset(
    dataset: Dataset, where: str, spec: RunSpec, catalogue: Catalogue, digests: dict[str, str]
) -> Dataset:
    """The data set that the field `where` names, whose digest is added to `digests`. One with a URI is returned unchanged."""
    if dataset.name is None:
        return dataset
    entry = catalogue.find(DATASETS, dataset.name, where)
    is_validation = isinstance(dataset, ValidationDataset)
    if is_validation and entry.uri and not entry.validation_uri:
        raise RunFailure(
            FailureClass.DATASET_NOT_FOUND,
            f"data set {dataset.name!r} of the catalogue has no rows to validate on",
            "set spec.validation.fraction instead, or add val: URI to the entry of the catalogue",
        )
    place = (entry.validation_uri if is_validation else None) or catalogue.uri(DATASETS, entry, where)
    found = data_of(dataset, entry, place)
    _check_available(spec, f"data set {dataset.name!r}", where, {"datasets": [found.to_dict()]}, found.source)
    _record(found, dataset.name, where, digests)
    return found


def _named_eval(dataset: T, where: str, spec: RunSpec, catalogue: Catalogue, digests: dict[str, str]) -> T:
    """The data of an evaluation that the field `where` names, whose digest is added to `digests`; returned unchanged if it has a URI."""
    if dataset.name is None:
        return dataset
    entry = catalogue.find(DATASETS, dataset.name, where)
    found = eval_data_of(dataset, entry, entry.validation_uri or catalogue.uri(DATASETS, entry, where))
    data = {"benchmarks": [{"dataset": {"uri": found.uri}}], "decontaminate": [{"uri": found.uri}]}
    _check_available(spec, f"data set {dataset.name!r}", where, data, found.source)
    _record(found, dataset.name, where, digests)
    return found


def _record(found: Dataset | EvalDataset | BenchmarkDataset, name: str, where: str, digests: dict[str, str]) -> None:
    """Add the digest of what a name stands for, and log it."""
    digests[where] = digest(found.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    log.info("data set %s is %s", name, found.to_dict())


def eval_data_of(dataset: T, entry: DatasetEntry, uri: str) -> T:
    """Return the data of an entry at `uri` for an evaluation. The spec's settings have precedence over the entry's.

    They have no default split here: that of a hub is its split for tests. Rows that a training does not read are read as they
    are, without the columns of the entry.
    """
    settings: dict[str, Any] = {"name": None, "uri": uri, "subset": dataset.subset or entry.subset}
    if not isinstance(dataset, BenchmarkDataset) or dataset.type in TRAINING_TYPES:
        settings["columns"] = dataset.columns if dataset.columns is not None else dict(entry.columns) or None
    if isinstance(dataset, BenchmarkDataset) and dataset.type is BenchmarkType.QA and isinstance(entry.format, Mapping):
        settings["template"] = dataset.template or RowTemplate.model_validate(entry.format)
    return dataset.model_copy(update=settings)


def data_of(dataset: Dataset, entry: DatasetEntry, uri: str) -> Dataset:
    """Return the data set of an entry at `uri`. The spec's settings have precedence over the entry's.

    Validation rows have no default split here: that of a hub is its split for validation.
    """
    settings = {
        **_format(dataset, entry),
        "columns": dataset.columns if dataset.columns is not None else dict(entry.columns) or None,
        "subset": dataset.subset or entry.subset,
        "split": dataset.split or (None if isinstance(dataset, ValidationDataset) else entry.split),
    }
    return dataset.model_copy(update={**settings, "name": None, "uri": uri})


def _format(dataset: Dataset, entry: DatasetEntry) -> dict[str, Any]:
    """The row format or the template of a data set: those of the spec, else those of the entry."""
    if dataset.template or dataset.format is not RowFormat.AUTO:
        return {"format": dataset.format, "template": dataset.template}
    if entry.format is None or isinstance(entry.format, str):
        return {"format": RowFormat(entry.format or RowFormat.AUTO)}
    return {"template": RowTemplate.model_validate(entry.format)}


def _check_available(spec: RunSpec, subject: str, where: str, data: dict[str, Any], uri: str) -> None:
    """Raise RunFailure (BadSpec) where this version or this pod cannot read what a name stands for."""
    found = refusals(spec.kind, data)
    if found:
        refusal = combine(found)
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"{subject} of the catalogue: {refusal.message}",
            f"set {where}.uri to a copy of your own in place of {where}.name: {refusal.hint}",
        )
    if uri.startswith("pvc://"):
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"{subject} of the catalogue is {uri}: a pod has only the claims that its spec names",
            f"set {where}.uri: {uri} in place of {where}.name",
        )
    if uri.startswith("file://") and not spec.store.uri.startswith("file://"):
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"{subject} of the catalogue is {uri}: pods cannot read files of your machine",
            "upload it to object storage, and write its s3:// URI into the catalogue",
        )
