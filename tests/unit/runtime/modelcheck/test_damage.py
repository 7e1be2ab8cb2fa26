"""Models of five architectures with a single damage each: it is named, or it changes no logit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import tinymodel
from tests.unit.runtime.modelcheck.families import (
    FAMILIES,
    copy,
    edit_json,
    edit_tensor,
    logits,
    make,
    names,
    shard_of,
)
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck import check_model

URI = "s3://models/tiny"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Tensor]:
    """An architecture, a good model of it, and its logits."""
    folder = make(request.param, tmp_path_factory.mktemp(request.param) / "good")
    return request.param, folder, logits(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model, for damages that do not depend on the architecture."""
    return make("llama", tmp_path_factory.mktemp("llama") / "good")


def check(folder: Path, is_lenient: bool = False) -> bool:
    return check_model(URI, folder, trusted=False, is_lenient=is_lenient)


def found(folder: Path) -> RunFailure | None:
    """The failure of the check; None if the model passes."""
    try:
        check(folder)
    except RunFailure as failure:
        return failure
    return None


def fault(folder: Path, is_lenient: bool = False) -> RunFailure:
    """The failure of a damaged model, of a class that is never retried."""
    with pytest.raises(RunFailure) as failure:
        check(folder, is_lenient)
    assert failure.value.failure in (FailureClass.BAD_MODEL, FailureClass.MODEL_NOT_FOUND)
    assert URI in failure.value.message
    return failure.value


def test_a_good_model_passes(family: tuple[str, Path, Tensor]) -> None:
    assert check(family[1])


def _renamed(tensor: Tensor, name: str) -> dict[str, Tensor]:
    return {name + "_1": tensor}


def _transposed(tensor: Tensor) -> Tensor:
    """As far as the shape shows it."""
    return tensor.T if tensor.dim() == 2 and tensor.shape[0] != tensor.shape[1] else tensor


def _infinite(tensor: Tensor, name: str) -> dict[str, Tensor]:
    tensor.view(-1)[-1] = math.inf
    return {name: tensor}


def _not_a_number(tensor: Tensor, name: str) -> dict[str, Tensor]:
    tensor.view(-1)[0] = math.nan
    return {name: tensor}


DAMAGES: dict[str, Callable[[Tensor, str], dict[str, Tensor]]] = {
    "removed": lambda tensor, name: {},
    "renamed": _renamed,
    "flattened": lambda tensor, name: {name: tensor.reshape(-1, 1)},
    "transposed": lambda tensor, name: {name: _transposed(tensor)},
    "cut": lambda tensor, name: {name: tensor[:-1]},
    "NaN": _not_a_number,
    "infinite": _infinite,
    "doubled under another name": lambda tensor, name: {name: tensor, f"extra.{name}": tensor.clone()},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tensor_is_named_or_harmless(family: tuple[str, Path, Tensor], tmp_path: Path, damage: str) -> None:
    _, good, expected = family
    chosen = [name for name in names(good) if re.search(r"(embed_tokens|wte|\.1\..*|norm|ln_f)\.weight$", name)]
    for number, name in enumerate(chosen):
        folder = copy(good, tmp_path / str(number))
        edit_tensor(folder, name, lambda tensor, name=name: DAMAGES[damage](tensor, name))
        failure = found(folder)
        if failure is None:
            assert torch.equal(logits(folder), expected), f"{name} {damage}"
        else:
            assert failure.failure is FailureClass.BAD_MODEL
            assert name in failure.message or shard_of(good, name).name in failure.message


CONFIG_CHANGES: dict[str, dict[str, Any]] = {
    "more layers": {"num_hidden_layers": 3, "n_layer": 3, "layer_types": None},
    "fewer layers": {"num_hidden_layers": 1, "n_layer": 1, "layer_types": None},
    "absurdly many layers": {"num_hidden_layers": 10**9, "n_layer": 10**9, "layer_types": None},
    "wider": {"hidden_size": 64, "n_embd": 64},
    "another feed-forward": {"intermediate_size": 64, "n_inner": 64},
    "more tokens": {"vocab_size": 600},
    "fewer tokens": {"vocab_size": 515},
    "another architecture": {"architectures": ["LlamaForSequenceClassification"]},
    "an unknown architecture": {"architectures": ["NoSuchForCausalLM"]},
    "an unknown model type": {"model_type": "no-such"},
    "no model type": {"model_type": None},
    "a type that is no language model": {"model_type": "vit"},
    "an unknown activation": {
        "hidden_act": "no-such",
        "hidden_activation": "no-such",
        "activation_function": "no-such",
    },
    "a text for a number": {"hidden_size": "wide", "n_embd": "wide"},
    "a negative number": {"hidden_size": -4, "n_embd": -4},
    "an end token that is none": {"eos_token_id": 5000},
    "a padding token that is none": {"pad_token_id": 5000},
}


@pytest.mark.parametrize("change", CONFIG_CHANGES)
def test_a_config_that_does_not_fit_the_weights_is_refused(
    family: tuple[str, Path, Tensor], tmp_path: Path, change: str
) -> None:
    folder = copy(family[1], tmp_path / "bad")
    wanted = CONFIG_CHANGES[change]

    def edit(config: dict[str, Any]) -> None:
        for key, value in wanted.items():
            if key in config or len(wanted) == 1:
                config[key] = value
                if value is None:
                    del config[key]

    edit_json(folder / "config.json", edit)
    assert "config.json" in fault(folder).message


def test_a_tied_head_with_other_values_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path / "bad")
    edit_json(folder / "config.json", lambda config: config.update(tie_word_embeddings=True))
    assert "tie_word_embeddings ties lm_head.weight to model.embed_tokens.weight" in fault(folder).message


