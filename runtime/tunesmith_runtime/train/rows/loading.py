"""Loads the rows of a training: encodes them once per pod, or opens them as a stream, and arranges them as the method needs them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from datasets import Dataset
from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import RunSpec
from tunesmith_api.training import Training
from tunesmith_runtime.chat_template import bad_template, read_template
from tunesmith_runtime.data.encode import Encoder, completion_tokens
from tunesmith_runtime.data.example_file import open_columns
from tunesmith_runtime.data.load import Data, StreamedData, load, load_stream, open_data
from tunesmith_runtime.data.packing import PackedRows
from tunesmith_runtime.data.text_encoder import last_of
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.config import Limits
from tunesmith_runtime.modelcheck.speech import check_speech
from tunesmith_runtime.modelcheck.tokenizer import check_vocabulary
from tunesmith_runtime.multimodal.encoder import MediaEncoder
from tunesmith_runtime.multimodal.pixels import PixelBudget, refused_budget
from tunesmith_runtime.multimodal.processor import MediaProcessor, reads_images
from tunesmith_runtime.multimodal.reading import KeptFiles, StoreReader, kept_bytes
from tunesmith_runtime.multimodal.sources import MediaSource
from tunesmith_runtime.multimodal.speech import SpeechEncoder, SpeechProcessor
from tunesmith_runtime.tasks import LANGUAGE, is_speech, task_of
from tunesmith_runtime.train.methods import Method
from tunesmith_runtime.train.models.files import BASE, limits, load_tokenizer, stop_ids
from tunesmith_runtime.train.models.head import set_padding
from tunesmith_runtime.train.rows.forms import TrainingRows, known
from tunesmith_runtime.train.rows.streaming import StreamedRows, arrangement
from tunesmith_runtime.train.world.process_group import ProcessGroup
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)

MEDIA_FOLDER = "media"
"""Folder of the files of media that are kept, below that of the examples."""


class LoadedRows(NamedTuple):
    """The rows of a training, and the tokenizer that encoded them."""

    tokenizer: PreTrainedTokenizerBase
    data: Data | StreamedData
    train: TrainingRows
    """The training rows of `data`, as the method reads them."""
    media: MediaEncoder | None = None
    """Reads the images of the rows; None for models of text alone."""
    speech: SpeechEncoder | None = None
    """Reads the sounds of the rows; None for models that are no speech models."""

    def first(self) -> Iterator[Sequence[int]]:
        """Yield the tokens of the training rows, or of those that are known before a stream is read, in their order; of rows with images
        those behind the last one."""
        found = self.data.train if isinstance(self.data, Data) else known(self.train)
        slots = self.media.processor.slot_ids if self.media else ()
        for index in range(len(found)):
            ids = found[index]["input_ids"]
            yield ids[last_of(ids, slots) + 1 :]


def load_rows(spec: RunSpec, job: FineTuneJobSpec, method: Method, work: Work, group: ProcessGroup) -> LoadedRows:
    """Load the tokenizer, and encode all rows within the limits of the model, once per pod; or open them as a stream."""
    config = json.loads((work.model() / "config.json").read_text())
    check_speech(job, config)
    tokenizer = load_tokenizer(work.model(), spec.base.trust_remote_code)
    set_template(tokenizer, spec)
    most = limits(work.model(), spec.base.trust_remote_code).behind(job.virtual_tokens)
    if most.vocabulary is not None:
        check_vocabulary(BASE, tokenizer, most.vocabulary)
    ends = stop_ids(work.model(), tokenizer)
    if task_of(job.method) is not LANGUAGE:
        set_padding(tokenizer, ends)
    media = media_encoder(spec, job, work)
    speech = speech_encoder(spec, job, work, tokenizer) if is_speech(config) else None
    encoder = Encoder.of(tokenizer, ends, job.training, most, job.method, completion_tokens(job), media, speech=speech)
    if job.training.streaming:
        arrange = arrangement(job.training, encoder.max_length)
        with naming_positions(most, job), group.pod_leader_first():
            stream = load_stream(work, job, encoder, method.learnable(job, work), arrange, group.is_pod_leader)
        return LoadedRows(tokenizer, stream, StreamedRows(stream.stream), media)
    with naming_positions(most, job), group.pod_leader_first():
        data = load(work, job, encoder, method.learnable(job, work)) if group.is_pod_leader else open_data(work)
    method.check_rows(job, open_columns(data.train_file))
    log.info("rows: %s", data.rows.to_dict())
    return LoadedRows(tokenizer, data, arranged(data.train, encoder.max_length, job, method), media, speech)


def media_encoder(spec: RunSpec, job: FineTuneJobSpec, work: Work) -> MediaEncoder | None:
    """Return what reads the media of rows for the base model; None where it has no processor of images. Raises RunFailure: BadModel, and
    BadSpec for a budget of pixels that the processor cannot take."""
    budget = PixelBudget.of(job.training)
    if not reads_images(work.model()):
        if budget:
            raise refused_budget("the base model does not read images")
        return None
    processor = MediaProcessor.load(work.model(), spec.base.trust_remote_code, budget)
    return MediaEncoder(processor, media_source(spec, job, work))


def speech_encoder(
    spec: RunSpec, job: FineTuneJobSpec, work: Work, tokenizer: PreTrainedTokenizerBase
) -> SpeechEncoder:
    """Return what reads the sounds of rows for a speech model. Raises RunFailure (BadModel)."""
    return SpeechEncoder(SpeechProcessor.load(work.model(), tokenizer), media_source(spec, job, work))


def media_source(spec: RunSpec, job: FineTuneJobSpec, work: Work) -> MediaSource:
    """Return what reads media from the store, and keeps them as far as the disk has room."""
    work.examples.mkdir(parents=True, exist_ok=True)
    most = kept_bytes(work.root, job.resources.ephemeral_storage)
    return MediaSource(KeptFiles(StoreReader(spec.store), work.examples / MEDIA_FOLDER, most))


def set_template(tokenizer: PreTrainedTokenizerBase, spec: RunSpec) -> None:
    """Set the chat template that the spec gives; it is saved with the tokenizer. Raises RunFailure (BadSpec) for a syntax error."""
    if (template := read_template(spec)) is None:
        return
    tokenizer.chat_template = template
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise bad_template(spec, f"has an error in line {error.lineno}: {error.message}") from error
    except Exception as error:  # noqa: BLE001  # templates raise errors of any type; rows that one refuses are named
        log.info("the chat template does not render a plain question: %s", error)


def arranged(examples: Dataset, capacity: int, job: FineTuneJobSpec, method: Method) -> TrainingRows:
    """Arrange the training examples as the method and `job` need them."""
    return packed(examples, capacity, job.training) if job.training.packing else method.arrange(examples, job)


def packed(examples: Dataset, capacity: int, training: Training) -> PackedRows:
    """Combine the training rows into sequences of at most `capacity` tokens. Those of validation stay apart."""
    rows = PackedRows.of(examples, capacity, training.seed)
    full = sum(rows.lengths) / (len(rows) * capacity)
    log.info(
        "packing: %d rows in %d sequences of %d tokens, %.1f%% full", len(examples), len(rows), capacity, 100 * full
    )
    return rows


@contextmanager
def naming_positions(most: Limits, job: FineTuneJobSpec) -> Iterator[None]:
    """Within the block, name the positions that the model has for a row, in the log and in EmptyDataset, if they are fewer than
    training.maxLength."""
    length, reserved = job.training.max_length, completion_tokens(job)
    if most.positions is None or most.positions - reserved >= length:
        yield
        return
    left = f", {reserved} of them for completions" if reserved else ""
    beside = " beside its virtual tokens" if job.virtual_tokens else ""
    text = (
        f"training.maxLength is {length} and the model has {most.positions} positions{beside}{left}, "
        f"so a row holds at most {most.positions - reserved} tokens"
    )
    log.warning("%s", text)
    try:
        yield
    except RunFailure as failure:
        if failure.failure is not FailureClass.EMPTY_DATASET:
            raise
        raise RunFailure(failure.failure, f"{failure.message}; {text}", failure.hint) from failure
