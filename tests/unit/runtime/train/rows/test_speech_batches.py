"""A training on sounds takes the loss of transformers' Whisper, and publishes a model that writes down sounds that it has not heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from tests import tinyspeech
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome
from tunesmith_api.status import ArtifactType
from tunesmith_runtime import export, train
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.sources import MediaSource
from tunesmith_runtime.multimodal.speech import SpeechEncoder, SpeechProcessor
from tunesmith_runtime.storage.directory import download_directory
from tunesmith_runtime.train.losses.cross_entropy import answer_loss
from tunesmith_runtime.train.rows.batches import padded
from tunesmith_runtime.train.rows.speech_batches import SpeechCollator
from tunesmith_runtime.workdir import DataFile

SETTINGS: dict[str, Any] = {
    "epochs": 20, "globalBatchSize": 8, "learningRate": 3e-3, "scheduler": "constant", "warmupRatio": 0,
}  # fmt: skip
SOUNDS = {word: tinyspeech.tone(word, 0.9, seed) for seed, word in enumerate(tinyspeech.WORDS)}
FILES = {f"{word}.wav": tinyspeech.wav(sound) for word, sound in SOUNDS.items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinyspeech.make_model(tmp_path_factory.mktemp("speech"))


def beside(run: Run, sounds: Path) -> Run:
    """The run with rows that name the files in the folder `sounds`."""
    run.work.write_data_files([DataFile(path="00.jsonl", uri=f"file://{sounds}/train.jsonl", dataset=0)])
    return run


def collator(base: Path) -> SpeechCollator:
    tokenizer = AutoTokenizer.from_pretrained(base)
    speech = SpeechEncoder(SpeechProcessor.load(base, tokenizer), MediaSource(FILES.get))

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        columns = ([row[name] for row in rows] for name in ("input_ids", "labels"))
        return padded(*columns, tokenizer.pad_token_id)

    return SpeechCollator(collate, speech)


@pytest.mark.parametrize("ignored", [1, 4], ids=["loss on all tokens", "loss on the transcript"])
def test_the_loss_of_a_batch_is_that_of_transformers(base: Path, ignored: int) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(base), WhisperForConditionalGeneration.from_pretrained(base)
    tokenizer.set_prefix_tokens(language="fr", task="transcribe")
    texts = {"low": " low", "high": " high shrill low"}
    ids = {word: tokenizer(text).input_ids for word, text in texts.items()}
    rows = [
        {"input_ids": each, "labels": [IGNORED] * ignored + each[ignored:], "media": [f"{word}.wav"]}
        for word, each in ids.items()
    ]
    with torch.no_grad():
        found = answer_loss(model, model.get_output_embeddings(), collator(base)(rows))

        features = WhisperFeatureExtractor.from_pretrained(base)(
            [SOUNDS[word] for word in texts], sampling_rate=16_000, return_tensors="pt"
        ).input_features
        labels = padded([*ids.values()], [row["labels"] for row in rows], tokenizer.pad_token_id)["labels"]
        expected = model(
            input_features=features,
            decoder_input_ids=padded([*ids.values()], labels.tolist(), tokenizer.pad_token_id)["input_ids"][:, :-1],
            labels=labels[:, 1:],
        ).loss
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # the file has 16 bits


def test_a_blank_row_is_silence(base: Path) -> None:
    rows = [{"input_ids": [1, 1], "labels": [IGNORED, IGNORED], "media": media} for media in (None, ["low.wav"])]
    silent, low = collator(base)(rows)["media"]["input_features"]
    assert float(silent.std()) == 0.0 < float(low.std())


def transcript(folder: Path, words: str, seed: int) -> str:
    """What transformers writes down of a sound, greedily."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), WhisperForConditionalGeneration.from_pretrained(folder)
    features = WhisperFeatureExtractor.from_pretrained(folder)(
        tinyspeech.tone(words, 1.0, seed), sampling_rate=16_000, return_tensors="pt"
    ).input_features
    tokenizer.set_prefix_tokens(language="fr", task="transcribe")
    ids = tokenizer.prefix_tokens
    with torch.no_grad():
        while len(ids) < 12 and ids[-1] != tokenizer.eos_token_id:
            logits = model(input_features=features, decoder_input_ids=torch.tensor([ids])).logits
            ids = [*ids, int(logits[0, -1].argmax())]
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def trained(folder: Path, model: Path, rows: list[dict[str, Any]], settings: dict[str, Any], **spec: Any) -> Path:
    """The last artifact of a run on rows that name files in `folder / "sounds"`."""
    run = beside(make_run(folder / "run", model, rows, settings, **spec), folder / "sounds")
    report = run.do(train.run)
    assert report.outcome is Outcome.SUCCEEDED
    assert report.metrics is not None
    assert report.metrics.tokens == settings["epochs"] * len(rows) * len(["prompt"] * 4 + ["word", "end"])
    artifact = (run.do(export.run).artifacts or [])[-1]
    download_directory(run.directory.storage, artifact.uri, folder / artifact.name)
    return folder / artifact.name


def test_a_trained_model_writes_down_tones_that_it_has_not_heard(base: Path, tmp_path: Path) -> None:
    rows = tinyspeech.tone_rows(tmp_path / "sounds", 32)
    model = trained(tmp_path, base, rows, SETTINGS, tuner="full")
    assert [transcript(model, word, 999) for word in tinyspeech.WORDS] == [f" {word}" for word in tinyspeech.WORDS]


@pytest.mark.deep
def test_the_merge_of_an_adapter_writes_down_what_the_adapter_has_learned(base: Path, tmp_path: Path) -> None:
    rows = tinyspeech.tone_rows(tmp_path / "sounds", 32)
    model = trained(tmp_path, base, rows, SETTINGS, tuner="full")
    swapped = [{**row, "text": {"low": "high", "high": "low"}.get(row["text"], row["text"])} for row in rows]
    (tmp_path / "adapter").mkdir()
    tinyspeech.tone_rows(tmp_path / "adapter" / "sounds", 32)
    merged = trained(tmp_path / "adapter", model, swapped, {**SETTINGS, "learningRate": 2e-2}, tuner="lora")
    assert merged.name == ArtifactType.MERGED
    assert [transcript(merged, word, 999) for word in ("low", "middle", "high")] == [" high", " middle", " low"]


def test_a_row_of_a_sound_that_is_too_long_fails_the_run_or_is_dropped_as_on_bad_row_says(
    base: Path, tmp_path: Path
) -> None:
    rows = tinyspeech.tone_rows(tmp_path / "sounds", 16)
    (tmp_path / "sounds" / "0-3.wav").write_bytes(tinyspeech.wav(numpy.zeros(24_000, numpy.float32)))
    run = beside(make_run(tmp_path / "run", base, rows, {"epochs": 1}), tmp_path / "sounds")
    with pytest.raises(RunFailure, match=r"line 4: .*0-3\.wav of 1\.5 s, the model hears 1 s") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_ROW
    dropping = make_run(tmp_path / "dropping", base, rows, {"maxSteps": 1, "epochs": None}, onBadRow="Drop")
    report = beside(dropping, tmp_path / "sounds").do(train.run)
    assert report.rows is not None
    assert report.rows.kept == 15
    assert [(each.reason, each.count) for each in report.rows.dropped or ()] == [("BadRow", 1)]
