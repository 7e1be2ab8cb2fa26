"""The sizes of a language model, from config.json and, where they can be read, the headers of its safetensors files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tunesmith_api.training import ModelPart
from tunesmith_runtime.multimodal.part_names import part_of_weight

HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KEY_VALUE_HEADS = ("num_key_value_heads", "multi_query_group_num", "num_kv_heads", "n_head_kv")
INTERMEDIATE = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", "inner_dim")
VOCABULARY = ("vocab_size", "padded_vocab_size")
POSITIONS = ("n_positions", "max_position_embeddings", "n_ctx")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "num_selected_experts")
EXPERT_INTERMEDIATE = ("moe_intermediate_size", "expert_ffn_hidden_size")
"""Keys of one size in the configurations of different families, in the order in which they are tried."""

PLAIN_MLP = frozenset(
    {
        "gpt2", "gpt_neo", "gptj", "gpt_neox", "gpt_bigcode", "codegen", "opt", "bloom", "falcon", "mpt", "phi", "starcoder2",
        "nemotron", "persimmon", "xglm", "biogpt",
    }
)  # fmt: skip
"""Model types whose MLP has two linear layers. All others have a third one, the gate (Shazeer, 2020)."""
TIED = frozenset(
    {
        "gpt2", "gpt_neo", "gpt_bigcode", "opt", "bloom", "falcon", "mpt", "gemma", "gemma2", "gemma3", "gemma3_text", "cohere",
        "cohere2", "starcoder2", "xglm", "biogpt",
    }
)  # fmt: skip
"""Model types whose head is the embedding unless config.json says otherwise."""
QK_NORMS = frozenset(
    {"qwen3", "qwen3_moe", "gemma3", "gemma3_text", "olmo2", "olmo3", "hunyuan_v1_dense", "apertus", "smollm3"}
)
"""Model types that normalize queries and keys."""
LEARNED_POSITIONS = frozenset({"gpt2", "gpt_neo", "gpt_bigcode", "opt", "biogpt"})
FUSED_ATTENTION = {"gpt2": "c_attn", "gpt_bigcode": "c_attn", "gpt_neox": "query_key_value", "bloom": "query_key_value",
                   "falcon": "query_key_value", "phi3": "qkv_proj", "mpt": "Wqkv"}  # fmt: skip
"""Model types that compute queries, keys and values in one linear layer -> its name."""
FUSED_GATE = frozenset({"phi3", "glm", "glm4"})
"""Model types that compute gate and up in one linear layer, gate_up_proj."""

NUMBER_BYTES: Mapping[str, float] = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of a number by its dtype in a safetensors header."""
CONFIG_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number by `dtype` of config.json."""


class UnknownArchitecture(ValueError):
    """config.json does not hold the sizes of a language model. The message names the missing ones."""


class Place(StrEnum):
    """Place of a linear layer in a decoder layer. Layers of the same place share their input."""

    ATTENTION = "attention"
    """Queries, keys and values."""
    OUTPUT = "output"
    """After attention."""
    MLP = "mlp"
    """Gate and up."""
    DOWN = "down"
    """After the activation of the MLP."""


@dataclass(frozen=True)
class Linear:
    """A linear layer that occurs in each decoder layer: the end of its module's name, its sizes, and its place."""

    name: str
    inputs: int
    outputs: int
    place: Place

    @property
    def parameters(self) -> int:
        """Numbers of its weight."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Beside:
    """A part of a multimodal model beside its decoder."""

    parameters: int = 0
    linears: tuple[Linear, ...] = ()
    """Its linear layers, each of them."""


@dataclass(frozen=True)
class Architecture:
    """The sizes of a decoder."""

    model_type: str
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate: int
    """Width of the MLP that a token passes through: with experts, of those that a token is sent to."""
    vocabulary: int
    is_tied: bool
    """Whether the output head is the embedding."""
    has_gate: bool
    """Whether the MLP has a gate."""
    has_qk_norm: bool
    linears: tuple[Linear, ...]
    """Linear layers of each decoder layer that an adapter may be added to."""
    parameters: int
    active_parameters: int
    """Parameters that a token is multiplied with: without the embedding, and of the experts only the chosen ones."""
    stored_bytes: int
    """Bytes of the weights as they are stored."""
    is_exact: bool = False
    """Whether the parameters were counted in the files."""
    vision: Beside = Beside()
    """What reads images and sounds."""
    aligner: Beside = Beside()
    """What aligns their features with the decoder."""

    @property
    def beside(self) -> Mapping[ModelPart, Beside]:
        """The parts beside the decoder."""
        return {ModelPart.VISION: self.vision, ModelPart.ALIGNER: self.aligner}

    @property
    def other_parameters(self) -> int:
        """Parameters beside the decoder."""
        return sum(part.parameters for part in self.beside.values())

    @property
    def all_parameters(self) -> int:
        """Parameters of the decoder and of what is beside it."""
        return self.parameters + self.other_parameters

    @property
    def query_size(self) -> int:
        """Numbers of the queries of a token."""
        return self.heads * self.head_size

    @property
    def key_size(self) -> int:
        """Numbers of the keys of a token, and of its values."""
        return self.key_value_heads * self.head_size

    @property
    def largest_layer(self) -> int:
        """Parameters of one decoder layer."""
        embeddings = self.vocabulary * self.hidden * (1 if self.is_tied else 2)
        return max(0, self.parameters - embeddings) // max(self.layers, 1)


def without_output_layer(architecture: Architecture) -> Architecture:
    """Return `architecture` with a small head instead of the output layer."""
    layer = 0 if architecture.is_tied else architecture.vocabulary * architecture.hidden
    return replace(
        architecture,
        parameters=architecture.parameters - layer,
        active_parameters=max(1, architecture.active_parameters - architecture.vocabulary * architecture.hidden),
    )


def sliced(architecture: Architecture, devices: int) -> Architecture:
    """Return the part of `architecture` on each of `devices` that share its layers: heads, and a slice of each linear
    layer."""
    linears = tuple(
        replace(each, inputs=each.inputs // devices)
        if each.place in (Place.OUTPUT, Place.DOWN)
        else replace(each, outputs=each.outputs // devices)
        for each in architecture.linears
    )
    saved = sum(each.parameters for each in architecture.linears) - sum(each.parameters for each in linears)
    return replace(
        architecture,
        heads=max(1, architecture.heads // devices),
        key_value_heads=max(1, architecture.key_value_heads // devices),
        intermediate=architecture.intermediate // devices,
        linears=linears,
        parameters=architecture.parameters - architecture.layers * saved,
    )


def staged(architecture: Architecture, stages: int) -> Architecture:
    """Return the largest part of `architecture` on a device of a pipeline with `stages` stages: layers, and the
    embedding or the head."""
    layers, table = -(-architecture.layers // stages), architecture.vocabulary * architecture.hidden
    return replace(
        architecture,
        layers=layers,
        is_tied=True,
        parameters=layers * architecture.largest_layer + table + architecture.hidden,
    )


@dataclass(frozen=True)
class Mlp:
    """The MLP of a decoder layer, or its experts."""

    linears: tuple[Linear, ...]
    """Its linear layers, without experts, which are not adapted."""
    intermediate: int
    """Width that computes for a token."""
    parameters: int
    active_parameters: int
    """Those that compute for a token."""


def _mlp_of(text: Mapping[str, Any], kind: str, hidden: int) -> Mlp:
    dense, experts, has_gate = _size(text, INTERMEDIATE, 4 * hidden), _size(text, EXPERTS, 0), kind not in PLAIN_MLP
    if not experts:
        linears = _mlp(kind, hidden, dense, has_gate)
        parameters = sum(each.parameters for each in linears)
        return Mlp(linears, dense, parameters, parameters)
    width, per_token = _size(text, EXPERT_INTERMEDIATE, dense), _size(text, EXPERTS_PER_TOKEN, 2)
    expert, router = hidden * width * (3 if has_gate else 2), hidden * experts
    return Mlp((), width * per_token, experts * expert + router, per_token * expert + router)


def from_config(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a config.json. Parameters are counted from the sizes only.

    Raises UnknownArchitecture if a size is missing.
    """
    text = {**config, **config["text_config"]} if isinstance(config.get("text_config"), Mapping) else dict(config)
    kind = str(text.get("model_type") or config.get("model_type") or "")
    hidden, layers, heads = _size(text, HIDDEN), _size(text, LAYERS), _size(text, HEADS)
    vocabulary, head_size = _size(text, VOCABULARY), _size(text, ("head_dim",), hidden // heads)
    has_one_key = text.get("multi_query") and not text.get("new_decoder_architecture")
    key_value_heads = 1 if has_one_key else _size(text, KEY_VALUE_HEADS, heads)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    is_tied = bool(tied) if tied is not None else kind in TIED
    attention, mlp = (
        _attention(kind, hidden, heads * head_size, key_value_heads * head_size),
        _mlp_of(text, kind, hidden),
    )
    layer = sum(each.parameters for each in attention) + 2 * hidden
    embedding = vocabulary * hidden
    positions = _size(text, POSITIONS, 0) * hidden if kind in LEARNED_POSITIONS else 0
    total = layers * (layer + mlp.parameters) + embedding * (1 if is_tied else 2) + positions + hidden
    dtype = text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype") or config.get("dtype")
    return Architecture(
        model_type=kind,
        hidden=hidden,
        layers=layers,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        intermediate=mlp.intermediate,
        vocabulary=vocabulary,
        is_tied=is_tied,
        has_gate=kind not in PLAIN_MLP,
        has_qk_norm=kind in QK_NORMS,
        linears=(*attention, *mlp.linears),
        parameters=total,
        active_parameters=layers * (layer + mlp.active_parameters) + hidden + embedding,
        stored_bytes=total * CONFIG_BYTES.get(str(dtype), 4),
    )


@dataclass(frozen=True)
class Tensor:
    """A tensor of a safetensors header."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def tensors_of(header: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors of a safetensors header (https://github.com/huggingface/safetensors#format)."""
    return [
        Tensor(name, str(entry["dtype"]), tuple(entry["shape"]))
        for name, entry in header.items()
        if name != "__metadata__"
    ]


LAYER = re.compile(r"\.(\d+)\.(?:[\w.]*\.)?(\w+)\.weight$")
"""A weight of a decoder layer: the number of the layer, and the last name of the module."""
EXPERT = re.compile(r"\.experts\.|\.block_sparse_moe\.")
ATTENTION = re.compile(r"\.(self_attn|attn|attention|self_attention|mixer)\.")
OUTPUTS = frozenset({"o_proj", "out_proj", "c_proj", "dense", "wo", "attn_out"})
DOWN = frozenset({"c_proj", "fc_out", "down_proj", "w2", "fc2", "dense_4h_to_h"})
"""Last names of modules that other families split into several layers of one shape."""
EMBEDDING = re.compile(r"embed(ding|dings|s)?$")
"""The end of the names of modules whose weight is a table."""


def with_headers(architecture: Architecture, tensors: Iterable[Tensor]) -> Architecture:
    """Return `architecture` with the parameters, bytes and linear layers that the files hold."""
    tensors = list(tensors)
    parts = {part: [each for each in tensors if part_of_weight(each.name) is part] for part in ModelPart}
    known = parts[ModelPart.LANGUAGE]
    if not known:
        return architecture
    linears: dict[str, Linear] = {}
    first = next((match[1] for each in known if (match := LAYER.search(each.name))), None)
    for each in known:
        match = LAYER.search(each.name)
        if match and match[1] == first and len(each.shape) == 2 and not EXPERT.search(each.name):
            path = each.name.removesuffix(".weight")
            linears[path] = Linear(
                match[2], each.shape[1], each.shape[0], _place(path, architecture.hidden, each.shape)
            )
    total = sum(each.numbers for each in known)
    has_head = any(each.name.endswith(("lm_head.weight", "embed_out.weight", "output_layer.weight")) for each in known)
    inactive = max(0, architecture.parameters - architecture.active_parameters)
    embedding = architecture.vocabulary * architecture.hidden
    tied = not has_head
    if tied != architecture.is_tied:  # the inactive embedding was counted with the other assumption
        inactive = max(0, inactive + (-embedding if tied else embedding))
    return replace(
        architecture,
        is_tied=tied,
        linears=tuple(linears.values()) or architecture.linears,
        parameters=total,
        active_parameters=max(1, total - inactive),
        stored_bytes=round(sum(each.numbers * NUMBER_BYTES.get(each.dtype, 4) for each in tensors)),
        is_exact=True,
        vision=_beside(parts[ModelPart.VISION]),
        aligner=_beside(parts[ModelPart.ALIGNER]),
    )


def _beside(tensors: Iterable[Tensor]) -> Beside:
    """Return a part of these tensors."""
    tensors = list(tensors)
    paths = ((each.name.removesuffix(".weight"), each) for each in tensors if each.name.endswith(".weight"))
    linears = tuple(
        Linear(path.rsplit(".", 1)[-1], each.shape[1], each.shape[0], Place.MLP)
        for path, each in paths
        if len(each.shape) == 2 and not EMBEDDING.search(path)
    )
    return Beside(sum(each.numbers for each in tensors), linears)


def _place(path: str, hidden: int, shape: tuple[int, ...]) -> Place:
    """The place of a layer, by the path of its module and the shape of its weight (outputs, inputs)."""
    name = path.rsplit(".", 1)[-1]
    if ATTENTION.search(path):
        return Place.OUTPUT if name in OUTPUTS else Place.ATTENTION
    return Place.DOWN if shape[0] == hidden or name in DOWN else Place.MLP


def _attention(kind: str, hidden: int, query: int, key: int) -> tuple[Linear, ...]:
    out = Linear("c_proj" if kind in ("gpt2", "gpt_bigcode") else "o_proj", query, hidden, Place.OUTPUT)
    if kind in FUSED_ATTENTION:
        return Linear(FUSED_ATTENTION[kind], hidden, query + 2 * key, Place.ATTENTION), out
    sizes = {"q_proj": query, "k_proj": key, "v_proj": key}
    return (*(Linear(name, hidden, size, Place.ATTENTION) for name, size in sizes.items()), out)


def _mlp(kind: str, hidden: int, width: int, has_gate: bool) -> tuple[Linear, ...]:
    up, down = ("c_fc", "c_proj") if kind in ("gpt2", "gpt_bigcode") else ("up_proj", "down_proj")
    last = Linear(down, width, hidden, Place.DOWN)
    if kind in FUSED_GATE:
        return Linear("gate_up_proj", hidden, 2 * width, Place.MLP), last
    first = Linear(up, hidden, width, Place.MLP)
    return (Linear("gate_proj", hidden, width, Place.MLP), first, last) if has_gate else (first, last)


def _size(config: Mapping[str, Any], names: tuple[str, ...], default: int | None = None) -> int:
    """Return the first size among `names`. Raises UnknownArchitecture if there is none and no default."""
    found = (config.get(name) for name in names)
    size = next(
        (value for value in found if isinstance(value, int) and not isinstance(value, bool) and value > 0), default
    )
    if size is None:
        raise UnknownArchitecture(f"config.json has none of {', '.join(names)}")
    return size
