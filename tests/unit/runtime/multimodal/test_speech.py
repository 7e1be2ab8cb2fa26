"""The features of sounds are those of transformers, and a sound that is longer than the model's window is a bad row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor

from tests import tinyspeech
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.sources import MediaSource
from tunesmith_runtime.multimodal.speech import SpeechEncoder, SpeechProcessor


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinyspeech.make_model(tmp_path_factory.mktemp("speech"), seconds=30)


@pytest.fixture(scope="module")
def processor(base: Path) -> SpeechProcessor:
    return SpeechProcessor.load(base, AutoTokenizer.from_pretrained(base))


def hearing(processor: SpeechProcessor, seconds: float) -> numpy.ndarray:
    sound = tinyspeech.wav(tinyspeech.tone("low", seconds))
    return SpeechEncoder(processor, MediaSource({"s3://data/a.wav": sound}.get)).samples("s3://data/a.wav")


def test_features_are_those_of_transformers(processor: SpeechProcessor) -> None:
    sounds = [tinyspeech.tone("low high", 0.7), tinyspeech.tone("middle", 1.3)]
    expected = WhisperFeatureExtractor()(sounds, sampling_rate=16_000, return_tensors="pt").input_features
    found = processor.features(sounds)
    assert found.shape == (2, 80, 3000)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("seconds", [30.0, 30.04])
def test_a_sound_of_a_window_is_heard(processor: SpeechProcessor, seconds: float) -> None:
    assert len(hearing(processor, seconds)) == round(16_000 * seconds)


def test_a_sound_that_is_longer_than_the_window_is_refused_with_both_durations(processor: SpeechProcessor) -> None:
    with pytest.raises(RowError, match=r"s3://data/a\.wav of 45\.0 s, the model hears 30 s") as refused:
        hearing(processor, 45.0)
    assert refused.value.hint == "cut the sound and its text into parts of at most 30 s"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "feature extractor cannot be loaded"),
        (
            {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 3},
            "makes 80 x 300 features, and it reads 80 x 3000",
        ),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128}, "makes 128 x 3000 features"),
    ],
)
def test_a_feature_extractor_of_another_model_is_refused(
    base: Path, tmp_path: Path, content: dict[str, object] | None, sentence: str
) -> None:
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    if content:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(RunFailure, match=sentence) as refused:
        SpeechProcessor.load(tmp_path, AutoTokenizer.from_pretrained(base))
    assert refused.value.failure is FailureClass.BAD_MODEL
