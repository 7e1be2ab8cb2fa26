"""Base model and tokenizer from the work directory."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.turns import end_of_turn
from tunesmith_runtime.errors import RunFailure


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, with a token to pad with.

    Raises RunFailure (ModelNotFound) where there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unreadable("tokenizer", error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, dtype: torch.dtype, trust_remote_code: bool = False) -> PreTrainedModel:
    """The causal language model in `folder`, from safetensors only, on the CPU.

    Raises RunFailure (ModelNotFound) where it cannot be read.
    """
    disable_progress_bar()  # a log is no terminal
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable("model", error) from error
    return model


def stored_dtype(folder: Path) -> torch.dtype:
    """The number format that config.json names for the weights; float32 where it names none."""
    config = json.loads((folder / "config.json").read_text())
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, str(name), None)
    return dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else torch.float32


def stop_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end an answer when the model is served: those of the tokenizer, its template, and generation_config.json."""
    configured: int | list[int] | None = None
    if (folder / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(folder).eos_token_id
    more = configured if isinstance(configured, list) else [configured]
    ends = [tokenizer.eos_token_id, end_of_turn(tokenizer), *more]
    return frozenset(token for token in ends if token is not None)


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """sha256 of the chat template."""
    template = tokenizer.chat_template
    return sha256(str(template).encode()).hexdigest() if template else None


def _unreadable(what: str, error: Exception) -> RunFailure:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return RunFailure(FailureClass.MODEL_NOT_FOUND, f"the {what} of the base model can't be read: {first}")
