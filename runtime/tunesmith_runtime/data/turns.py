"""The token that ends a turn of the model, by its chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_runtime.data.row_error import RowError, row_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER = "answer-of-the-assistant"


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the special token that the chat template writes after an answer; None without a template or such a token.

    The tokenizer of a base model often has another EOS token. A server stops at both.
    """
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
    try:
        with row_errors("is refused by the model's chat template"):
            text = str(tokenizer.apply_chat_template(turns, tokenize=False))
            behind = tokenizer(text.rpartition(ANSWER)[2].lstrip(), add_special_tokens=False)["input_ids"]
    except RowError:  # the template needs other messages; `load` names the rows that it refuses
        return None
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return behind[0] if behind and behind[0] in special else None
