"""Checks the files of a tokenizer without running tokenizer code."""

from __future__ import annotations

from pathlib import Path

from tunesmith_runtime.modelcheck.failure import bad_model
from tunesmith_runtime.modelcheck.files import JSON, file_type, read_json

TOKENIZER, TOKENIZER_CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
JSON_FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.json",
)
VOCABULARIES = (
    TOKENIZER,
    "*.model",
    "*.tiktoken",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "tokenizer*.py",
    "tokenization*.py",
)
"""Files that hold the tokens, for each kind of tokenizer."""


def check_tokenizer_files(uri: str, directory: Path) -> None:
    """Check that a folder has a tokenizer, and that its .json files hold JSON. Raises RunFailure (BadModel)."""
    for name in JSON_FILES:
        if (directory / name).is_file():
            read_json(uri, directory / name)
    found = [path for pattern in VOCABULARIES for path in directory.glob(pattern)]
    if not found:
        sentence = "no tokenizer: the folder has no tokenizer.json, tokenizer.model, vocab.json or vocab.txt"
        raise bad_model(uri, None, sentence, "upload the tokenizer's files beside the weights")
    for path in found:
        what = file_type(path.read_bytes()) if path.suffix not in (".json", ".py") else None
        if what and what[0] != JSON:  # the first token of a list may be a brace
            raise bad_model(uri, path.name, f"{what[0]}, not a tokenizer", what[1])
