"""The verb fetch: bring model and data into the pod, or find that the run is finished already.

Fingerprints of what the URIs hold now come first, as they need no download; with the spec hash they name the run. A
finished run is adopted at once. A hub model or a GGUF file is imported into the store once, whoever asks.
"""

from __future__ import annotations

import logging

from tunesmith_api.common import Artifact
from tunesmith_api.finetunejob import Tuner
from tunesmith_api.run import Outcome, ProgressReport, RunReport, RunSpec, Verb
from tunesmith_api.run_spec import run_id
from tunesmith_runtime.disk_space import check_room, extra_bytes_of, used
from tunesmith_runtime.fetch.checks import check_all, is_lenient
from tunesmith_runtime.fetch.data import Data, download_benchmark, download_rows, find_data
from tunesmith_runtime.fetch.models import Model, find_adapter, find_model
from tunesmith_runtime.fetch.names import SAFE, is_wanted
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rank import in_leading_pod
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.storage import Storage, join, open_storage
from tunesmith_runtime.workdir import Fetched, Work

log = logging.getLogger(__name__)


def run(spec: RunSpec, work: Work, progress: ProgressPusher) -> RunReport:
    """Fetch what a resource of any kind needs."""
    progress.push(ProgressReport(stage=Verb.FETCH))
    storage = open_storage(spec.store)
    model = find_model(storage, spec.store.uri, spec.subject, work, is_lenient(spec))
    fetched = (
        serve(spec, work, storage, model) if spec.kind == "InferenceService" else run_of(spec, work, storage, model)
    )
    work.write_fetched(fetched)
    return RunReport(
        verb=Verb.FETCH,
        outcome=Outcome.ADOPTED if fetched.adopted else Outcome.SUCCEEDED,
        run_uri=fetched.run_uri,
        model_uri=fetched.model_uri,
        model_digest=fetched.model_digest,
        artifacts=[Artifact.model_validate(each) for each in fetched.record["artifacts"]] if fetched.record else None,
    )


def serve(spec: RunSpec, work: Work, storage: Storage, model: Model) -> Fetched:
    """What an InferenceService needs: its model, and the adapters beside it."""
    adapters = [find_adapter(storage, spec.store.uri, each.model, work.adapters / each.name) for each in spec.adapters]
    for each in (model, *adapters):
        each.bring(storage)
    check_all(storage, spec, model, {each.name: found for each, found in zip(spec.adapters, adapters, strict=True)})
    return Fetched(fingerprints={"model": model.fingerprint}, model_uri=model.uri, model_digest=model.digest)


def run_of(spec: RunSpec, work: Work, storage: Storage, model: Model) -> Fetched:
    """What a FineTuneJob or an EvalJob needs; nothing where its run is finished."""
    fetched, data = find_run(spec, work, storage, model)
    if fetched.adopted:
        return fetched
    check_disk(spec, work, storage, model, data)
    bring_data(spec, work, storage, data)
    model.bring(storage)
    check_all(storage, spec, model)
    return fetched.model_copy(update={"model_uri": model.uri, "model_digest": model.digest})


def find_run(spec: RunSpec, work: Work, storage: Storage, model: Model) -> tuple[Fetched, dict[str, Data]]:
    """Which run a spec asks for, by what its URIs hold now, with its record where it is finished; and the data.

    Raises RunFailure where something is not there, or the run's folder can't be written.
    """
    data = find_data(storage, data_uris(spec))
    fingerprints = {**model.fingerprints, **{each.uri: each.fingerprint for each in data.values()}}
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
        return fetched.model_copy(update=found), data
    log.info("run %s", uri)
    folder.check_writable()
    return fetched, data


def check_disk(spec: RunSpec, work: Work, storage: Storage, model: Model, data: dict[str, Data]) -> None:
    """Refuse a FineTuneJob whose model, data and results can't all be on the disk; a model still to be imported is not known yet.

    Raises RunFailure (DiskFull).
    """
    if spec.kind != "FineTuneJob" or model.uri is None:
        return
    job = spec.fine_tune_job()
    files = [entry for entry in storage.list(model.uri) if is_wanted(entry.path, model.trusted)]
    size = sum(entry.size_bytes for entry in files)
    weights = sum(entry.size_bytes for entry in files if entry.path.endswith(SAFE))
    rows = sum(entry.size_bytes for each in data.values() for _, entry in each.rows())
    results = extra_bytes_of(weights, full=job.tuner is Tuner.FULL, merge=job.export.merge)
    needed = max(0, size + rows - used(work.root)) + (results if in_leading_pod(spec.world) else 0)
    what = f"the run (model {size / 1e9:.1f} GB, data {rows / 1e9:.1f} GB, results at least {results / 1e9:.1f} GB)"
    check_room(work.root, job.resources.ephemeral_storage, needed, what)


def data_uris(spec: RunSpec) -> list[str]:
    """Every URI of data that a resource names."""
    if spec.kind == "EvalJob":
        return [benchmark.dataset.uri for benchmark in spec.eval_job().benchmarks if benchmark.dataset]
    job = spec.fine_tune_job()
    validation = [job.validation.uri] if job.validation and job.validation.uri else []
    return [dataset.uri for dataset in job.datasets] + validation


def bring_data(spec: RunSpec, work: Work, storage: Storage, data: dict[str, Data]) -> None:
    """Download the data of a FineTuneJob or an EvalJob."""
    if spec.kind == "EvalJob":
        for benchmark in spec.eval_job().benchmarks:
            if benchmark.dataset:
                download_benchmark(storage, data[benchmark.dataset.uri], work.benchmarks / benchmark.name)
        return
    job = spec.fine_tune_job()
    sources: list[tuple[int | None, Data]] = [(index, data[dataset.uri]) for index, dataset in enumerate(job.datasets)]
    if job.validation and job.validation.uri:
        sources.append((None, data[job.validation.uri]))
    download_rows(storage, sources, work)
