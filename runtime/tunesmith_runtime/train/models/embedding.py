"""Vectors of texts: pooling, and the files of a published model that describe its pooling.

The files are those of Sentence Transformers (https://sbert.net/docs/sentence_transformer/usage/custom_models.html), which other engines
read too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.methods import Embed, Pooling

if TYPE_CHECKING:
    from torch import Tensor

MODULES, TRANSFORMER, POOLING = "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"
SETTINGS = "config_sentence_transformers.json"
FILES = (MODULES, TRANSFORMER, POOLING, SETTINGS)
"""Files of a folder that describe the pooling."""
POOLED_AS = {Pooling.LAST_TOKEN: "pooling_mode_lasttoken", Pooling.MEAN: "pooling_mode_mean_tokens"}
"""Settings of Sentence Transformers' pooling; exactly one is true."""


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The hidden state of the last token of each text."""
    from torch import arange

    rows, positions = (arange(size, device=mask.device) for size in mask.shape)
    return hidden[rows, (positions * mask).argmax(dim=1)]


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean of the hidden states of a text."""
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


POOLINGS: Mapping[Pooling, Callable[[Tensor, Tensor], Tensor]] = {Pooling.LAST_TOKEN: last_token, Pooling.MEAN: mean}
"""Poolings of hidden states (texts, length, size) by the attention mask (texts, length), padded on either side: (texts, size)."""


def write_files(folder: Path, embed: Embed, size: int, max_length: int) -> None:
    """Write FILES into a folder: `size`, of a hidden state; `max_length`, tokens to which longer texts are cut."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")] + (
        [("2_Normalize", "Normalize")] if embed.normalize else []
    )
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    pooling = {
        "word_embedding_dimension": size,
        **{setting: pooled is embed.pooling for pooled, setting in POOLED_AS.items()},
        "pooling_mode_cls_token": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "include_prompt": True,
    }
    contents: dict[str, Any] = {
        MODULES: modules,
        TRANSFORMER: {"max_seq_length": max_length, "do_lower_case": False},
        POOLING: pooling,
        SETTINGS: {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def copy_files(folder: Path, into: Path) -> None:
    """Copy the FILES that `folder` has."""
    for name in FILES:
        if (folder / name).is_file():
            (into / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, into / name)
