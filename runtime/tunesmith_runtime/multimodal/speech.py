"""What a speech model hears and writes: the features of sounds, and the tokens around a transcript."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.sources import MediaSource, shown
from tunesmith_runtime.multimodal.speech_tokens import SpeechTokens

if TYPE_CHECKING:
    from torch import Tensor

FRAMES_OF_POSITION = 2
"""Frames of features that the encoder reads for each of its positions: its second convolution has this stride."""
Samples = NDArray[numpy.float32]


@dataclass(frozen=True)
class SpeechProcessor:
    """The feature extractor and the special tokens of a speech model."""

    extractor: Any
    """A transformers.WhisperFeatureExtractor."""
    tokens: SpeechTokens

    @classmethod
    def load(cls, folder: Path, tokenizer: Any) -> SpeechProcessor:
        """Load the feature extractor of the model in `folder`. Raises RunFailure (BadModel)."""
        from transformers import AutoFeatureExtractor

        try:
            extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # feature extractors raise errors of any type
            raise _refused(f"its feature extractor cannot be loaded: {error}") from error
        config = json.loads((folder / "config.json").read_text())
        _check_sizes(extractor, config)
        return cls(extractor, SpeechTokens.read(folder, tokenizer.get_added_vocab()))

    @property
    def rate(self) -> int:
        """Samples a second of the sounds that it reads."""
        return int(self.extractor.sampling_rate)

    @property
    def window_seconds(self) -> float:
        """Duration of what the model hears at a time."""
        return float(self.extractor.n_samples / self.rate)

    def features(self, sounds: Sequence[Samples]) -> Tensor:
        """Return the features (sounds, bins, frames) of sounds of at most a window, which are filled up with silence."""
        found = self.extractor([*sounds], sampling_rate=self.rate, return_tensors="pt")
        features: Tensor = found["input_features"]
        return features


@dataclass(frozen=True)
class SpeechEncoder:
    """Reads the sounds of rows for a speech model."""

    processor: SpeechProcessor
    source: MediaSource

    def samples(self, uri: str) -> Samples:
        """Return the samples of a sound. Raises RowError for one that cannot be read, or that is longer than the model's window: the
        model would learn to write words that it does not hear."""
        sound, most = self.source.sound(uri, self.processor.rate), self.processor.window_seconds
        if round(sound.seconds, 1) > most:
            raise RowError(
                f"names the sound {shown(uri)} of {sound.seconds:.1f} s, the model hears {most:g} s",
                f"cut the sound and its text into parts of at most {most:g} s",
            )
        return sound.samples


def _check_sizes(extractor: Any, config: dict[str, Any]) -> None:
    """Check that the features are of the shape that the encoder reads. Raises RunFailure (BadModel)."""
    frames = FRAMES_OF_POSITION * config.get("max_source_positions", 0)
    made, read = (extractor.feature_size, extractor.nb_max_frames), (config.get("num_mel_bins"), frames)
    if made != read:
        raise _refused(
            f"its feature extractor makes {made[0]} x {made[1]} features, and it reads {read[0]} x {read[1]}"
        )


def _refused(sentence: str) -> RunFailure:
    hint = "upload preprocessor_config.json of the model beside the weights"
    return RunFailure(FailureClass.BAD_MODEL, f"the base model: {sentence}", hint)