def test_an_untied_head_that_is_missing_is_reported(family: tuple[str, Path, Tensor], tmp_path: Path) -> None:
    if not FAMILIES[family[0]]["tie_word_embeddings"]:
        pytest.skip("has a head of its own")
    folder = copy(family[1], tmp_path / "bad")
    edit_json(folder / "config.json", lambda config: config.update(tie_word_embeddings=False))
    assert "lm_head.weight" in fault(folder).message


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("awq", {"quantization_config": {"quant_method": "awq", "bits": 4}}),
        ("gptq", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
        ("bitsandbytes", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),
        ("fp8", {"quantization_config": {"quant_method": "fp8"}}),
        ("compressed-tensors", {"compression_config": {"quant_method": "compressed-tensors"}}),
        ("quantization", {"quantization": {"group_size": 64, "bits": 4}}),
        ("mxfp4", {"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}),
    ],
)
def test_a_quantized_model_is_refused_unless_an_engine_loads_it(
    llama: Path, tmp_path: Path, method: str, change: dict[str, Any]
) -> None:
    folder = copy(llama, tmp_path / "bad")
    edit_json(folder / "config.json", lambda config: config.update(change))
    failure = fault(folder)
    assert f"the model is quantized ({method})" in failure.message
    assert "unquantized model" in (failure.hint or "")
    assert check(folder, is_lenient=True) is False


def test_an_architecture_unknown_to_transformers_is_left_to_the_engine(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path / "other")
    edit_json(folder / "config.json", lambda config: config.update(model_type="no-such"))
    assert check(folder, is_lenient=True) is False


FILES: dict[str, tuple[str, bytes | None, str]] = {
    "an index that is no JSON": (INDEX, b'{"weight_map": ', f"{INDEX}: not JSON"),
    "an index without a map": (INDEX, b"{}", f"{INDEX}: has no weight_map"),
    "an index that is a list": (INDEX, b"[]", f"{INDEX}: holds a JSON list"),
    "an index of files elsewhere": (
        INDEX,
        b'{"weight_map": {"a": "../a.safetensors"}}',
        r"\.\./a\.safetensors is missing",
    ),
    "a shard that is missing": (
        "model-00001-of-00004.safetensors",
        None,
        "model-00001-of-00004.safetensors is missing",
    ),
    "a shard that is a pointer": (
        "model-00001-of-00004.safetensors",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "model-00001-of-00004.safetensors: a Git LFS pointer",
    ),
    "a shard that is a page": ("model-00001-of-00004.safetensors", b"<!DOCTYPE html>", "an HTML page"),
    "a shard that is a zip": ("model-00001-of-00004.safetensors", b"PK\x03\x04" + b"\0" * 60, "a zip archive"),
    "a shard that is empty": ("model-00001-of-00004.safetensors", b"", "empty, not a whole safetensors file"),
    "a shard that is a pickle": ("model-00001-of-00004.safetensors", b"\x80\x04" + b"\0" * 60, "a pickle"),
    "a config that is no JSON": ("config.json", b"{'model_type': 'llama'}", "config.json: not JSON"),
    "a config that is a page": ("config.json", b"<html></html>", "config.json: not JSON: an HTML page"),
    "a config that is no UTF-8": ("config.json", b'{"a": "\xff"}', "config.json: not JSON"),
    "a config too deep": ("config.json", b"[" * 200_000, "config.json: not JSON"),
    "no tokenizer": ("tokenizer.json", None, "no tokenizer"),
    "a tokenizer that is no JSON": ("tokenizer.json", b"{", "tokenizer.json: not JSON"),
    "a tokenizer that is JSON": ("tokenizer.json", b"{}", "the tokenizer cannot be loaded"),
    "settings that are no JSON": ("tokenizer_config.json", b"nothing", "tokenizer_config.json: not JSON"),
    "generation settings that are no JSON": ("generation_config.json", b"<html>", "generation_config.json: not JSON"),
    "a template with a syntax error": (
        "chat_template.jinja",
        b"{% for m in messages %}\n{{ m.content }}\n{% endfor",
        "chat_template.jinja: line 3 of the chat template",
    ),
    "a template with an unknown filter": ("chat_template.jinja", b"{{ messages | no_such }}", "chat_template.jinja"),
}


@pytest.mark.parametrize("damage", FILES)
def test_a_file_with_another_format_than_its_name_is_named(llama: Path, tmp_path: Path, damage: str) -> None:
    folder = copy(llama, tmp_path / "bad")
    name, content, sentence = FILES[damage]
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    assert re.search(sentence, fault(folder).message)


def test_an_index_that_names_the_wrong_shard_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path / "bad")
    edit_json(
        folder / INDEX, lambda index: index["weight_map"].update({"lm_head.weight": "model-00002-of-00004.safetensors"})
    )
    assert "lm_head.weight" in fault(folder).message


