"""Compares a tokenizer with the embedding: tokens, special tokens, chat templates. Imports transformers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tunesmith_runtime.modelcheck.failure import bad_model, detail, first_of
from tunesmith_runtime.modelcheck.files import read_json
from tunesmith_runtime.modelcheck.tokenizer_files import TEMPLATE, TOKENIZER, TOKENIZER_CONFIG

log = logging.getLogger(__name__)

CONVERT = "add tokenizer.json: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it where sentencepiece and tiktoken are installed"
SPECIAL = ("eos_token_id", "bos_token_id", "pad_token_id")
CONFIGS = ("config.json", "generation_config.json")
ELSEWHERE = ("image", "video", "audio", "boi", "eoi", "boa", "eoa")
"""Special tokens for pictures, video and sound, for which a text model of such a family has no embedding rows."""
PLAIN = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
TEMPLATES = "additional_chat_templates"


def check_tokenizer(uri: str, directory: Path, rows: int) -> None:
    """Check the tokenizer in a folder against an embedding with `rows` rows. Raises RunFailure (BadModel)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # tokenizers raise errors of any type for unexpected files
        hint = None if (directory / TOKENIZER).is_file() else CONVERT
        raise bad_model(uri, None, f"the tokenizer cannot be loaded: {detail(error)}", hint) from error
    check_loaded(uri, directory, tokenizer, rows)


def check_loaded(uri: str, directory: Path, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Check a loaded tokenizer. Raises RunFailure (BadModel)."""
    check_vocabulary(uri, tokenizer, rows)
    check_special_tokens(uri, directory, tokenizer, rows)
    check_template(uri, directory, tokenizer)


def check_vocabulary(uri: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Check that each token has a row of the embedding, which may have more rows. Raises RunFailure (BadModel)."""
    tokens = tokenizer.get_vocab()
    if not tokens:
        raise bad_model(uri, None, "the tokenizer has no tokens", "upload the tokenizer's files beside the weights")
    elsewhere = {getattr(tokenizer, f"{kind}_token", None) for kind in ELSEWHERE}
    if surplus := {token for token, number in tokens.items() if number >= rows and token not in elsewhere}:
        size = max(tokens.values()) + 1
        sentence = f"the tokenizer has {size} tokens, the embedding {rows} rows: no row for {first_of(surplus)}"
        raise bad_model(uri, None, sentence, "upload the tokenizer of the model, or resize the model's embedding to it")


def check_special_tokens(uri: str, directory: Path, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Check the ids of special tokens, and that some token ends an answer. Raises RunFailure (BadModel)."""
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for name, key, number in _special_ids(directory):
        if isinstance(number, bool) or not isinstance(number, int) or number >= rows:
            raise bad_model(uri, name, f"{key} is {number}, and the model has {rows} tokens")
        ends += [number] if key == "eos_token_id" and number >= 0 else []  # -1 means none
    known = max(tokenizer.get_vocab().values())
    if ends and min(ends) > known:
        sentence = f"eos_token_id is {min(ends)}, and the tokenizer ends at {known}: no answer would end"
        raise bad_model(uri, "config.json", sentence, "upload the tokenizer of the model")
    if not ends:
        sentence = "no eos_token, and no eos_token_id in config.json or generation_config.json: no answer would end"
        raise bad_model(uri, TOKENIZER_CONFIG, sentence, f"name the eos_token in {TOKENIZER_CONFIG}")


def _special_ids(directory: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield file, key and id of each special token that is set."""
    for name in CONFIGS:
        path = directory / name
        content = read_json(str(directory), path) if path.is_file() else {}
        text = content.get("text_config")
        for part in (content, text if isinstance(text, dict) else {}):
            for key in SPECIAL:
                value = part.get(key)
                for number in value if isinstance(value, list) else [value]:
                    if number is not None:
                        yield name, key, number


def check_template(uri: str, directory: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Compile each chat template. A template that refuses a plain conversation is logged: it may need other messages.

    Raises RunFailure (BadModel) for a syntax error.
    """
    templates = tokenizer.chat_template
    for name, template in (templates if isinstance(templates, dict) else {None: templates}).items():
        if template:
            _compile_template(uri, _file_of(directory, name), tokenizer, template)


def _file_of(directory: Path, name: str | None) -> str:
    """Return the file of a template, relative to the folder; `name` is None if there is only one template."""
    file = TEMPLATE if name in (None, "default") else f"{TEMPLATES}/{name}.jinja"
    return file if (directory / file).is_file() else TOKENIZER_CONFIG


def _compile_template(uri: str, file: str, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    try:
        tokenizer.apply_chat_template(PLAIN, chat_template=template, tokenize=False)
    except jinja2.TemplateSyntaxError as error:
        sentence = f"line {error.lineno} of the chat template: {error.message}"
        raise bad_model(uri, file, sentence, "fix the chat template") from error
    except Exception as error:  # noqa: BLE001  # templates raise errors of any type
        log.warning("%s: the chat template does not render a plain conversation: %s", uri, detail(error))
