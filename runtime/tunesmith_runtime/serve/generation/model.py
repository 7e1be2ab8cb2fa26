"""The served model: weights, tokenizer, adapters, and the tokens that end an answer."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import Engine
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.data.turns import end_of_turn
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.messages import unwritten
from tunesmith_runtime.modelcheck.adapter_batching import check_mixable
from tunesmith_runtime.modelcheck.adapters import adapter_config, check_kind
from tunesmith_runtime.modelcheck.config import positions
from tunesmith_runtime.modelcheck.failure import bad_model, detail
from tunesmith_runtime.modelcheck.loading import load_weights, with_adapter
from tunesmith_runtime.modelcheck.tokenizer import check_loaded
from tunesmith_runtime.multimodal.processor import MediaProcessor, reads_images
from tunesmith_runtime.multimodal.slots import without_slots
from tunesmith_runtime.serve.generation.batch import Forward, can_read_images
from tunesmith_runtime.serve.generation.memory import capacity
from tunesmith_runtime.serve.generation.prompt import NO_PICTURES, MediaPrompts, Pictures, Prompt
from tunesmith_runtime.serve.generation.tokens import Tokens

log = logging.getLogger(__name__)

CPU_TYPE_VARIABLE = "ENGINE_CPU_DTYPE"
"""Environment variable with the number format of the weights on a CPU; default: float32."""


class TooLong(Exception):
    """A text that cannot fit. It is detected before encoding, which takes seconds for megabytes of text."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"a text of {tokens} tokens or more")
        self.tokens = tokens


@dataclass(frozen=True)
class LoadedModel:
    """A model that can generate, with its tokenizer."""

    forward: Forward
    tokenizer: Any
    max_length: int
    """Maximum number of tokens of prompt and answer together."""
    eos: frozenset[int]
    vocabulary: int
    media: MediaPrompts | None = None
    """Encodes conversations with images; None for models of text alone."""

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer can render messages."""
        return bool(self.tokenizer.chat_template)

    @cached_property
    def tokens(self) -> Tokens:
        """The vocabulary, for the text and bytes of single tokens."""
        return Tokens(self.tokenizer)

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], pictures: Pictures = NO_PICTURES, /, **settings: Any
    ) -> Prompt:
        """Return a conversation up to the beginning of the answer, by the chat template, as in training.

        Contents are text or, for a model with `media`, lists of parts whose images are read from `pictures`.
        Raises ValueError with the template's message if it refuses the conversation, RowError if it leaves out content,
        and TooLong.
        """
        if self.media is not None:
            return self._encode_media(self.media, messages, pictures, settings)
        text = self._rendered(messages, settings)
        if lost := unwritten(messages, None, text):
            raise RowError(lost)
        return Prompt(self._encoded(text, add_special_tokens=False))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of plain text, with the special tokens that the tokenizer adds. Raises ValueError, TooLong."""
        return self._encoded(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens` without special tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _encode_media(
        self,
        media: MediaPrompts,
        messages: Sequence[Mapping[str, Any]],
        pictures: Pictures,
        settings: Mapping[str, Any],
    ) -> Prompt:
        record = media.conversation(messages, pictures)
        text = media.slots.fill(self._rendered(media.slots.parts(record.messages), settings), record.slots)
        if lost := unwritten([without_slots(message) for message in record.messages], None, text):
            raise RowError(lost)
        self._check_length(text)
        tokens = media.ids(text)
        if len(tokens) > self.max_length:
            raise TooLong(len(tokens))  # before images of too many tokens are processed
        return Prompt(tokens, media.inputs(tokens, record.slots, messages, pictures))

    def _rendered(self, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
        with row_errors("the model's chat template refuses these messages"):
            return str(
                self.tokenizer.apply_chat_template(
                    [dict(message) for message in messages], add_generation_prompt=True, tokenize=False, **settings
                )
            )

    def _check_length(self, text: str) -> None:
        minimum = -(-len(text) // self.tokens.longest)
        if minimum > self.max_length:
            raise TooLong(minimum)

    def _encoded(self, text: str, **settings: Any) -> list[int]:
        self._check_length(text)
        with row_errors("the model's tokenizer fails on this text"):
            return list(self.tokenizer(text, verbose=False, **settings)["input_ids"])


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer: those of the generation config, the tokenizer and the chat template."""
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id, end_of_turn(tokenizer)) if token is not None)


def context_length(config: Any, requested: int | None) -> int:
    """Return the maximum number of tokens of prompt and answer: the requested limit, within the model's positions."""
    return min(length for length in (requested, positions(config), 1 << 20) if length)


def load(
    path: Path,
    adapters: Mapping[str, Path],
    max_length: int | None,
    trust_remote_code: bool,
    device: str | None = None,
) -> LoadedModel:
    """Load weights (safetensors), tokenizer and LoRA adapters from local folders onto a device (default: a GPU if present).

    On a CPU the weights are float32 unless CPU_TYPE_VARIABLE is set (figures in docs/serving.md), elsewhere in their own format.
    Raises RunFailure: ModelNotFound for a folder without a model, BadModel for an inconsistent model or an adapter that does
    not fit, BadSpec for an adapter that cannot be served.
    """
    if not (path / "config.json").is_file():
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"{path} has no config.json")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    dtype = (os.environ.get(CPU_TYPE_VARIABLE) or "float32") if device == "cpu" else "auto"
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
    except Exception as error:  # tokenizers raise errors of any type for unexpected files
        raise bad_model(str(path), None, f"the tokenizer cannot be loaded: {detail(error)}") from error
    model: Any = load_weights(str(path), path, dtype=dtype, trust_remote_code=trust_remote_code).to(device).eval()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    check_loaded(str(path), path, tokenizer, vocabulary)
    end, length = end_tokens(model, tokenizer), context_length(model.config, max_length)
    for name, folder in adapters.items():
        check_kind(name, adapter_config(name, folder), Engine.TRANSFORMERS, len(adapters) == 1)
        model = with_adapter(model, name, folder)
        check_mixable(name, model)
    model.requires_grad_(False)
    if (most := capacity(model)) is not None and most < length:
        log.warning("memory beside the weights holds at most %d tokens, fewer than the model's %d", most, length)
        length = most
    media = media_prompts(path, model.config, tokenizer, trust_remote_code)
    return LoadedModel(Forward(model, bool(adapters)), tokenizer, length, end, vocabulary, media)


def media_prompts(path: Path, config: Any, tokenizer: Any, trust_remote_code: bool) -> MediaPrompts | None:
    """Return what encodes images for the model in `path`; None where it reads text alone, or this engine cannot give it images."""
    if not reads_images(path):
        return None
    if not can_read_images(config):
        log.warning("images are refused: the engine transformers serves no model with cross-attention to images")
        return None
    try:
        return MediaPrompts(MediaProcessor.load(path, trust_remote_code), tokenizer)
    except RunFailure as error:  # the model still answers text
        log.warning("images are refused: %s", error)
        return None
