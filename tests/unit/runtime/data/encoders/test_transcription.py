"""A transcript has the tokens that transformers' Whisper tokenizer makes of it, and labels behind its prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests import tinyspeech
from tunesmith_api.failures import FailureClass
from tunesmith_api.training import Training
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.records import Media, MediaKind, PlainText, Transcription
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.sources import MediaSource
from tunesmith_runtime.multimodal.speech import SpeechEncoder, SpeechProcessor

SOUNDS = {"short.wav": tinyspeech.wav(tinyspeech.tone("low", 0.5)), "damaged.wav": b"RIFF\0\0\0\0WAVE"}
PROMPT = ["<|startoftranscript|>", "<|fr|>", "<|transcribe|>", "<|notimestamps|>"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinyspeech.make_model(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="module")
def speech(base: Path, tokenizer: Any) -> SpeechEncoder:
    return SpeechEncoder(SpeechProcessor.load(base, tokenizer), MediaSource(SOUNDS.get))


def encoder(tokenizer: Any, speech: SpeechEncoder | None, **training: Any) -> Encoder:
    settings = Training.model_validate({"maxLength": 16, **training})
    return Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), settings, speech=speech)


def row(text: str, sound: str = "short.wav", language: str | None = "fr") -> Transcription:
    return Transcription(Media(MediaKind.AUDIO, (sound,)), text, language)


def test_the_prompt_is_context_and_the_transcript_with_its_end_is_learned(
    tokenizer: Any, speech: SpeechEncoder
) -> None:
    assert encoder(tokenizer, speech).encode(row("low high")) == [
        Example(
            tokenizer.convert_tokens_to_ids([*PROMPT, "Ġlow", "Ġhigh", "<|endoftext|>"]),
            [IGNORED] * 4 + tokenizer.convert_tokens_to_ids(["Ġlow", "Ġhigh", "<|endoftext|>"]),
            media=["short.wav"],
        )
    ]


def test_with_the_loss_on_all_tokens_the_labels_are_those_of_transformers(
    tokenizer: Any, speech: SpeechEncoder
) -> None:
    (example,) = encoder(tokenizer, speech, lossOn="all").encode(row("low high"))  # type: ignore[misc]
    tokenizer.set_prefix_tokens(language="fr", task="transcribe", predict_timestamps=False)
    assert example.labels == tokenizer(" low high").input_ids


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (row("low", "none.wav"), "names the sound none.wav, which does not exist"),
        (row("low", "damaged.wav"), "names the sound damaged.wav, which is cut off"),
        (row("low", language="tlh"), "names the language 'tlh'"),
        (row("low <|en|>"), "has a special token of the model in its text"),
    ],
)
def test_a_row_that_cannot_be_learned_is_a_bad_row(
    tokenizer: Any, speech: SpeechEncoder, record: Transcription, sentence: str
) -> None:
    with pytest.raises(RowError, match=sentence):
        encoder(tokenizer, speech).encode(record)


def test_a_transcript_that_is_too_long_is_dropped_and_never_cut(tokenizer: Any, speech: SpeechEncoder) -> None:
    assert encoder(tokenizer, speech, truncation="truncate").encode(row("low " * 20)) is DropReason.TOO_LONG


def test_sounds_need_a_speech_model_and_a_speech_model_sounds(tokenizer: Any, speech: SpeechEncoder) -> None:
    with pytest.raises(RunFailure, match="the base model is no speech model") as refused:
        encoder(tokenizer, None).encode(row("low"))
    assert refused.value.failure is FailureClass.BAD_SPEC
    with pytest.raises(RunFailure, match="learns from sounds with their texts alone") as refused:
        encoder(tokenizer, speech).encode(PlainText("low"))
    assert refused.value.failure is FailureClass.BAD_SPEC
