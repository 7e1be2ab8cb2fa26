"""Two answers to a prompt, for preference methods such as DPO and for reward models. `margin` is how much better the chosen answer is.

- TRL: {"prompt", "chosen", "rejected"}, all texts or all lists of messages, or without a prompt;
- LLaMA-Factory: {"conversations" | "instruction", "chosen", "rejected"};
- ms-swift: a row of prompt and answer with "rejected_response" (a text or messages) or "rejected_messages".

A row may have media, as in format vqa. Prompt and answers part between messages only. Texts without a prompt have the empty prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import answers, prompts
from tunesmith_runtime.data.formats.format import Format, beside
from tunesmith_runtime.data.formats.messages import UNWEIGHTED, answered, unscaled, with_system
from tunesmith_runtime.data.formats.placing import MEDIA_KEYS, reads_media
from tunesmith_runtime.data.formats.sharegpt import TURNS, turns
from tunesmith_runtime.data.records import Continuation, Conversation, Preference
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, kind_of

REJECTED = ("rejected_response", "rejected_messages")
_ONE_FORM = "'chosen' is {} and 'rejected' is {}; expected two strings, or two lists of messages"


def read(row: dict[str, Any]) -> Preference | DropReason:
    """The two answers, unless they are equal or one of them is empty."""
    margin = row.get("margin")
    if isinstance(margin, bool) or not isinstance(margin, int | float | None):
        raise RowError(f"'margin' is {kind_of(margin)}; expected a number", field="margin")
    pair = _after_answer(row) if any(has(row, key) for key in REJECTED) else _side_by_side(row)
    if isinstance(pair, DropReason):
        return pair
    chosen, rejected = pair
    return DropReason.EQUAL_ANSWERS if chosen == rejected else Preference(chosen, rejected, margin)


def _after_answer(row: dict[str, Any]) -> tuple[answers.Text, answers.Text] | DropReason:
    """The row's own answer, and the rejected one in its place."""
    key = next(key for key in REJECTED if has(row, key))
    chosen = answers.read({name: value for name, value in row.items() if name not in REJECTED})
    if isinstance(chosen, DropReason):
        return chosen
    other = row[key]
    if isinstance(chosen, Continuation):
        if not isinstance(other, str):
            raise RowError(f"'{key}' is {kind_of(other)}; expected a string, as the prompt is one", field=key)
        return (chosen, replace(chosen, completion=other)) if other.strip() else DropReason.EMPTY_ANSWER
    end = len(chosen.messages) - 1
    prompt = chosen.messages[:end]
    if isinstance(other, str):
        answer = [{"role": "assistant", "content": other}]
    else:
        answer = _listed(other, key)
        answer = answer[_common(prompt, answer) or _common(prompt[1:], answer) :]
    rejected = _answered(row, prompt, answer, key, chosen.weights)
    if isinstance(rejected, DropReason):
        return rejected
    return replace(chosen, learn_from=end), replace(rejected, tools=chosen.tools)


def _side_by_side(row: dict[str, Any]) -> tuple[answers.Text, answers.Text] | DropReason:
    """The answers at `chosen` and `rejected`, after the row's prompt or after the messages with which both begin."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowError(_ONE_FORM.format(kind_of(chosen), kind_of(rejected)), field="rejected")
    key = prompts.find(row)
    prompt = prompts.read(row, key) if key else None
    if isinstance(chosen, str):
        if prompt is None or isinstance(prompt, str):
            both = Continuation(prompt or "", chosen), Continuation(prompt or "", rejected)
            return both if chosen.strip() and rejected.strip() else DropReason.EMPTY_ANSWER
        texts = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
        return _pair(row, prompt, *texts)
    ours, theirs = (_listed(row[name], name) for name in ("chosen", "rejected"))
    if prompt is None or isinstance(prompt, str):
        equal = _common(ours, theirs)
        if prompt is not None and not any(message["content"] == prompt for message in ours[:equal]):
            raise RowError("'prompt' is a string that is no message of both 'chosen' and 'rejected'", field="prompt")
        if equal == len(ours) == len(theirs):
            return DropReason.EQUAL_ANSWERS
        return _pair(row, with_system(row, ours[:equal]), ours[equal:], theirs[equal:])
    return _pair(row, prompt, ours[_common(prompt, ours) :], theirs[_common(prompt, theirs) :])


def _listed(value: Any, key: str) -> list[dict[str, Any]]:
    """Messages from a list of them or from one message, with the keys of messages or of ShareGPT."""
    listed = [value] if isinstance(value, dict) else value
    if isinstance(listed, list) and any(isinstance(each, dict) and has(each, "from") for each in listed):
        listed = turns(listed, key)
    messages, weights = unscaled(listed, key)
    if len(messages) - 1 in weights:
        raise RowError(
            f"'{key}' ends with a message of weight 0, and both answers are learned", "remove the weight", key
        )
    return messages


def _pair(
    row: dict[str, Any], prompt: list[dict[str, Any]], chosen: list[dict[str, Any]], rejected: list[dict[str, Any]]
) -> tuple[answers.Text, answers.Text] | DropReason:
    ours, theirs = _answered(row, prompt, chosen, "chosen"), _answered(row, prompt, rejected, "rejected")
    if isinstance(ours, DropReason):
        return ours
    return theirs if isinstance(theirs, DropReason) else (ours, theirs)


def _answered(
    row: dict[str, Any],
    prompt: list[dict[str, Any]],
    answer: list[dict[str, Any]],
    key: str,
    weights: Mapping[int, float] = UNWEIGHTED,
) -> Conversation | DropReason:
    """The conversation of prompt and answer. Raises RowError unless the answer is the assistant's."""
    if not answer:
        hint = "end both lists with an answer of the assistant; what both begin with is the prompt"
        raise RowError(f"'{key}' has no answer: all its messages are the prompt", hint, key)
    if answer[0]["role"] != "assistant":
        role = answer[0]["role"]
        raise RowError(
            f"'{key}' has a message of role {role} after the prompt; expected the assistant's answer", field=key
        )
    tools = {"tools": row.get("tools")}
    return answered(tools, [*prompt, *answer], weights, learn_from=len(prompt))


def _common(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> int:
    """How many messages both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))


LISTS = {**answers.TURNS, **dict.fromkeys(("chosen", "rejected", *REJECTED), TURNS)}
PREFERENCE = Format(
    RowFormat.PREFERENCE,
    records=frozenset({Preference}),
    spellings=(("chosen", "rejected"), *beside(answers.SPELLINGS, *REJECTED)),
    expected='{"prompt", "chosen", "rejected"}',
    known=answers.KNOWN | prompts.READ | MEDIA_KEYS | {"chosen", "rejected", "margin", *REJECTED},
    read=reads_media(read, LISTS),
    turns=LISTS,
)
