"""Multimodal models of a few hundred thousand parameters by family, with the tokenizer of the tiny language model."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import tinymodel

if TYPE_CHECKING:
    from transformers import PretrainedConfig

HIDDEN = 96
TEXT: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": HIDDEN,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 512,
    "initializer_range": 0.05,
    "tie_word_embeddings": True,
}
ROTATED = {**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 4, 4]}}
"""A decoder that rotates positions in time, height and width."""
SIGLIP = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
}  # fmt: skip
QWEN = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_vl": (
        "Qwen2VLConfig",
        {"text_config": ROTATED, "vision_config": {**QWEN, "embed_dim": 32, "hidden_size": HIDDEN, "mlp_ratio": 2}},
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLConfig",
        {
            "text_config": ROTATED,
            "vision_config": {**QWEN, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": HIDDEN, "fullatt_block_indexes": [1]},
        },
    ),
    "qwen3_vl": (
        "Qwen3VLConfig",
        {
            "text_config": ROTATED,
            "vision_config": {
                **QWEN, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": HIDDEN, "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
        },
    ),
    "internvl": (
        "InternVLConfig",
        {
            "text_config": {**TEXT, "model_type": "qwen3"},
            "vision_config": {**SIGLIP, "image_size": [32, 32], "patch_size": [8, 8]},
        },
    ),
    "llava": ("LlavaConfig", {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": {**SIGLIP, "model_type": "clip_vision_model"}}),
    "llava_onevision": (
        "LlavaOnevisionConfig",
        {"text_config": {**TEXT, "model_type": "qwen2"}, "vision_config": {**SIGLIP, "model_type": "siglip_vision_model"}},
    ),
    "gemma3": ("Gemma3Config", {"text_config": TEXT, "vision_config": SIGLIP, "mm_tokens_per_image": 4}),
    "mistral3": (
        "Mistral3Config",
        {"text_config": {**TEXT, "model_type": "mistral"}, "vision_config": {**SIGLIP, "model_type": "pixtral"}},
    ),
    "smolvlm": ("SmolVLMConfig", {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": SIGLIP, "scale_factor": 2}),
    "paligemma": (
        "PaliGemmaConfig",
        {
            "text_config": {**TEXT, "model_type": "gemma"},
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model", "projection_dim": HIDDEN},
        },
    ),
    "glm4v": (
        "Glm4vConfig",
        {
            "text_config": {**ROTATED, "pad_token_id": 0},
            "vision_config": {
                "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8, "out_hidden_size": HIDDEN,
                "spatial_merge_size": 2, "temporal_patch_size": 2, "image_size": 32,
            },
        },
    ),
    "mllama": (
        "MllamaConfig",
        {
            "text_config": {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1], "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "pad_token_id": 0},
            "vision_config": {
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2, "image_size": 32,
                "patch_size": 8, "vision_output_dim": 64, "intermediate_layers_indices": [0],
            },
        },
    ),
    "deepseek_vl": ("DeepseekVLConfig", {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": SIGLIP}),
    "ovis2": ("Ovis2Config", {"text_config": {**TEXT, "model_type": "qwen2"}, "vision_config": {**SIGLIP, "hidden_stride": 2, "vocab_size": 64, "num_visual_indicator_tokens": 5}, "visual_indicator_token_ids": [5, 6, 7, 8, 9], "hidden_size": HIDDEN, "vocab_size": 512}),
    "lfm2_vl": ("Lfm2VlConfig", {"text_config": {**TEXT, "layer_types": ["full_attention", "conv"]}, "vision_config": SIGLIP}),
    "qwen3_5": ("Qwen3_5Config", {"text_config": {**TEXT, "layer_types": ["full_attention", "full_attention"]}, "vision_config": {**QWEN, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": HIDDEN, "num_position_embeddings": 16}}),
}  # fmt: skip
"""Config class and settings of each family, by model_type."""
IMAGE_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML with parts. IMAGE stands for what a family writes for an image."""
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "yellow": (230, 230, 20)}


def make_config(family: str, ids: list[int]) -> PretrainedConfig:
    """The config of a tiny model. `ids`: of IMAGE_TOKENS."""
    import transformers

    name, settings = FAMILIES[family]
    start, end, image, video = ids
    tokens = {
        "image_token_id": image,
        "image_token_index": image,
        "video_token_id": video,
        "vision_start_token_id": start,
        "vision_end_token_id": end,
    }
    config: PretrainedConfig = getattr(transformers, name)(**settings, **tokens, tie_word_embeddings=True)
    return config


def skeleton(family: str) -> Any:
    """The model of a family on the meta device: names and shapes without numbers."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(make_config(family, [3, 4, 5, 6]))


def make_model(folder: Path, family: str, seed: int = 0) -> Path:
    """Save an untrained model of a family with its tokenizer; returns `folder`."""
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    tokenizer = tinymodel.make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(IMAGE_TOKENS)})
    config = make_config(family, [tokenizer.convert_tokens_to_ids(name) for name in IMAGE_TOKENS])
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    for part in (config, config.get_text_config()):
        for name, value in {**ends, "bos_token_id": 0}.items():
            setattr(part, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def add_processor(folder: Path, family: str) -> Path:
    """Save the processor of a family beside its model; returns `folder`."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    made = PROCESSORS[family](transformers, tokenizer)
    made.tokenizer.chat_template = made.chat_template
    made.save_pretrained(folder)
    return folder


def _qwen(version: str) -> Any:
    def make(transformers: Any, tokenizer: Any) -> Any:
        sizes = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
        budget = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
        image = transformers.Qwen2VLImageProcessor(**sizes, size=budget)
        name = {
            "Qwen2VL": "Qwen2VLVideoProcessor",
            "Qwen2_5_VL": "Qwen2VLVideoProcessor",
            "Qwen3VL": "Qwen3VLVideoProcessor",
        }[version]
        video = getattr(transformers, name)(**sizes, size=budget)
        template = CHAT_TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
        return getattr(transformers, f"{version}Processor")(image, tokenizer, video, chat_template=template)

    return make


PROCESSORS: dict[str, Any] = {
    "qwen2_vl": _qwen("Qwen2VL"),
    "qwen2_5_vl": _qwen("Qwen2_5_VL"),
    "qwen3_vl": _qwen("Qwen3VL"),
}
"""Makes the processor of each family from the module transformers and a tokenizer."""


def picture(colour: str, width: int = 32, height: int = 32, seed: int = 0) -> bytes:
    """A PNG of one colour, with little noise."""
    import numpy
    from PIL import Image

    noise = numpy.random.default_rng(seed).integers(-20, 20, (height, width, 3))
    pixels = (numpy.array(COLOURS[colour]) + noise).clip(0, 255).astype("uint8")
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def picture_rows(folder: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of format vqa that ask for the colour of a picture, whose files are written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        colour = list(COLOURS)[index % len(COLOURS)]
        name = f"{seed}-{index}.png"
        (folder / name).write_bytes(picture(colour, 32 + 16 * (index % 2), 32, seed=seed * 1000 + index))
        rows.append({"image_path": name, "text": "what is it?", "answer": colour})
    return rows
