"""A sound is cut at quiet moments into windows that hold all of it once, and each is written down as transformers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationMixin

from tests import tinyspeech
from tunesmith_runtime.serve.generation.speech import SpeechModel, joined, load_speech, windows

RATE = 1000


@given(
    seconds=st.floats(0.001, 200.0),
    longest=st.sampled_from([1.0, 3.0, 30.0]),
    loud=st.booleans(),
    seed=st.integers(0, 9),
)
def test_each_sample_is_in_one_window_and_none_is_longer(seconds: float, longest: float, loud: bool, seed: int) -> None:
    count = max(1, round(seconds * RATE))
    samples = numpy.random.default_rng(seed).normal(0, float(loud), count).astype("float32")
    found = [*windows(samples, RATE, longest)]
    assert [window.start for window in found] == [0, *(window.end for window in found[:-1])]
    assert found[-1].end == count
    assert all(0 < window.end - window.start <= longest * RATE for window in found)
    assert all(window.end - window.start >= longest / 2 * RATE for window in found[:-1])
    if len(found) > 1:
        assert found[-1].end - found[-1].start >= min(1.0, longest / 4) * RATE


def test_a_window_ends_in_the_pause_between_words() -> None:
    sound = tinyspeech.tone("low", 27.0), numpy.zeros(8_000, numpy.float32), tinyspeech.tone("high", 20.0)
    first, second = windows(numpy.concatenate(sound), tinyspeech.RATE, 30.0)
    assert 27.0 < first.end / tinyspeech.RATE < 27.5
    assert (second.start, second.end / tinyspeech.RATE) == (first.end, 47.5)


def test_texts_are_joined_with_spaces_where_the_language_has_them() -> None:
    assert joined(["one", "", "two"], "en") == "one two"
    assert joined(["一", "二"], "zh") == "一二"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    folder = tinyspeech.make_model(tmp_path_factory.mktemp("speech"), init_std=0.3)
    return load_speech(folder, {}, trust_remote_code=False, device="cpu")


@pytest.mark.parametrize("word", ["low", "shrill"])
def test_the_text_of_a_window_is_that_of_transformers(model: SpeechModel, word: str) -> None:
    sound, tokens = tinyspeech.tone(word), model.processor.tokens
    options: Any = {
        "decoder_input_ids": torch.tensor([tokens.prompt("fr")]),
        "suppress_tokens": sorted(tokens.special - model.ends),
        "begin_suppress_tokens": sorted(model.ends),
        "max_new_tokens": model.model.config.max_target_positions - 4,
        "do_sample": False,
    }
    (expected,) = GenerationMixin.generate(model.model, model.processor.features([sound]), **options)
    text = model.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert model.write(sound, "fr", None) == text
    assert len(text) > 5


def test_the_language_of_a_sound_is_the_most_probable_one(model: SpeechModel) -> None:
    sound, tokens = tinyspeech.tone("high"), model.processor.tokens
    with torch.no_grad():
        start = torch.tensor([[tokens.start]])
        logits = model.model(input_features=model.processor.features([sound]), decoder_input_ids=start).logits[0, 0]
    scores = {code: float(logits[token]) for code, token in tokens.languages.items()}
    assert model.language(sound, None) == max(scores, key=scores.__getitem__)


def test_an_adapter_writes_by_its_name_and_leaves_the_base_as_it_is(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import WhisperForConditionalGeneration

    base, sound = tinyspeech.make_model(tmp_path / "base", init_std=0.3), tinyspeech.tone("low")
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(WhisperForConditionalGeneration.from_pretrained(base), config).save_pretrained(tmp_path / "fr")
    adapted = load_speech(base, {"fr": tmp_path / "fr"}, trust_remote_code=False, device="cpu")
    alone = load_speech(base, {}, trust_remote_code=False, device="cpu").write(sound, "fr", None)
    found = [adapted.write(sound, "fr", name) for name in (None, "fr", None)]
    assert found[0] == found[2] == alone != found[1]
