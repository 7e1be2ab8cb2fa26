"""A speech model that writes down sounds of any length, window by window."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import AutoTokenizer

from tunesmith_api.inferenceservice import Engine
from tunesmith_runtime.modelcheck.adapters import adapter_config, check_kind
from tunesmith_runtime.modelcheck.failure import bad_model, detail
from tunesmith_runtime.modelcheck.loading import load_weights, with_adapter
from tunesmith_runtime.modelcheck.tokenizer import check_loaded
from tunesmith_runtime.multimodal.speech import Samples, SpeechProcessor
from tunesmith_runtime.multimodal.speech_tokens import UNSPACED
from tunesmith_runtime.serve.generation.model import CPU_TYPE_VARIABLE, end_tokens

SEARCHED_SECONDS = 5.0
"""Seconds at the end of a window in which the quietest moment is looked for."""
QUIET_SECONDS = 0.1
"""Length of that moment."""
SHORTEST_SECONDS = 1.0
"""The last window is at least as long: of less sound, speech models invent text."""


@dataclass(frozen=True)
class Window:
    """A part of a sound, in samples."""

    start: int
    end: int


@dataclass(frozen=True)
class Segment:
    """The text of a part of a sound, in seconds."""

    start: float
    end: float
    text: str


def windows(samples: Samples, rate: int, longest_seconds: float) -> Iterator[Window]:
    """Yield the parts of a sound, none longer than a window, which end at quiet moments so that no word is cut. Each sample is in one."""
    quarter = longest_seconds / 4  # so that no window is shorter than half of the longest
    searched_seconds, least_seconds = min(SEARCHED_SECONDS, quarter), min(SHORTEST_SECONDS, quarter)
    most, searched, least, quiet = (
        round(seconds * rate) for seconds in (longest_seconds, searched_seconds, least_seconds, QUIET_SECONDS)
    )
    start = 0
    while len(samples) - start > most:
        end = min(start + most, len(samples) - least)
        cut = end - searched + _quietest(samples[end - searched : end], quiet)
        yield Window(start, cut)
        start = cut
    yield Window(start, len(samples))


def _quietest(samples: Samples, length: int) -> int:
    """Return the middle of the quietest part of `length` samples."""
    if len(samples) <= length:
        return len(samples) // 2
    energy = numpy.cumsum(numpy.concatenate([[0.0], numpy.square(samples, dtype=numpy.float64)]))
    return int((energy[length:] - energy[:-length]).argmin()) + length // 2


@dataclass(frozen=True)
class SpeechModel:
    """A speech model with its adapters. One thread uses it at a time."""

    model: Any
    """A transformers model; with adapters, within PEFT's."""
    processor: SpeechProcessor
    tokenizer: Any
    ends: frozenset[int]
    has_adapters: bool

    def language(self, samples: Samples, adapter: str | None) -> str:
        """Return the code of the language that is spoken in a window: the most probable one."""
        tokens = self.processor.tokens
        if tokens.default is not None or not tokens.languages:
            return tokens.language(None)
        with self._using(adapter):
            scores = self._scores(self._heard(samples), [tokens.start], None).logits[0, -1]
        return max(tokens.languages, key=lambda code: float(scores[tokens.languages[code]]))

    def write(self, samples: Samples, language: str, adapter: str | None) -> str:
        """Return the text that is spoken in a window. Each token is the most probable one."""
        ids = self.processor.tokens.prompt(language)
        with self._using(adapter):
            written = self._continue(self._heard(samples), ids)
        return str(self.tokenizer.decode(written, skip_special_tokens=True)).strip()

    @torch.inference_mode()
    def _continue(self, heard: Any, prompt: list[int]) -> list[int]:
        config = self.model.generation_config
        never = {*(config.suppress_tokens or ()), *(self.processor.tokens.special - self.ends)}
        first = {*(config.begin_suppress_tokens or ()), *never}
        written: list[int] = []
        cache = None
        for _ in range(self.model.config.max_target_positions - len(prompt)):
            output = self._scores(heard, [written[-1]] if written else prompt, cache)
            scores, cache = output.logits[0, -1], output.past_key_values
            scores[sorted(never if written else first)] = -torch.inf
            token = int(scores.argmax())
            if token in self.ends:
                break
            written.append(token)
        return written

    @torch.inference_mode()
    def _heard(self, samples: Samples) -> Any:
        """What the encoder makes of a window."""
        features = self.processor.features([samples]).to(self.model.device, self.model.dtype)
        return self._bare.get_encoder()(features)

    @torch.inference_mode()
    def _scores(self, heard: Any, ids: Sequence[int], cache: Any) -> Any:
        tokens = torch.tensor([ids], device=self.model.device)
        return self._bare(encoder_outputs=heard, decoder_input_ids=tokens, past_key_values=cache, use_cache=True)

    @property
    def _bare(self) -> Any:
        """The transformers model, whose layers hold the adapters."""
        return self.model.get_base_model() if self.has_adapters else self.model

    def _using(self, adapter: str | None) -> Any:
        if not self.has_adapters:
            return nullcontext()
        if adapter is None:
            return self.model.disable_adapter()
        self.model.set_adapter(adapter, inference_mode=True)
        return nullcontext()


def joined(texts: Sequence[str], language: str) -> str:
    """Return the texts of successive windows as one."""
    return ("" if language in UNSPACED else " ").join(text for text in texts if text)


def load_speech(
    path: Path, adapters: Mapping[str, Path], trust_remote_code: bool, device: str | None = None
) -> SpeechModel:
    """Load weights, tokenizer, feature extractor and LoRA adapters, as `model.load` does for language models. Raises RunFailure."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = (os.environ.get(CPU_TYPE_VARIABLE) or "float32") if device == "cpu" else "auto"
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # tokenizers raise errors of any type for unexpected files
        raise bad_model(str(path), None, f"the tokenizer cannot be loaded: {detail(error)}") from error
    model: Any = load_weights(str(path), path, dtype=dtype, trust_remote_code=trust_remote_code).to(device).eval()
    check_loaded(str(path), path, tokenizer, model.get_input_embeddings().weight.shape[0])
    processor, ends = SpeechProcessor.load(path, tokenizer), end_tokens(model, tokenizer)
    for name, folder in adapters.items():
        check_kind(name, adapter_config(name, folder), Engine.TRANSFORMERS, len(adapters) == 1)
        model = with_adapter(model, name, folder)
    model.requires_grad_(False)
    return SpeechModel(model, processor, tokenizer, ends, bool(adapters))
