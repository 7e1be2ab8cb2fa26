"""Estimates a FineTuneJob before it trains: reads config.json, the headers of the weights and the rows, but no weights.

`until: data` counts all rows with the code of the training.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.finetunejob_status import Estimate, Rows
from tunesmith_api.method_facts import METHOD_FACTS
from tunesmith_api.run import ModelRole, RunSpec
from tunesmith_api.training import Fit
from tunesmith_runtime.chat_template import read_template
from tunesmith_runtime.data.load import Data as Encoded
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.estimate.architecture import Architecture, UnknownArchitecture
from tunesmith_runtime.estimate.bill import Inputs, estimate, refusal
from tunesmith_runtime.estimate.setup import cpu_computes_in_bf16
from tunesmith_runtime.estimate.workload import Workload
from tunesmith_runtime.fetch.data import Data, DataSource
from tunesmith_runtime.fetch.model_sizes import read_architecture
from tunesmith_runtime.fetch.models import Model
from tunesmith_runtime.fetch.named_modules import check_named_modules
from tunesmith_runtime.fetch.row_count import read_rows
from tunesmith_runtime.fetch.small_files import download_tokenizers
from tunesmith_runtime.modelcheck.contexts import check_context
from tunesmith_runtime.modelcheck.slices import check_sizes
from tunesmith_runtime.modelcheck.stages import check_stages
from tunesmith_runtime.storage import Storage
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assessment:
    """Facts about a run before its training."""

    estimate: Estimate | None = None
    rows: Rows | None = None
    """The rows as the training will count them; None where they were only sampled."""


def assess(
    spec: RunSpec,
    work: Work,
    storage: Storage,
    model: Model,
    data: Mapping[DataSource, Data],
    further: Mapping[ModelRole, Model],
) -> Assessment:
    """Estimate a FineTuneJob on `model`, with the models in further roles, by their files in the store or where they come from. A model
    whose files can't be read before its import is imported.

    Raises RunFailure: BadSpec for parts that the model does not have, or a reference that does not go with the strategy, WillNotFit if
    spec.fit is Refuse; with `until: data`, and where all rows were counted, the failures of the training's rows (BadRow,
    EmptyDataset, ChatTemplateMissing, BadSpec).
    """
    from tunesmith_runtime.train.methods import METHODS
    from tunesmith_runtime.train.tuners.adapter import check_reference

    job, scratch = spec.fine_tune_job(), Work(work.root / "estimate")
    METHODS[job.method].row_check(job, scratch)
    if METHOD_FACTS[job.method].has_reference(job):
        check_reference(job)
    base = model.base or model
    for each in (base, *further.values()):
        if each.files(storage) is None:
            each.bring_in()
    files = base.files(storage)
    assert files is not None
    try:
        download_tokenizers(storage, further, scratch)
        encode_again = partial(_encode_as_training, spec, job, scratch)
        workload, rows = read_rows(job, scratch, files, storage, data, read_template(spec), encode_again)
        check_named_modules(spec, job, scratch.model())
        found = _estimate(job, storage, base, further, workload, data)
    finally:
        shutil.rmtree(scratch.root, ignore_errors=True)
    if found is None:
        return Assessment(rows=rows)
    log.info("estimate: %s", found.summary)
    if job.fit is Fit.REFUSE and (refused := refusal(job, found)):
        raise RunFailure(FailureClass.WILL_NOT_FIT, refused.message, refused.hint)
    return Assessment(found, rows)


def _estimate(
    job: FineTuneJobSpec,
    storage: Storage,
    base: Model,
    further: Mapping[ModelRole, Model],
    workload: Workload,
    data: Mapping[DataSource, Data],
) -> Estimate | None:
    """The estimate; None, with a line in the log, for an architecture whose sizes are not known. Raises RunFailure (BadSpec) if
    the devices can't share or divide its layers."""
    architecture = _sizes(storage, base)
    beside = {role: _sizes(storage, further[role]) for role in (ModelRole.TEACHER, ModelRole.REWARD) if role in further}
    if architecture is None or None in beside.values():
        return None
    sizes = {"num_attention_heads": architecture.heads, "num_key_value_heads": architecture.key_value_heads}
    check_sizes(sizes, job.parallelism.tensor_parallel)
    check_stages(architecture.model_type, architecture.layers, job.parallelism.pipeline_parallel)
    check_context(architecture.model_type, job.parallelism.context_parallel)
    size = sum(each.size_bytes for each in data.values())
    held = (beside.get(role) for role in (ModelRole.TEACHER, ModelRole.REWARD))
    return estimate(Inputs(job, architecture, workload, size, cpu_computes_in_bf16(), *held))


def _sizes(storage: Storage, model: Model) -> Architecture | None:
    """The sizes of a model; None, with a line in the log, where they are not known."""
    files = model.files(storage)
    assert files is not None
    try:
        return read_architecture(files)
    except UnknownArchitecture as error:
        log.warning("no estimate: %s: %s", files.uri, error)
        return None


def _encode_as_training(spec: RunSpec, job: FineTuneJobSpec, scratch: Work) -> Encoded:
    """Encode all rows as the training does. Imports torch."""
    from tunesmith_runtime.multimodal.processor import PACKAGES
    from tunesmith_runtime.train.imports import hidden
    from tunesmith_runtime.train.methods import METHODS
    from tunesmith_runtime.train.world.process_group import ALONE

    with hidden(PACKAGES):
        from tunesmith_runtime.train.rows.loading import load_rows

        unpacked = job.model_copy(
            update={"training": job.training.model_copy(update={"packing": False, "streaming": False})}
        )
        encoded = load_rows(spec, unpacked, METHODS[job.method], scratch, ALONE).data
        assert isinstance(encoded, Encoded)
        return encoded
