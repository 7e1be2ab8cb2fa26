"""Estimates a FineTuneJob before it trains: reads config.json, the headers of the weights and the rows, but no weights.

Rows are counted with the model's tokenizer and chat template, all of them if their files are small, otherwise those of a sample.
`until: data` counts all rows with the code of the training.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import Estimate, FineTuneJobSpec, Rows
from tunesmith_api.methods import Gkd
from tunesmith_api.run import ModelRole, RunSpec
from tunesmith_api.training import Fit, Until
from tunesmith_runtime.chat_template import read_template
from tunesmith_runtime.data.load import Data as Encoded
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.estimate.architecture import (
    Architecture,
    Tensor,
    UnknownArchitecture,
    from_config,
    tensors_of,
    with_headers,
)
from tunesmith_runtime.estimate.bill import Inputs, estimate, refusal
from tunesmith_runtime.estimate.setup import cpu_computes_in_bf16
from tunesmith_runtime.estimate.workload import Workload, assume, count
from tunesmith_runtime.fetch.data import Data, DataSource, download_rows
from tunesmith_runtime.fetch.models import Model
from tunesmith_runtime.fetch.names import GGUF, SAFE
from tunesmith_runtime.modelcheck.config import CONFIG, limits_of, parse_config
from tunesmith_runtime.storage import Entry, Storage, join
from tunesmith_runtime.workdir import DataFile, Work

if TYPE_CHECKING:
    from pyarrow import Table

    from tunesmith_runtime.data.encode import Encoder

log = logging.getLogger(__name__)

WHOLE_BYTES = 16 << 20
"""Size of all rows up to which each is counted. A core encodes 1 to 2 MB per second."""
SAMPLE_BYTES = 4 << 20
"""Bytes of rows that are read of larger data."""
SMALL_BYTES = 64 << 20
"""Size up to which a file of a model is downloaded for its tokenizer."""
BYTES_PER_TOKEN = 4
"""Bytes of a token of English text, where rows cannot be counted."""
LENGTH_BYTES = 8
"""Bytes at the start of a safetensors file that hold the length of its header."""


@dataclass(frozen=True)
class Assessment:
    """What is known of a run before it trains."""

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
    """Estimate a FineTuneJob on `model`, with the models in further roles.

    Raises RunFailure: WillNotFit if spec.fit is Refuse; with `until: data`, and where all rows were counted, the failures of
    the training's rows (BadRow, EmptyDataset, ChatTemplateMissing, BadSpec).
    """
    from tunesmith_runtime.train.methods import METHODS

    job = spec.fine_tune_job()
    METHODS[job.method].row_check(job)
    base = model.base or model
    for each in (base, *further.values()):
        if each.uri is None and not job.until.trains and each.importer is not None:
            each.uri, each.digest = each.importer(each.directory)
    if base.uri is None:
        log.info("no estimate: %s is not imported yet", base.source)
        return Assessment()
    scratch = Work(work.root / "estimate")
    try:
        workload, rows = read_rows(
            job, scratch, storage, base.uri, data, read_template(spec), partial(_encode_as_training, spec, job, scratch)
        )
        found = _estimate(job, storage, base, further.get(ModelRole.TEACHER), workload, data)
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
    teacher: Model | None,
    workload: Workload,
    data: Mapping[DataSource, Data],
) -> Estimate | None:
    """The estimate; None, with a line in the log, for an architecture whose sizes are not known."""
    architecture, sizes_of_teacher = _sizes(storage, base), _sizes(storage, teacher)
    if architecture is None or (teacher is not None and sizes_of_teacher is None):
        return None
    size = sum(entry.size_bytes for each in data.values() for _, entry in each.rows())
    return estimate(Inputs(job, architecture, workload, size, cpu_computes_in_bf16(), sizes_of_teacher))


def _sizes(storage: Storage, model: Model | None) -> Architecture | None:
    """The sizes of a model in the store; None, with a line in the log, where they are not known."""
    if model is None or model.uri is None:
        return None
    try:
        return read_architecture(storage, model.uri)
    except UnknownArchitecture as error:
        log.warning("no estimate: %s: %s", model.uri, error)
        return None


def read_architecture(storage: Storage, uri: str) -> Architecture:
    """Read the sizes of the model in the folder `uri`. Raises UnknownArchitecture, and RunFailure (BadModel)."""
    config = parse_config(uri, storage.read_bytes(join(uri, CONFIG)) or b"")
    tensors: list[Tensor] = []
    for entry in storage.list(uri):
        if entry.path.endswith(SAFE) and "/" not in entry.path:
            tensors += _read_tensors(storage, join(uri, entry.path))
    return with_headers(from_config(config), tensors)


def _read_tensors(storage: Storage, uri: str) -> list[Tensor]:
    """Read the header of a safetensors file by ranges; empty if it has none that can be read."""
    length = int.from_bytes(storage.read_range(uri, 0, LENGTH_BYTES), "little")
    if not 0 < length <= SMALL_BYTES:
        return []
    try:
        return tensors_of(json.loads(storage.read_range(uri, LENGTH_BYTES, length)))
    except (ValueError, KeyError, TypeError):
        return []


def read_rows(
    job: FineTuneJobSpec,
    scratch: Work,
    storage: Storage,
    uri: str,
    data: Mapping[DataSource, Data],
    template: str | None = None,
    encode_again: Callable[[], Encoded] | None = None,
) -> tuple[Workload, Rows | None]:
    """Count the rows with the tokenizer of the model in the folder `uri`: all of them, or those of a sample.

    `template`: the chat template of the job, instead of the model's own. `encode_again` encodes them with the code of the training, where that is to decide: with `until: data`, and where counting
    all of them without transformers has failed. Raises RunFailure, as the training does.
    """
    download_small_files(storage, uri, scratch.model())
    sources = [(index, data[DataSource.of(dataset)]) for index, dataset in enumerate(job.datasets)]
    size = sum(entry.size_bytes for _, each in sources for _, entry in each.rows())
    if size <= WHOLE_BYTES or job.until is Until.DATA:
        download_rows(storage, job, data, scratch)
        encoded = _encode_whole(job, scratch, template, encode_again)
        return count_encoded(encoded, job), encoded.rows
    try:
        share = _download_sample(storage, sources, scratch)
        unpacked = job.model_copy(update={"validation": None, "decontaminate": None})
        sample = count_encoded(encode_lightly(unpacked, scratch, template), job, packs=False)
    except RunFailure as failure:
        log.info("rows are not counted: %s", failure)
        return assume(max(1, size // (BYTES_PER_TOKEN * job.training.max_length)), job.training.max_length), None
    rows = round(sample.rows / max(share, 1e-9))
    most = [dataset.max_rows for dataset in job.datasets]
    return sample.scaled(min(rows, sum(each or 0 for each in most)) if all(most) else rows), None


def _encode_whole(
    job: FineTuneJobSpec, scratch: Work, template: str | None, encode_again: Callable[[], Encoded] | None
) -> Encoded:
    if encode_again is None:
        return encode_lightly(job, scratch, template)
    if job.until is not Until.DATA:
        try:
            return encode_lightly(job, scratch, template)
        except RunFailure as failure:
            log.info("reading the rows again with the code of the training: %s", failure)
    return encode_again()


def _encode_as_training(spec: RunSpec, job: FineTuneJobSpec, scratch: Work) -> Encoded:
    """Encode all rows as the training does. Imports torch."""
    from tunesmith_runtime.train.imports import hidden
    from tunesmith_runtime.train.methods import METHODS
    from tunesmith_runtime.train.process_group import ALONE

    with hidden():
        from tunesmith_runtime.train.course import load_rows

        unpacked = job.model_copy(
            update={"training": job.training.model_copy(update={"packing": False, "streaming": False})}
        )
        encoded = load_rows(spec, unpacked, METHODS[job.method], scratch, ALONE)[1]
        assert isinstance(encoded, Encoded)
        return encoded


def encode_lightly(job: FineTuneJobSpec, scratch: Work, template: str | None = None) -> Encoded:
    """Encode rows without torch and transformers. Raises RunFailure, of class BadModel without a tokenizer.json."""
    from tunesmith_runtime.data.example_file import open_columns
    from tunesmith_runtime.data.load import load
    from tunesmith_runtime.train.methods import METHODS

    method = METHODS[job.method]
    encoded = load(scratch, job, light_encoder(scratch.model(), job, template), method.learnable(job))
    method.check_rows(open_columns(encoded.train_file))
    return encoded


def light_encoder(folder: Path, job: FineTuneJobSpec, template: str | None = None) -> Encoder:
    """The encoder of a job with the tokenizer of the model in `folder`, without torch and transformers.

    Raises RunFailure (BadModel) without a tokenizer.json.
    """
    from tunesmith_runtime.data.encode import Encoder, completion_tokens
    from tunesmith_runtime.data.tokenizer_file import TokenizerFile
    from tunesmith_runtime.data.turns import end_of_turn

    try:
        tokenizer: Any = TokenizerFile(folder)
    except ValueError as error:
        raise RunFailure(FailureClass.BAD_MODEL, str(error)) from error
    tokenizer.chat_template = template or tokenizer.chat_template
    ends = [tokenizer.eos_token_id, end_of_turn(tokenizer), *tokenizer.configured_ends]
    stop_ids = frozenset(token for token in ends if token is not None)
    config = json.loads((folder / CONFIG).read_bytes())
    return Encoder.of(tokenizer, stop_ids, job.training, limits_of(config), job.method, completion_tokens(job))


def count_encoded(encoded: Encoded, job: FineTuneJobSpec, packs: bool = True) -> Workload:
    """Return the workload of encoded rows, packed if the job packs them, and unless they are a sample."""
    from tunesmith_runtime.data.example_file import example_lengths, labelled_counts, open_columns
    from tunesmith_runtime.data.packing import best_fit
    from tunesmith_runtime.train.methods import METHODS

    columns = open_columns(encoded.train_file)
    lengths = example_lengths(columns)
    if job.rollouts:
        return _sampled(lengths, job.rollouts.max_completion_length, job.rollouts.num_generations)
    if job.actor_critic:
        return _sampled(lengths, job.actor_critic.max_completion_length, job.actor_critic.epochs)
    if job.gkd and job.gkd.lambda_:
        return _distilled(columns, job.gkd)
    found = count(lengths, labelled_counts(columns), METHODS[job.method].answers)
    if not packs or not job.training.packing:
        return found
    return replace(found, sequences=int(best_fit(lengths, job.training.max_length, job.training.seed).max()) + 1)


def _sampled(prompts: Sequence[int], most: int, times: int) -> Workload:
    """Return the workload of completions of `most` tokens to prompts of these lengths, `times` of them for each prompt."""
    once = count([length + most for length in prompts], [most] * len(prompts))
    return replace(once, rows=once.rows * times, tokens=once.tokens * times)


def _distilled(columns: Table, gkd: Gkd) -> Workload:
    """Return the workload of rows of which a share gets a sampled answer, as long as it may be, instead of the last one."""
    from tunesmith_runtime.data.example_file import example_lengths, labelled_counts, last_answer_starts

    most, share = gkd.max_completion_length, gkd.lambda_
    lengths, labelled = example_lengths(columns), labelled_counts(columns)
    sampled = [start + most for start in last_answer_starts(columns)]
    found = count(list(map(max, lengths, sampled)), [max(each, most) for each in labelled])
    return replace(found, tokens=round((1 - share) * sum(lengths) + share * sum(sampled)))


def download_small_files(storage: Storage, uri: str, folder: Path) -> None:
    """Download the files of a model but its weights: config, tokenizer, chat template."""
    for entry in storage.list(uri):
        if "/" not in entry.path and not entry.path.endswith((SAFE, GGUF)) and entry.size_bytes <= SMALL_BYTES:
            storage.download(join(uri, entry.path), folder / entry.path, entry)


def _has_lines(entry: tuple[str, Entry]) -> bool:
    return entry[0].endswith(".jsonl")


def _download_sample(storage: Storage, sources: list[tuple[int, Data]], scratch: Work) -> float:
    """Download the first lines of each file; return the share of the bytes that they are.

    Raises RunFailure (DatasetNotFound) for files of another type than JSON lines, and for files that are not in the storage.
    """
    entries = [(index, uri, entry) for index, each in sources for uri, entry in each.rows()]
    size = sum(entry.size_bytes for _, _, entry in entries)
    if other := next((each.uri for _, each in sources if each.origin or not all(map(_has_lines, each.rows()))), None):
        raise RunFailure(
            FailureClass.DATASET_NOT_FOUND, f"{other} has more than {WHOLE_BYTES} bytes of files without lines"
        )
    scratch.data.mkdir(parents=True, exist_ok=True)
    files: list[DataFile] = []
    read = 0
    for index, uri, entry in entries:
        wanted = max(1, SAMPLE_BYTES * entry.size_bytes // size)
        content = storage.read_range(uri, 0, wanted)
        whole_lines = content[: content.rfind(b"\n") + 1]
        name = f"{len(files):02d}.jsonl"
        (scratch.data / name).write_bytes(whole_lines)
        files.append(DataFile(path=name, uri=uri, dataset=index))
        read += len(whole_lines)
    scratch.write_data_files(files)
    return read / max(1, size)
