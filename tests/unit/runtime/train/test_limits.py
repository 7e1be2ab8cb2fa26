"""Limits of a model that are checked before training: positions, vocabulary and weights."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.modelcheck.families import FAMILIES, copy, edit_json, edit_tensor, make
from tests.unit.runtime.train.support import make_run
from tunesmith_api.failures import FailureClass
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.models.files import limits

SHORT: dict[str, Any] = {"prompt": "What is a kiwi? ", "completion": "fruit"}
LONG: dict[str, Any] = {"prompt": "word " * 80, "completion": "fruit"}
BOTH = "training.maxLength is 2048 and the model has 64 positions"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with 64 positions, called n_positions in its config."""
    return make("gpt2", tmp_path_factory.mktemp("gpt2") / "model")


def failure(folder: Path, model: Path, rows: list[dict[str, Any]], **training: Any) -> RunFailure:
    with pytest.raises(RunFailure) as raised:
        make_run(folder, model, rows, training).do(train.run)
    return raised.value


def test_rows_longer_than_the_positions_of_the_model_are_dropped(
    gpt2: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    report = make_run(tmp_path, gpt2, [SHORT, SHORT, SHORT, LONG], {"maxLength": 2048, "epochs": 1}).do(train.run)
    assert report.rows is not None
    assert report.rows.kept == 3
    assert [(dropped.reason, dropped.count) for dropped in report.rows.dropped or ()] == [("TooLong", 1)]
    assert BOTH in caplog.text


def test_if_no_row_fits_max_length_and_positions_are_named(gpt2: Path, tmp_path: Path) -> None:
    refusal = failure(tmp_path, gpt2, [LONG], maxLength=2048)
    assert refusal.failure is FailureClass.EMPTY_DATASET
    assert BOTH in refusal.message


@pytest.mark.parametrize("length", [2048, 64, 32])
def test_the_hint_of_rows_beyond_the_positions_is_not_a_larger_max_length(
    gpt2: Path, tmp_path: Path, length: int
) -> None:
    refusal = failure(tmp_path, gpt2, [LONG], maxLength=length)
    assert refusal.hint == "split the rows into shorter ones"
    bound = "training.maxLength is 32" if length == 32 else "the model has 64 positions"
    assert f"tokens, and {bound}" in refusal.message


def with_tokens(model: Path, to: Path) -> Path:
    """Return the model with a tokenizer of more tokens than its embedding has rows; the last token is <last>."""
    from transformers import AutoTokenizer

    folder = copy(model, to)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([*(f"<field_{number}>" for number in range(520 - len(tokenizer))), "<last>"])
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_larger_than_the_embedding_is_refused(gpt2: Path, tmp_path: Path) -> None:
    refusal = failure(tmp_path / "run", with_tokens(gpt2, tmp_path / "model"), [SHORT])
    assert refusal.failure is FailureClass.BAD_MODEL
    assert "the tokenizer has 521 tokens, the embedding 520 rows: no row for <last>" in refusal.message


def test_a_row_with_a_token_outside_the_embedding_is_named(gpt2: Path, tmp_path: Path) -> None:
    model = with_tokens(gpt2, tmp_path / "model")
    named = {"extra_special_tokens": {"image_token": "<last>"}}
    edit_json(model / "tokenizer_config.json", lambda content: content.update(named))
    refusal = failure(tmp_path / "run", model, [SHORT, {**SHORT, "prompt": "<last> What is a kiwi? "}])
    assert refusal.failure is FailureClass.BAD_ROW
    for word in ("line 2", "'<last>'", "520 rows"):
        assert word in refusal.message


def test_nan_weights_are_named_and_refused(gpt2: Path, tmp_path: Path) -> None:
    model = copy(gpt2, tmp_path / "model")
    edit_tensor(model, "transformer.ln_f.weight", lambda tensor: {"transformer.ln_f.weight": tensor * math.nan})
    refusal = failure(tmp_path / "run", model, [SHORT] * 8)
    assert refusal.failure is FailureClass.BAD_MODEL
    assert "32 of 32 numbers of transformer.ln_f.weight are NaN or infinite" in refusal.message


@pytest.mark.parametrize(
    "change", [{"n_layer": 3}, {"model_type": "qwen3", **FAMILIES["qwen3"]}], ids=["more layers", "another type"]
)
def test_missing_weights_are_refused(gpt2: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    model = copy(gpt2, tmp_path / "model")
    edit_json(model / "config.json", lambda config: config.update(change))
    refusal = failure(tmp_path / "run", model, [SHORT] * 8)
    assert refusal.failure is FailureClass.BAD_MODEL
    assert "the files lack" in refusal.message


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "llama", "max_position_embeddings": 4096}, 4096),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "mpt", "max_seq_len": 2048}, 2048),
        ({"model_type": "bloom"}, None),
        (
            {
                "model_type": "qwen2",
                "max_position_embeddings": 32768,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
    ],
)
def test_positions_are_read_under_each_name_in_use(
    tmp_path: Path, config: dict[str, Any], expected: int | None
) -> None:
    (tmp_path / "config.json").write_text("{}")
    edit_json(tmp_path / "config.json", lambda content: content.update(config))
    assert limits(tmp_path).positions == expected


def test_an_end_token_of_the_generation_config_alone_is_learned(gpt2: Path, tmp_path: Path) -> None:
    from tunesmith_runtime.train.models.files import load_tokenizer

    model = copy(gpt2, tmp_path / "model")
    edit_json(model / "tokenizer_config.json", lambda content: content.pop("eos_token"))
    tokenizer = load_tokenizer(model)
    assert tokenizer.eos_token_id == tinymodel.make_tokenizer().eos_token_id