def test_shards_that_hold_the_same_tensor_are_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path / "bad")
    path = shard_of(folder, "model.norm.weight")
    (folder / "extra.safetensors").write_bytes(path.read_bytes())
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({"model.norm.weight": "extra.safetensors"}))
    assert f"extra.safetensors, {path.name} hold the same tensors" in fault(folder).message


def test_a_header_whose_tensors_overlap_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path / "bad")
    path = shard_of(folder, "model.norm.weight")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    first, second = list(header)[-2:]
    header[first]["data_offsets"] = header[second]["data_offsets"]
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length :])
    assert "overlap" in fault(folder).message


def _with_tokens(folder: Path, tokens: list[str]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(tokens)
    tokenizer.save_pretrained(folder)


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path / "bad")
    _with_tokens(folder, [f"<field_{number}>" for number in range(80)])
    sentence = r"the tokenizer has \d+ tokens, the embedding 520 rows: no row for <field_"
    assert re.search(sentence, fault(folder).message)


def test_an_embedding_with_more_rows_than_tokens_is_fine(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path / "padded")
    _with_tokens(folder, ["<one more>"])
    assert check(folder)


def test_a_model_without_an_end_token_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path / "endless")
    for name in ("config.json", "generation_config.json"):
        edit_json(folder / name, lambda content: content.update(eos_token_id=None))
    edit_json(folder / "tokenizer_config.json", lambda content: content.pop("eos_token"))
    assert "no answer would end" in fault(folder).message


def test_a_template_that_needs_other_messages_is_accepted(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy(llama, tmp_path / "strict")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('the first message must be a document') }}")
    assert check(folder)
    assert "the first message must be a document" in caplog.text


def test_faults_that_no_shape_shows_are_not_detected(llama: Path, tmp_path: Path) -> None:
    """As docs/models.md documents."""
    folder = copy(llama, tmp_path / "other")
    edit_json(folder / "config.json", lambda config: config.update(rms_norm_eps=0.5))
    assert check(folder)


