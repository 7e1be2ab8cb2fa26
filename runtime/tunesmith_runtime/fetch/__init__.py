"""The verb fetch: download model and data into the pod, or adopt the finished run.

The fingerprints of the URIs come first, as they need no download. Together with the spec hash they identify the run, and a
finished run is adopted. A model from a hub or in GGUF is imported into the store once for all resources.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob_status import Estimate
from tunesmith_api.run import ModelRole, Outcome, ProgressReport, RunReport, RunSpec, Verb
from tunesmith_api.run_spec import run_id
from tunesmith_api.status import Artifact
from tunesmith_api.tuners import Tuner
from tunesmith_runtime.cache import Cache, open_cache
from tunesmith_runtime.chat_template import template_fingerprint
from tunesmith_runtime.disk_space import check_room, extra_bytes_of, used
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.adapter_template import check_template
from tunesmith_runtime.fetch.assessment import assess
from tunesmith_runtime.fetch.checks import check_all, check_vocabularies, is_lenient
from tunesmith_runtime.fetch.data import Data, DataSource, download_benchmark, download_rows, find_data, row_sources
from tunesmith_runtime.fetch.initial import check_initial
from tunesmith_runtime.fetch.models import Model, disk_limit_of, find_adapter, find_further, find_model
from tunesmith_runtime.fetch.names import SAFE, is_wanted
from tunesmith_runtime.fetch.quantized_base import check_quantized
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rank import in_leading_pod
from tunesmith_runtime.reward_code import code_fingerprint
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.storage import Entry, Storage, join, open_storage
from tunesmith_runtime.version_names import record_uris
from tunesmith_runtime.workdir import Fetched, Work

log = logging.getLogger(__name__)

FoundData = dict[DataSource, Data]


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Fetch the model and the data of a resource of any kind."""
    progress.push(ProgressReport(stage=Verb.FETCH))
    storage, cache = open_storage(spec.store), open_cache(spec)
    accept = partial(check_quantized, spec)
    model = find_model(
        storage, spec.store.uri, spec.subject, work, is_lenient(spec), spec.hub, accept, disk_limit_of(spec)
    )
    fetched = (
        fetch_service(spec, work, storage, model, cache)
        if spec.kind == "InferenceService"
        else fetch_run(spec, work, storage, model, cache)
    )
    if spec.names_record and (recorded := record_uris(spec, storage)) is not spec:
        log.info("another pod of this version has looked up other models meanwhile; fetching those")
        work.write_looked_up(recorded)
        return run(recorded, work, progress)
    work.write_fetched(fetched)
    return RunReport(
        verb=Verb.FETCH,
        outcome=Outcome.ADOPTED if fetched.adopted else Outcome.SUCCEEDED,
        run_uri=fetched.run_uri,
        model_uri=fetched.model_uri,
        model_digest=fetched.model_digest,
        artifacts=[Artifact.model_validate(each) for each in fetched.record["artifacts"]] if fetched.record else None,
        estimate=fetched.estimate,
    )


def fetch_service(spec: RunSpec, work: Work, storage: Storage, model: Model, cache: Cache | None) -> Fetched:
    """Download the model and the adapters of an InferenceService."""
    adapters = [
        find_adapter(storage, spec.store.uri, each.model, work.adapters / each.name, spec.hub) for each in spec.adapters
    ]
    for each in (model, *adapters):
        each.download(storage, cache)
    check_all(storage, spec, model, {each.name: found for each, found in zip(spec.adapters, adapters, strict=True)})
    return Fetched(fingerprints={"model": model.fingerprint}, model_uri=model.uri, model_digest=model.digest)


def fetch_run(spec: RunSpec, work: Work, storage: Storage, model: Model, cache: Cache | None) -> Fetched:
    """Download the model and the data of a FineTuneJob or an EvalJob, unless its run is finished."""
    further = find_further(storage, spec, work)
    data = find_data(storage, data_sources(spec), spec.hub)
    models = [model, *further.values()]
    waiting = waiting_for_import(models)
    estimate = estimate_unprepared(spec, work, storage, model, data, further) if waiting else None
    for each in waiting:
        each.bring_in()
    fetched = find_run(spec, work, storage, model, further, data)
    if fetched.adopted:
        return fetched
    check_initial(storage, spec, model, further)
    check_disk(spec, work, storage, models, data, cache)
    if not waiting:
        estimate = estimate_unprepared(spec, work, storage, model, data, further)
    download_data(spec, work, storage, data)
    for each in models:
        each.download(storage, cache)
    check_template(storage, spec, model, further)
    check_vocabularies(storage, model, further)
    check_all(storage, spec, model, further=further)
    return fetched.model_copy(update={"model_uri": model.uri, "model_digest": model.digest, "estimate": estimate})


