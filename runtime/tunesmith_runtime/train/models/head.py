"""Models with another head than the output layer: their config, and the token at which the head reads a row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, arange, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from tunesmith_runtime.tasks import Task


def set_padding(tokenizer: PreTrainedTokenizerBase, stop_ids: Collection[int]) -> None:
    """Pad at the end, with a token that no answer ends with.

    Of a row, transformers reads the last token that is not config.pad_token_id. If that were the token that ends answers, as in
    many base models, it would read another token than the one that was trained.
    """
    special = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids]
    ids = chain(special, sorted(tokenizer.get_added_vocab().values()), range(len(tokenizer) - 1, -1, -1))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(next(each for each in ids if each not in {None, *stop_ids}))
    tokenizer.padding_side = "right"


def config_with_head(
    folder: Path, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any], trust_remote_code: bool = False
) -> PretrainedConfig:
    """Return config.json of the base in `folder` with `settings` of the head, such as num_labels, and with pad_token_id."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True, **settings)
    for part in (config, config.get_text_config()):
        part.pad_token_id = tokenizer.pad_token_id
    return config


def find_head(model: nn.Module, task: Task) -> nn.Module:
    """Return the head of a model, which may be below an adapter. Raises LookupError."""
    found = (module for name, module in model.named_modules() if name.rsplit(".", 1)[-1] in task.heads)
    if (head := next(found, None)) is None:
        raise LookupError(f"{type(model).__name__} has no layer named {' or '.join(task.heads)}")
    return head


def head_logits(model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of each row at its last token, (rows, labels), in float32.

    `inputs`: input_ids and attention_mask, (rows, length), padded on either side.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with reading_last_token(head, mask):
        logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits.float()


@contextmanager
def reading_last_token(head: nn.Module, mask: Tensor) -> Iterator[None]:
    """Within the block, `head` receives at all positions the hidden state of the last token of a row, as its attention
    mask gives it.

    The model itself would search for the last token that is not padding, and a row may contain that token.
    """
    rows = arange(len(mask), device=mask.device)
    last = (arange(mask.shape[1], device=mask.device) * mask).argmax(dim=1)
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][rows, last][:, None].expand_as(hidden[0]),))
    try:
        yield
    finally:
        hook.remove()
