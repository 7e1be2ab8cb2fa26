"""Sizes of models from config.json alone, against the parameters that their publishers name."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_runtime.estimate.architecture import Place, UnknownArchitecture, from_config, tensors_of, with_headers

LLAMA_3_2_3B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
LLAMA_3_1_8B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MISTRAL_7B: dict[str, Any] = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN2_5_7B: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MIXTRAL_8X7B: dict[str, Any] = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_30B_A3B: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
    "num_experts": 128, "num_experts_per_tok": 8, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}

PUBLISHED = [
    (LLAMA_3_2_3B, 3.21e9), (LLAMA_3_1_8B, 8.03e9), (MISTRAL_7B, 7.24e9), (QWEN2_5_7B, 7.62e9), (MIXTRAL_8X7B, 46.7e9),
    (QWEN3_30B_A3B, 30.5e9), (GPT2, 124.4e6),
]  # fmt: skip


@pytest.mark.parametrize(("config", "parameters"), PUBLISHED)
def test_the_parameters_of_a_config_are_those_that_its_publisher_names(
    config: dict[str, Any], parameters: float
) -> None:
    assert from_config(config).parameters == pytest.approx(parameters, rel=0.005)


def test_a_token_passes_through_the_experts_that_it_is_sent_to() -> None:
    assert from_config(MIXTRAL_8X7B).active_parameters == pytest.approx(12.8e9, rel=0.01)
    assert from_config(QWEN3_30B_A3B).active_parameters == pytest.approx(3.0e9, rel=0.05)
    assert from_config(LLAMA_3_1_8B).active_parameters == from_config(LLAMA_3_1_8B).parameters - 128256 * 4096


def test_the_sizes_of_a_multimodal_model_are_those_of_its_language_part() -> None:
    nested = {"model_type": "qwen2_5_vl", "text_config": QWEN2_5_7B, "vision_config": {"hidden_size": 1280}}
    assert from_config(nested).parameters == from_config(QWEN2_5_7B).parameters


def test_a_vision_tower_is_stored_and_not_part_of_the_decoder() -> None:
    config = {
        "model_type": "llava",
        "text_config": {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10},
    }
    header = {
        "model.language_model.embed_tokens.weight": {"dtype": "BF16", "shape": (10, 4)},
        "model.vision_tower.layers.0.fc1.weight": {"dtype": "BF16", "shape": (8, 3)},
        "model.multi_modal_projector.linear_1.weight": {"dtype": "F32", "shape": (4, 3)},
    }
    found = with_headers(from_config(config), tensors_of(header))
    assert (found.parameters, found.other_parameters, found.stored_bytes) == (40, 36, 2 * 40 + 2 * 24 + 4 * 12)
    assert (found.vision.parameters, found.aligner.parameters) == (24, 12)


def test_a_config_without_sizes_is_refused_with_the_names_that_were_looked_for() -> None:
    with pytest.raises(UnknownArchitecture, match="hidden_size, n_embd"):
        from_config({"model_type": "clip"})


def test_headers_replace_what_was_guessed_of_a_config() -> None:
    names = {"q_proj": (8, 4), "k_proj": (2, 4), "v_proj": (2, 4), "o_proj": (4, 8)}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for layer in range(2):
        for name, shape in names.items():
            header[f"model.layers.{layer}.self_attn.{name}.weight"] = {"dtype": "BF16", "shape": shape}
        for name, shape in {"gate_proj": (6, 4), "up_proj": (6, 4), "down_proj": (4, 6)}.items():
            header[f"model.layers.{layer}.mlp.{name}.weight"] = {"dtype": "F32", "shape": shape}
        header[f"model.layers.{layer}.input_layernorm.weight"] = {"dtype": "BF16", "shape": (4,)}
    header["model.embed_tokens.weight"] = {"dtype": "BF16", "shape": (10, 4)}
    config = {
        "model_type": "llama",
        "hidden_size": 4,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 10,
    }
    found = with_headers(from_config(config), tensors_of(header))
    attention, mlp = 8 * 4 + 2 * 4 + 2 * 4 + 4 * 8, 3 * 24
    assert found.parameters == 2 * (attention + mlp + 4) + 40
    assert found.stored_bytes == 2 * (2 * attention + 4 * mlp + 2 * 4) + 2 * 40
    assert found.is_tied
    assert found.is_exact
    assert found.other_parameters == 0
    assert [each.name for each in found.linears] == [*names, "gate_proj", "up_proj", "down_proj"]
    places = [each.place for each in found.linears]
    assert places == [Place.ATTENTION] * 3 + [Place.OUTPUT] + [Place.MLP] * 2 + [Place.DOWN]
