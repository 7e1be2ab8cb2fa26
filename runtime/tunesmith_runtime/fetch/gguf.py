"""Converts GGUF to safetensors: weights in bf16, and the tokenizer and chat template of the file.

The metadata of the file gives the ids of its special tokens (`tokenizer.ggml.*_token_id`). For some models transformers
derives other tokens from the architecture, so they are set from the metadata here.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase

from tunesmith_runtime.data.turns import end_of_turn
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.gguf_header import ROPE, UPLOAD, check_magic, check_parts
from tunesmith_runtime.modelcheck.failure import bad_model, detail
from tunesmith_runtime.modelcheck.report import check_report

log = logging.getLogger(__name__)

SPECIAL_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    """Within the block, cache the parsed file, which transformers parses five times for config, tokenizer and weights, and raise
    RunFailure (BadModel) that names `uri` for whatever it raises."""
    functions = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, function in functions.items():
        setattr(gguf, name, functools.cache(function))
    try:
        yield
    except RunFailure:
        raise
    except Exception as error:  # the readers raise any exception on unexpected content
        raise bad_model(uri, None, f"the GGUF file cannot be read: {detail(error)}", UPLOAD) from error
    finally:
        for name, function in functions.items():
            setattr(gguf, name, function)


def convert_gguf(uri: str, file: Path, directory: Path) -> None:
    """Write the model of the GGUF `file` to `directory` in the form of transformers. Raises RunFailure (BadModel) that names `uri`."""
    check_magic(uri, file)
    with _reading(uri):
        reader = gguf.GGUFReader(str(file))
        check_parts(uri, reader)
        tokenizer = _load_tokenizer(file, reader)
        model, report = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_report refuses them
        )
    check_report(uri, report)
    check_all_used(uri, reader.tensors, model)
    if tokenizer.chat_template is None:
        log.warning("%s has no chat template", uri)
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
    if (end := end_of_turn(tokenizer)) not in (None, tokenizer.eos_token_id):
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    tokenizer.model_max_length = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    tokenizer.clean_up_tokenization_spaces = False  # it would change the spaces of an answer
    model.config.name_or_path = ""  # else it is a path in this pod
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def write_small_files(uri: str, file: Path, directory: Path) -> None:
    """Write config.json and the tokenizer of the GGUF `file`, of which only the header is needed, to `directory`.

    Raises RunFailure (BadModel) that names `uri`.
    """
    with _reading(uri):
        tokenizer = _load_tokenizer(file, gguf.GGUFReader(str(file)))
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _load_tokenizer(file: Path, reader: gguf.GGUFReader) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file, with the special tokens that its metadata name."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    fields = reader.fields
    set_special_tokens(
        tokenizer, {token: fields[name].contents() for token, name in SPECIAL_TOKENS.items() if name in fields}
    )
    return tokenizer


def check_all_used(uri: str, tensors: Sequence[Any], model: Any) -> None:
    """Raise RunFailure (BadModel) if transformers left out tensors of the file: it skips tensors with unknown names."""
    stored = {tensor.name: int(tensor.n_elements) for tensor in tensors if not tensor.name.startswith(ROPE)}
    loaded = {tensor.data_ptr(): tensor.numel() for tensor in model.state_dict().values()}
    if (surplus := sum(stored.values()) - sum(loaded.values())) > 0:
        sentence = f"{surplus} numbers of the file have no place in a {type(model).__name__}"
        raise bad_model(uri, None, sentence, "upload the model as safetensors")


def set_special_tokens(tokenizer: PreTrainedTokenizerBase, ids: dict[str, int]) -> None:
    """Set the special tokens of `tokenizer` by their ids. Without a padding token, the EOS token pads: no loss is taken on padding."""
    for token, identifier in ids.items():
        setattr(tokenizer, token, tokenizer.convert_ids_to_tokens(identifier))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
