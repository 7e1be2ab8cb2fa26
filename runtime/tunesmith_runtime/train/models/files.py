"""Reads the base model and its tokenizer from the work directory, and saves the trained weights."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.chat_template import template_hash
from tunesmith_runtime.data.turns import end_of_turn
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.config import Limits, positions
from tunesmith_runtime.modelcheck.failure import bad_model, detail
from tunesmith_runtime.modelcheck.loading import load_weights
from tunesmith_runtime.tasks import LANGUAGE, Task
from tunesmith_runtime.train.models.modalities import copy_processor

BASE = "the base model"
GENERATION = "generation_config.json"
UNSAVABLE = re.compile(r"^- `(\w+)`", re.MULTILINE)
"""A setting in the list that transformers gives of those that keep a generation config from being saved."""


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer in `folder`; it has an EOS and a padding token. Raises RunFailure (BadModel)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # tokenizers raise exceptions of any type
        raise bad_model(BASE, None, f"the tokenizer cannot be loaded: {detail(error)}") from error
    if tokenizer.eos_token is None and (ends := configured_ends(folder)):
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, trust_remote_code: bool = False, task: Task = LANGUAGE, **options: Any) -> PreTrainedModel:
    """Load the model in `folder` for a task on the CPU, unless `options` of `from_pretrained` name another device. With the
    option `config`, which has a new head, `folder` may hold a language model.

    Raises RunFailure (BadModel) if weights are missing.
    """
    model = load_weights(BASE, folder, task, trust_remote_code=trust_remote_code, **options)
    drop_unsavable(getattr(model, "generation_config", None))
    return model


def drop_unsavable(generation: GenerationConfig | None) -> None:
    """Unset settings without effect, such as a temperature without do_sample.

    transformers loads a generation_config.json that has them, but refuses to save it, which would fail after the training.
    """
    try:
        if generation is not None:
            generation.validate(strict=True)
    except ValueError as error:
        for name in UNSAVABLE.findall(str(error)):
            setattr(generation, name, None)


def save_trained(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    base: Path,
    base_uri: str,
    task: Task = LANGUAGE,
) -> Path:
    """Save the adapter or the model in `folder` as safetensors, with tokenizer and chat template; return `folder`.

    An adapter names its base by `base_uri`, as the path in this pod means nothing elsewhere. If it has a head, the config.json
    beside it describes the base with this head. A model is stored in the number format of its base, so that it needs no more
    room where it is served.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if isinstance(model, PeftModel):
        config = model.peft_config["default"]
        config.base_model_name_or_path = base_uri
        if not config.is_prompt_learning:
            config.target_modules = sorted(config.target_modules or ())  # a set is written in a random order
        model.save_pretrained(folder, save_embedding_layers=False)
        if task is not LANGUAGE:
            base_config = copy.deepcopy(model.get_base_model().config)
            vars(base_config).pop("quantization_config", None)  # the files of the base are in full precision
            base_config.save_pretrained(folder)
    else:
        save_model(model.to(stored_dtype(base)), folder, base)
    check_whole(folder)
    tokenizer.save_pretrained(folder)
    copy_processor(base, folder)
    (folder / "README.md").unlink(missing_ok=True)  # an empty card; run.json is the record
    return folder


def check_whole(folder: Path) -> None:
    """Check that no saved tensor is empty, as in a process that holds no part of it. Raises RunFailure (ProcessError)."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # not a dictionary
                if 0 in tensors.get_slice(name).get_shape():
                    raise RunFailure(
                        FailureClass.PROCESS_ERROR,
                        f"{path.name}: the tensor {name} has no elements, so that it was not gathered from all devices",
                        "set spec.parallelism.strategy: ddp, and report this model",
                    )


def save_model(model: PreTrainedModel, folder: Path, base: Path) -> None:
    """Save weights and configs in `folder`, with the settings of generation_config.json that `drop_unsavable` unset."""
    model.save_pretrained(folder)
    original, saved = base / GENERATION, folder / GENERATION
    if original.is_file() and saved.is_file():
        settings = json.loads(original.read_text()) | json.loads(saved.read_text())
        saved.write_text(json.dumps(settings, indent=2) + "\n")


def limits(folder: Path, trust_remote_code: bool = False) -> Limits:
    """Read the model's limits from config.json. Raises RunFailure (BadModel)."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # config classes raise exceptions of any type
        raise bad_model(BASE, None, f"config.json cannot be used: {detail(error)}") from error
    return Limits(positions(config), getattr(config.get_text_config(), "vocab_size", None))


def stored_dtype(folder: Path) -> torch.dtype:
    """Return the number format of the weights by config.json; float32 if it names none."""
    config = json.loads((folder / "config.json").read_text())
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, str(name), None)
    return dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else torch.float32


def stop_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end an answer when the model is served: of the tokenizer, its template, generation_config.json."""
    ends = [tokenizer.eos_token_id, end_of_turn(tokenizer), *configured_ends(folder)]
    return frozenset(token for token in ends if token is not None)


def configured_ends(folder: Path) -> list[int]:
    """Return the EOS tokens of generation_config.json."""
    if not (folder / GENERATION).is_file():
        return []
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def hash_of_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the sha256 of the chat template; None without one."""
    template = tokenizer.chat_template
    return template_hash(str(template)) if template else None
