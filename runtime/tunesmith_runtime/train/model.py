"""Base model and tokenizer from the work directory."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from tunesmith_runtime.data.turns import end_of_turn
from tunesmith_runtime.modelcheck.config import Limits, positions
from tunesmith_runtime.modelcheck.failure import bad_model, detail
from tunesmith_runtime.modelcheck.loading import load_weights

BASE = "the base model"
GENERATION = "generation_config.json"
UNSAVABLE = re.compile(r"^- `(\w+)`", re.MULTILINE)
"""How transformers lists settings of a generation config that it does not save."""


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, with tokens to end and to pad with. Raises RunFailure (BadModel) where there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # tokenizers raise anything at what they do not expect
        raise bad_model(BASE, None, f"the tokenizer can't be loaded: {detail(error)}") from error
    if tokenizer.eos_token is None and (ends := configured_ends(folder)):
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, dtype: torch.dtype, trust_remote_code: bool = False) -> PreTrainedModel:
    """The causal language model in `folder`, on the CPU. Raises RunFailure (BadModel) where it can't be loaded whole."""
    model = load_weights(BASE, folder, dtype=dtype, trust_remote_code=trust_remote_code)
    drop_unsavable(getattr(model, "generation_config", None))
    return model


def drop_unsavable(generation: GenerationConfig | None) -> None:
    """Unset settings that have no effect beside the others, such as a temperature without do_sample.

    transformers loads a generation_config.json with such settings and refuses to save it, which would be after the training.
    """
    try:
        if generation is not None:
            generation.validate(strict=True)
    except ValueError as error:
        for name in UNSAVABLE.findall(str(error)):
            setattr(generation, name, None)


def save_model(model: PreTrainedModel, folder: Path, base: Path) -> None:
    """Save weights and configs to `folder`; settings of generation_config.json that were unset are as in `base` again."""
    model.save_pretrained(folder)
    original, saved = base / GENERATION, folder / GENERATION
    if original.is_file() and saved.is_file():
        settings = json.loads(original.read_text()) | json.loads(saved.read_text())
        saved.write_text(json.dumps(settings, indent=2) + "\n")


def limits(folder: Path, trust_remote_code: bool = False) -> Limits:
    """The limits that config.json names. Raises RunFailure (BadModel) where it can't be read."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # config classes raise anything at values that they do not expect
        raise bad_model(BASE, None, f"config.json can't be used: {detail(error)}") from error
    return Limits(positions(config), getattr(config.get_text_config(), "vocab_size", None))


def stored_dtype(folder: Path) -> torch.dtype:
    """The number format that config.json names for the weights; float32 where it names none."""
    config = json.loads((folder / "config.json").read_text())
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, str(name), None)
    return dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else torch.float32


def stop_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end an answer when the model is served: those of the tokenizer, its template, and generation_config.json."""
    ends = [tokenizer.eos_token_id, end_of_turn(tokenizer), *configured_ends(folder)]
    return frozenset(token for token in ends if token is not None)


def configured_ends(folder: Path) -> list[int]:
    """The end tokens that generation_config.json names."""
    if not (folder / GENERATION).is_file():
        return []
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """sha256 of the chat template."""
    template = tokenizer.chat_template
    return sha256(str(template).encode()).hexdigest() if template else None