def _whole(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The model with its tensors changed, in one file."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
        path.unlink()
    (folder / INDEX).unlink()
    save_file(change(tensors), folder / "model.safetensors", {"format": "pt"})
    return folder


def test_extra_tensors_of_old_checkpoints_are_harmless(llama: Path, tmp_path: Path) -> None:
    frequencies = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}
    assert check(_whole(copy(llama, tmp_path / "llama"), lambda tensors: tensors | frequencies))
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64) for layer in range(2)}
    masks |= {f"h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(2)}
    gpt2 = make("gpt2", tmp_path / "gpt2")
    _whole(
        gpt2, lambda tensors: {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()} | masks
    )
    assert check(gpt2)


def test_a_tied_head_that_is_stored_as_well_is_harmless(tmp_path: Path) -> None:
    qwen = make("qwen3", tmp_path / "qwen3")
    _whole(qwen, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    assert check(qwen)


def test_a_token_for_pictures_needs_no_row_in_a_text_model(llama: Path, tmp_path: Path) -> None:
    """As in the text models of Gemma 3."""
    folder = copy(llama, tmp_path / "text")
    padding = 520 - len(tinymodel.make_tokenizer())
    _with_tokens(folder, [*(f"<unused{number}>" for number in range(padding)), "<image_soft_token>"])
    assert "no row for <image_soft_token>" in fault(folder).message
    edit_json(
        folder / "tokenizer_config.json",
        lambda content: content.update(extra_special_tokens={"image_token": "<image_soft_token>"}),
    )
    assert check(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool, torch.complex64])
def test_weights_that_are_not_floating_point_are_refused(llama: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    """transformers casts them to the model's format without a warning, and the model computes something else."""
    folder, name = copy(llama, tmp_path / "cast"), "model.layers.1.mlp.up_proj.weight"
    edit_tensor(folder, name, lambda tensor: {name: tensor.to(dtype)})
    failure = fault(folder)
    assert name in failure.message
    assert "no floating point format" in failure.message


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_any_floating_point_format_are_fine(llama: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    assert check(_whole(copy(llama, tmp_path / "cast"), lambda found: {name: found[name].to(dtype) for name in found}))


def test_a_negative_end_token_means_none(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path / "endless")
    for name in ("config.json", "generation_config.json"):
        edit_json(folder / name, lambda content: content.update(eos_token_id=-1))
    assert check(folder)  # the tokenizer has an end token
    edit_json(folder / "tokenizer_config.json", lambda content: content.pop("eos_token"))
    assert "no answer would end" in fault(folder).message


def _named_in_config(folder: Path, template: str) -> str:
    templates = [{"name": "default", "template": tinymodel.CHAT_TEMPLATE}, {"name": "tool_use", "template": template}]
    (folder / "chat_template.jinja").unlink()
    edit_json(folder / "tokenizer_config.json", lambda content: content.update(chat_template=templates))
    return "tokenizer_config.json"


def _named_by_file(folder: Path, template: str) -> str:
    file = folder / "additional_chat_templates/tool_use.jinja"
    file.parent.mkdir()
    file.write_text(template)
    return "additional_chat_templates/tool_use.jinja"


@pytest.mark.parametrize("put", [_named_in_config, _named_by_file])
def test_each_of_several_templates_is_compiled(llama: Path, tmp_path: Path, put: Callable[[Path, str], str]) -> None:
    good, bad = copy(llama, tmp_path / "good"), copy(llama, tmp_path / "bad")
    put(good, "{{ messages }}{{ tools }}")
    assert check(good)
    file = put(bad, "{{ messages }}\n{% for %}")
    assert f"{URI}/{file}: line 2 of the chat template" in fault(bad).message


@pytest.mark.parametrize("metadata", [None, "none at all"])
def test_an_index_that_transformers_cannot_read_is_named(llama: Path, tmp_path: Path, metadata: str | None) -> None:
    folder = copy(llama, tmp_path / "bad")
    edit_json(folder / INDEX, lambda index: index.update(metadata=None) if metadata is None else index.pop("metadata"))
    failure = fault(folder)
    assert f"{URI}/{INDEX}: has no object metadata" in failure.message
    edit_json(folder / INDEX, lambda index: index.update(metadata={}))  # follow the hint
    assert check(folder)


def test_an_adapter_beside_a_whole_model_is_refused(llama: Path, tmp_path: Path) -> None:
    """transformers would load the adapter, on whatever base its config names."""
    folder = copy(llama, tmp_path / "both")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/other"}')
    assert "adapter_config.json: lies beside a whole model" in fault(folder).message
    (folder / "adapter_config.json").unlink()  # follow the hint
    assert check(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_a_byte_order_mark_is_named_before_transformers_fails_on_it(llama: Path, tmp_path: Path, name: str) -> None:
    folder = copy(llama, tmp_path / "marked")
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    failure = fault(folder)
    assert f"{URI}/{name}: not JSON: Unexpected UTF-8 BOM" in failure.message
    assert "without a byte order mark" in (failure.hint or "")


def test_a_tokenizer_in_another_format_has_a_hint_to_convert_it(llama: Path, tmp_path: Path) -> None:
    """The images have no sentencepiece, and transformers' own message asks for a package."""
    folder = copy(llama, tmp_path / "sentencepiece")
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02" * 3)
    edit_json(folder / "tokenizer_config.json", lambda content: content.update(tokenizer_class="LlamaTokenizer"))
    assert "add tokenizer.json" in (fault(folder).hint or "")
    (tmp_path / "tokenizer.json").rename(folder / "tokenizer.json")  # follow the hint
    assert check(folder)