def waiting_for_import(models: Sequence[Model]) -> list[Model]:
    """Return the models, and the bases of adapters, of a hub or a web server that are not in the store: a run is identified by their
    content, but can be estimated before they are imported."""
    return [each for model in models for each in model.with_base() if each.is_remote and each.uri is None]


def estimate_unprepared(
    spec: RunSpec, work: Work, storage: Storage, model: Model, data: FoundData, further: Mapping[ModelRole, Model]
) -> Estimate | None:
    """Estimate a FineTuneJob without devices, which no pod has prepared. Only its fit is a reason to fail here: the training
    reads the same rows, and names what is wrong with them.

    Raises RunFailure (WillNotFit).
    """
    if spec.kind != "FineTuneJob" or spec.fine_tune_job().resources.devices or not in_leading_pod(spec.world):
        return None
    try:
        return assess(spec, work, storage, model, data, further).estimate
    except RunFailure as failure:
        if failure.failure is FailureClass.WILL_NOT_FIT:
            raise
        log.info("no estimate: %s", failure.message)
        return None


def find_run(
    spec: RunSpec, work: Work, storage: Storage, model: Model, further: Mapping[ModelRole, Model], data: FoundData
) -> Fetched:
    """Identify the run of a spec by the present content of its URIs, with its record if it is finished.

    `further`: the models in other roles. Raises RunFailure if the run's folder cannot be written.
    """
    content = {each.uri: each.fingerprint for each in data.values()}
    content |= {str(role): each.fingerprint for role, each in further.items()}
    texts = template_fingerprint(spec) | code_fingerprint(spec)
    fingerprints = {**model.fingerprints, **content, **(spec.looked_up or {}), **texts}
    identity = run_id(spec, fingerprints)
    uri = join(spec.output_uri, identity)
    fetched = Fetched(
        run_id=identity, run_uri=uri, fingerprints=fingerprints, model_uri=model.uri, model_digest=model.digest
    )
    folder = RunDirectory(storage, uri, work.run)
    if (record := folder.finished()) is not None:
        log.info("adopted: %s was finished at %s", uri, record.finished_at)
        found = {
            "adopted": True,
            "record": record.to_dict(),
            "model_uri": record.model_uri,
            "model_digest": record.model_digest,
        }
        return fetched.model_copy(update=found)
    log.info("run %s", uri)
    folder.check_writable()
    return fetched


def check_disk(
    spec: RunSpec, work: Work, storage: Storage, models: Sequence[Model], data: FoundData, cache: Cache | None = None
) -> None:
    """Refuse a FineTuneJob whose models, data and results don't fit on the disk together. Files in the cache take no room.
    The first model is the one that is tuned.

    The size of a model that is not imported yet is unknown, so it is not checked. Raises RunFailure (DiskFull).
    """
    if spec.kind != "FineTuneJob" or models[0].uri is None:
        return
    job = spec.fine_tune_job()
    files = [_files(storage, model) for model in models]
    size = sum(entry.size_bytes for each in files for entry in each if not (cache and cache.takes(entry)))
    weights = sum(entry.size_bytes for entry in files[0] if entry.path.endswith(SAFE))
    rows = sum(each.size_bytes for each in data.values())
    results = extra_bytes_of(weights, full=job.tuner is Tuner.FULL, merge=job.export.merge)
    needed = max(0, size + rows - used(work.root)) + (results if in_leading_pod(spec.world) else 0)
    what = f"the run (model {size / 1e9:.1f} GB, data {rows / 1e9:.1f} GB, results at least {results / 1e9:.1f} GB)"
    check_room(work.root, job.resources.ephemeral_storage, needed, what)


def _files(storage: Storage, model: Model) -> list[Entry]:
    """The files of a model that are downloaded; none before it is imported."""
    return [entry for entry in storage.list(model.uri) if is_wanted(entry.path, model.trusted)] if model.uri else []


def data_sources(spec: RunSpec) -> list[DataSource]:
    """All data that the spec of a resource names."""
    if spec.kind == "EvalJob":
        datasets = (benchmark.dataset for benchmark in spec.eval_job().benchmarks)
        return [DataSource.of_benchmark(dataset) for dataset in datasets if dataset]
    return [source for _, source in row_sources(spec.fine_tune_job())]


def download_data(spec: RunSpec, work: Work, storage: Storage, data: FoundData) -> None:
    """Download the data of a FineTuneJob or an EvalJob."""
    if spec.kind == "EvalJob":
        for benchmark in spec.eval_job().benchmarks:
            if benchmark.dataset:
                found = data[DataSource.of_benchmark(benchmark.dataset)]
                download_benchmark(storage, found, work, benchmark.name)
        return
    download_rows(storage, spec.fine_tune_job(), data, work)
