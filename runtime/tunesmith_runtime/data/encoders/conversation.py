"""Encoder of conversations, by the model's chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from jinja2 import TemplateSyntaxError

from tunesmith_api.failures import FailureClass
from tunesmith_api.training import LossOn, Truncation
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import Turn
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.data.text_encoder import TextEncoder
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.messages import THOUGHTS, left_out, longest_word, unwritten, writes
from tunesmith_runtime.multimodal.slots import without_slots

OPENED, CLOSED = "<think>", "</think>"
"""The ends of a thought, as the templates of models that think in every answer write them."""

Render = Callable[[int, bool], str]
"""Renders the first messages of a conversation: their number, and whether the prompt of an answer follows."""


def encode_conversation(record: Conversation, text: TextEncoder) -> Encoding[list[Turn] | DropReason]:
    """The turns whose answers are learned; only the last turn if it is too long already, which drops the row.

    Raises RowError where the template refuses the conversation or leaves a part of it out, RunFailure
    (ChatTemplateMissing, BadModel) where there is no template or it cannot be trained on.
    """
    if text.loss_on is LossOn.ALL and (record.has_context or record.is_scaled):
        hint = "set spec.training.lossOn: answer, or remove the weights"
        named = "weight 0" if record.has_context else "a weight other than 1"
        raise RowError(f"has messages of {named}, and training.lossOn: all learns every token", hint)
    if _refuses_opening(record, text):
        return DropReason.NO_PROMPT
    *earlier, end = record.learned
    rendered = _renderer(record, text)
    last = yield from _turn(record, end, text, rendered)
    if text.truncation in (Truncation.DROP, Truncation.SPLIT) and len(last.prompt) + len(last.answer) > text.max_length:
        return [last]
    turns: list[Turn] = []
    for index in earlier:
        turns.append((yield from _turn(record, index, text, rendered)))
        if (
            text.truncation is Truncation.TRUNCATE and len(turns[-1].prompt) >= text.max_length
        ):  # later turns are cut off
            return turns
    return [*turns, last]


def render(record: Conversation, text: TextEncoder, count: int, add_generation_prompt: bool) -> str:
    """The first `count` messages, as the chat template writes them."""
    if not text.tokenizer.chat_template:
        raise RunFailure(
            FailureClass.CHAT_TEMPLATE_MISSING,
            "rows of messages need a chat template, and the model's tokenizer has none",
        )
    with row_errors("is refused by the model's chat template"):
        try:
            rendered = text.tokenizer.apply_chat_template(
                _for_template(record, text)[:count],
                tools=record.tools,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except TemplateSyntaxError as error:
            message = f"the model's chat template has an error in line {error.lineno}: {error}"
            raise RunFailure(FailureClass.BAD_MODEL, message) from error
        return text.media.processor.slots.fill(rendered, record.slots) if record.slots and text.media else str(rendered)


def _for_template(record: Conversation, text: TextEncoder) -> list[dict[str, Any]]:
    """The messages as the template takes them."""
    return text.media.processor.slots.parts(record.messages) if record.slots and text.media else record.messages


def _renderer(record: Conversation, text: TextEncoder) -> Render:
    """A function that renders the first messages, without a rendering of their own where that is proved to be the same."""
    traced = None if record.slots else text.template.trace(record.messages, record.tools)
    return traced.render if traced else partial(render, record, text)


def _turn(record: Conversation, index: int, text: TextEncoder, rendered: Render) -> Encoding[Turn]:
    """The answer at `index`, after the prompt that a server would build for it."""
    prompt, whole = rendered(index, True), rendered(index + 1, False)
    answer = whole[len(prompt) :] if whole.startswith(prompt) else _closed(prompt, whole, record.messages[index])
    if answer is None:
        raise RunFailure(
            FailureClass.CHAT_TEMPLATE_MISSING,
            "the model's chat template renders a prompt differently once its answer follows: "
            f"{prompt[-60:]!r} does not begin {whole[-120:]!r}, so training text cannot equal what a server builds",
            "correct the template so that the prompt with add_generation_prompt is a prefix of the whole, or use rows of prompt and completion",
        )
    _check_written(record, index, prompt, answer)
    turn = text.turn(*(yield from text.answered(prompt, answer)))
    return replace(turn, weight=record.weights.get(index, 1.0))


def _closed(prompt: str, whole: str, message: Mapping[str, Any]) -> str | None:
    """The answer to a prompt that ends within a thought, where the template writes the answer without the thought or with another one;
    None if that is not the only difference.

    A model that thinks writes its thoughts first, closes them, and answers. Without thoughts in the row it learns to close them at once,
    as templates write answers without thinking: `<think>`, an empty line, `</think>`.
    """
    before, opened, space = prompt.rpartition(OPENED)
    if not opened or space.strip() or not whole.startswith(before):
        return None
    written = whole[len(before) :]
    if written.startswith(OPENED):
        return written.removeprefix(OPENED)
    return f"{_thoughts(message)}\n{CLOSED}\n\n" + written.lstrip("\n")


def _thoughts(message: Mapping[str, Any]) -> str:
    """The thoughts of an answer: in a key of their own, or at the beginning of its content."""
    found = next((message[key] for key in THOUGHTS if message.get(key)), None)
    if found is None:
        found = message["content"].rpartition(CLOSED)[0].strip().removeprefix(OPENED)
    return str(found).strip()


def _refuses_opening(record: Conversation, text: TextEncoder) -> bool:
    """Whether the template refuses an assistant's message before the first question, and takes the conversation without it."""
    opening = record.messages[: record.first_question + 1]
    without = [message for message in opening if message["role"] != "assistant"]
    if len(without) == len(opening):
        return False
    try:
        render(record, text, len(opening), add_generation_prompt=True)
    except RowError:
        rest = replace(record, messages=[*without, *record.messages[len(opening) :]])
        render(rest, text, len(rest.messages), add_generation_prompt=False)
        return True
    return False


def _check_written(record: Conversation, index: int, prompt: str, answer: str) -> None:
    """Raise RowError where the template leaves out a part of the row, for the answer at `index`."""
    messages = [without_slots(each) for each in record.messages[: index + 1]] if record.slots else record.messages
    message = messages[index]
    lost = unwritten(messages[:index], record.tools, prompt) or unwritten([message], None, answer)
    for key in THOUGHTS:
        if key in message and message[key].strip() not in answer:
            lost = left_out(key, message[key])
    if not lost and not writes(answer, longest_word(message)):
        lost = left_out("the content of role assistant", longest_word(message))
    if lost:
        hint = "write its text into the content of a message that the template writes, and remove it here"
        raise RowError(lost, hint)
