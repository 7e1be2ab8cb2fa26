"""Counts the rows of a job before it trains, with the model's tokenizer and chat template but without torch and transformers.

All rows are counted if the files are small, otherwise a sample.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.finetunejob_status import Rows
from tunesmith_api.training import Until
from tunesmith_runtime.data.load import Data as Encoded
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.estimate.workload import Workload, assume
from tunesmith_runtime.fetch.data import Data, DataSource, download_rows
from tunesmith_runtime.fetch.encoded_rows import count_encoded
from tunesmith_runtime.fetch.model_files import ModelFiles
from tunesmith_runtime.fetch.row_sample import write_sample
from tunesmith_runtime.fetch.small_files import download_small_files
from tunesmith_runtime.modelcheck.config import CONFIG, limits_of, parse_config
from tunesmith_runtime.modelcheck.speech import check_speech
from tunesmith_runtime.storage import Storage
from tunesmith_runtime.tasks import is_speech
from tunesmith_runtime.workdir import Work

if TYPE_CHECKING:
    from tunesmith_runtime.data.encode import Encoder

log = logging.getLogger(__name__)

WHOLE_BYTES = 16 << 20
"""Size of all rows up to which each is counted. A core encodes 1 to 2 MB per second."""
BYTES_PER_TOKEN = 4
"""Bytes of a token of English text, where rows cannot be counted."""


def read_rows(
    job: FineTuneJobSpec,
    scratch: Work,
    files: ModelFiles,
    storage: Storage,
    data: Mapping[DataSource, Data],
    template: str | None = None,
    encode_again: Callable[[], Encoded] | None = None,
) -> tuple[Workload, Rows | None]:
    """Count the rows with the tokenizer of the model in `files`: all of them, or those of a sample.

    `template`: the chat template of the job, instead of the model's own. `encode_again` encodes them with the code of
    the training. It is used with `until: data`, for speech models, and if counting all rows without transformers has failed. Raises
    RunFailure, as the training does.
    """
    download_small_files(files, scratch.model())
    config = parse_config(files.uri, (scratch.model() / CONFIG).read_bytes())
    check_speech(job, config)
    sources = [(index, data[DataSource.of(dataset)]) for index, dataset in enumerate(job.datasets)]
    size = sum(each.size_bytes for _, each in sources)
    if size <= WHOLE_BYTES or job.until is Until.DATA:
        download_rows(storage, job, data, scratch)
        needs_torch = job.until is Until.DATA or is_speech(config)
        encoded = _encode_whole(job, scratch, template, encode_again, needs_torch)
        return count_encoded(encoded, job), encoded.rows
    try:
        each_stands_for = write_sample(
            storage, [(index, each, job.datasets[index].max_rows) for index, each in sources], scratch
        )
        unpacked = job.model_copy(update={"validation": None, "decontaminate": None})
        sample = count_encoded(encode_lightly(unpacked, scratch, template), job, packs=False)
    except RunFailure as failure:
        log.info("rows are not counted: %s", failure)
        return assume(max(1, size // (BYTES_PER_TOKEN * job.training.max_length)), job.training.max_length), None
    return sample.scaled(round(sample.rows * each_stands_for)), None


def _encode_whole(
    job: FineTuneJobSpec,
    scratch: Work,
    template: str | None,
    encode_again: Callable[[], Encoded] | None,
    needs_torch: bool,
) -> Encoded:
    if encode_again is None:
        return encode_lightly(job, scratch, template)
    if not needs_torch:
        try:
            return encode_lightly(job, scratch, template)
        except RunFailure as failure:
            log.info("reading the rows again with the code of the training: %s", failure)
    return encode_again()


def encode_lightly(job: FineTuneJobSpec, scratch: Work, template: str | None = None) -> Encoded:
    """Encode rows without torch and transformers. Raises RunFailure, of class BadModel without a tokenizer.json."""
    from tunesmith_runtime.data.example_file import open_columns
    from tunesmith_runtime.data.load import load
    from tunesmith_runtime.train.methods import METHODS

    method = METHODS[job.method]
    encoded = load(scratch, job, light_encoder(scratch.model(), job, template), method.learnable(job, scratch))
    method.check_rows(job, open_columns(encoded.train_file))
    return encoded


def light_encoder(folder: Path, job: FineTuneJobSpec, template: str | None = None) -> Encoder:
    """The encoder of a job with the tokenizer of the model in `folder`, without torch and transformers.

    Raises RunFailure (BadModel) without a tokenizer.json.
    """
    from tunesmith_runtime.data.encode import Encoder, completion_tokens
    from tunesmith_runtime.data.tokenizer_file import TokenizerFile
    from tunesmith_runtime.data.turns import end_of_turn
    from tunesmith_runtime.multimodal.processor import has_processor

    try:
        tokenizer: Any = TokenizerFile(folder)
    except ValueError as error:
        raise RunFailure(FailureClass.BAD_MODEL, str(error)) from error
    tokenizer.chat_template = template or tokenizer.chat_template
    ends = [tokenizer.eos_token_id, end_of_turn(tokenizer), *tokenizer.configured_ends]
    stop_ids = frozenset(token for token in ends if token is not None)
    config = json.loads((folder / CONFIG).read_bytes())
    limits = limits_of(config).behind(job.virtual_tokens)
    return Encoder.of(
        tokenizer,
        stop_ids,
        job.training,
        limits,
        job.method,
        completion_tokens(job),
        lacks_processor=has_processor(folder),
    )
