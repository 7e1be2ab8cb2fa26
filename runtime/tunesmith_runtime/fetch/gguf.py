"""GGUF to safetensors: weights unpacked to bf16, and the tokenizer and chat template that the file carries.

The format's own metadata names the special tokens by id (`tokenizer.ggml.*_token_id`); transformers takes other ones
from the file's architecture for some models, so they are set from the metadata here.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.turns import end_of_turn
from tunesmith_runtime.errors import RunFailure

log = logging.getLogger(__name__)

SPECIAL_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


@contextmanager
def _parsed_once() -> Iterator[None]:
    """transformers parses the file for the config, the tokenizer and the weights, five times in all; once is enough.

    With a vocabulary of 49,152 tokens the conversion of a small model then takes 17 s of CPU time instead of 39.
    """
    functions = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, function in functions.items():
        setattr(gguf, name, functools.cache(function))
    try:
        yield
    finally:
        for name, function in functions.items():
            setattr(gguf, name, function)


def convert_gguf(uri: str, file: Path, directory: Path) -> None:
    """Write the model in the GGUF `file` to `directory` as transformers has it. Raises RunFailure (ModelNotFound) that names `uri`."""
    try:
        with _parsed_once():
            fields = gguf.GGUFReader(str(file)).fields
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
            )
    except (ValueError, KeyError, IndexError, NotImplementedError, OSError) as error:
        message = f"model {uri}: the GGUF file can't be read: {type(error).__name__}: {error}"
        raise RunFailure(
            FailureClass.MODEL_NOT_FOUND, message, "upload the file anew, or the model as safetensors"
        ) from error
    set_special_tokens(
        tokenizer, {token: fields[name].contents() for token, name in SPECIAL_TOKENS.items() if name in fields}
    )
    if tokenizer.chat_template is None:
        log.warning("%s carries no chat template", uri)
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
    if (end := end_of_turn(tokenizer)) not in (None, tokenizer.eos_token_id):
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    tokenizer.model_max_length = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    tokenizer.clean_up_tokenization_spaces = False  # it would change the spaces of an answer
    model.config.name_or_path = ""  # a path of this pod means nothing to others
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def set_special_tokens(tokenizer: PreTrainedTokenizerBase, ids: dict[str, int]) -> None:
    """Give `tokenizer` the special tokens of those ids; padding falls back on the end of the text, which no loss is taken on."""
    for token, identifier in ids.items():
        setattr(tokenizer, token, tokenizer.convert_ids_to_tokens(identifier))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
