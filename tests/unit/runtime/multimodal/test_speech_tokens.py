"""The prompt of a transcript is the one of transformers' Whisper tokenizer, and an unknown language is a bad row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tinyspeech
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.speech_tokens import SpeechTokens, spoken


def tokens_of(folder: Path, generation: dict[str, object] | None = None, **config: object) -> SpeechTokens:
    (folder / "generation_config.json").write_text(json.dumps(generation or {}))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 51865, **config}))
    return SpeechTokens.read(folder, tinyspeech.make_tokenizer().get_added_vocab())


@pytest.mark.parametrize("named", ["fr", "FR", "fr-CA", "fr_FR", "french", "French", "<|fr|>"])
def test_the_prompt_is_that_of_transformers(named: str, tmp_path: Path) -> None:
    tokens, tokenizer = tokens_of(tmp_path), tinyspeech.make_tokenizer()
    tokenizer.set_prefix_tokens(language="french", task="transcribe", predict_timestamps=False)
    assert tokens.prompt(tokens.language(named)) == tokenizer.prefix_tokens


@pytest.mark.parametrize(
    ("generation", "config"),
    [({"is_multilingual": False}, {}), ({}, {"vocab_size": 51864})],
    ids=["by its generation config", "by its size"],
)
def test_a_model_of_english_alone_has_a_prompt_without_language(
    generation: dict[str, object], config: dict[str, object], tmp_path: Path
) -> None:
    tokens = tokens_of(tmp_path, generation, **config)
    assert tokens.prompt(tokens.language(None)) == tinyspeech.make_tokenizer().prefix_tokens
    assert tokens.language("en-GB") == "en"
    with pytest.raises(RowError, match="names the language 'fr', and the model writes English alone"):
        tokens.language("fr")


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        (None, "has no 'language', and the model writes 7 languages: de, en, es, fr, ko, ru, zh"),
        ("tlh", "names the language 'tlh', and the model writes 7 languages"),
        ("", "names the language ''"),
    ],
)
def test_a_language_that_the_model_does_not_write_is_refused(named: str | None, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RowError, match=sentence) as refused:
        tokens_of(tmp_path).language(named)
    assert refused.value.hint == 'write its code of ISO 639, such as "language": "fr"'


def test_the_language_of_the_models_files_holds_where_a_row_names_none(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path, {"language": "<|zh|>"})
    assert (tokens.language(None), tokens.language("fr")) == ("zh", "fr")


def test_a_tokenizer_without_the_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match=r"the tokenizer has no token <\|startoftranscript\|>") as refused:
        SpeechTokens.read(tmp_path, {"<|endoftext|>": 0})
    assert refused.value.failure is FailureClass.BAD_MODEL


def test_words_begin_with_a_space_where_the_language_has_spaces() -> None:
    assert (spoken("bonjour\n", "fr"), spoken(" 你好 ", "zh")) == (" bonjour", "你好")
