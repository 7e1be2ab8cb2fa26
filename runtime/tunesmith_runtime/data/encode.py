"""From what a row says to token ids and labels, exactly as a server would put the prompt.

An answer is learned after the very tokens that a server makes of the prompt: the chat template rendered up to the
answer with `add_generation_prompt`, tokenized on its own. A conversation is one example as long as every later prompt
begins with what came before, token for token; where a template rewrites earlier turns (Qwen3 removes the thoughts of
all but the last), the rest becomes a further example, so that no token is ever trained in a context that a server
would not build.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jinja2 import TemplateSyntaxError

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import LossOn, Training, Truncation
from tunesmith_runtime.data.records import Continuation, Conversation, DropReason, Record, RowError, row_errors
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.messages import THOUGHTS, left_out, longest_word, unwritten, writes
from tunesmith_runtime.modelcheck.config import NO_LIMITS, Limits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that no loss is taken on."""

PIECE = 1 << 18
"""Characters that are tokenized at once to see whether a text is far too long: a tokenizer takes some 300 bytes a token."""
COUNTED = 100_000
"""Tokens up to which the length of a row is known exactly."""


@dataclass(frozen=True)
class Example:
    """`input_ids` and `labels` of equal length; a label is the token itself or IGNORED."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Turn:
    """Tokens of a prompt as a server has it, and of the answer to it."""

    prompt: list[int]
    answer: list[int]
    learned: int
    """How many tokens of the answer are learned, from its start."""


@dataclass(frozen=True)
class Encoder:
    """Encodes records for one tokenizer. `stop_ids` are the tokens that end an answer when the model is served."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    max_length: int
    truncation: Truncation = Truncation.DROP
    loss_on: LossOn = LossOn.ANSWER
    vocabulary: int | None = None
    """Rows of the model's embedding; None where they are not known."""

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: frozenset[int],
        training: Training,
        limits: Limits = NO_LIMITS,
    ) -> Encoder:
        """The encoder that `spec.training` asks for, within what the model can take in."""
        length = min(training.max_length, limits.positions or training.max_length)
        return cls(tokenizer, stop_ids, length, training.truncation, training.loss_on, limits.vocabulary)

    def encode(self, record: Record) -> list[Example] | DropReason:
        """The examples of a record that fit into max_length.

        Raises RowError where the template, the tokenizer or a library fails on this record, RunFailure
        (ChatTemplateMissing, BadModel) where the tokenizer has no template, or one that cannot be trained on.
        """
        examples = self.examples(record)
        return examples if isinstance(examples, DropReason) else self.fitted(examples)

    def examples(self, record: Record) -> list[Example] | DropReason:
        """The examples of a record in full length: one, or more where the chat template rewrites earlier turns."""
        if isinstance(record, Continuation):
            return joined([self._continuation(record)])
        if self.loss_on is LossOn.ALL and record.context:
            hint = "set spec.training.lossOn: answer, or remove the weights"
            raise RowError("has messages of weight 0, and training.lossOn: all learns every token", hint)
        return DropReason.NO_PROMPT if self._refuses_opening(record) else joined(self._conversation(record))

    def fitted(self, examples: list[Example]) -> list[Example] | DropReason:
        """The examples as they are learned, none longer than max_length."""
        if not examples:
            return DropReason.EMPTY_ANSWER
        learned: list[Example] = []
        for example in examples:
            fitted = self._fitted(example)
            if isinstance(fitted, DropReason):
                return fitted
            everything = self.loss_on is LossOn.ALL
            learned.append(replace(fitted, labels=list(fitted.input_ids)) if everything else fitted)
        return learned

    @property
    def most_tokens(self) -> int:
        """Tokens beyond which a text is not read further, far more than any example has."""
        return max(2 * self.max_length + 1000, COUNTED)

    def prompt_ids(self, conversation: Conversation, messages: int) -> list[int]:
        """What a server makes of the first `messages` messages when it is to answer them."""
        return self._ids(self._rendered(conversation, messages, add_generation_prompt=True))

    def _conversation(self, conversation: Conversation) -> list[Turn]:
        """The turns that are learned; only the last one where that is too long already, which drops the row."""
        *others, end = conversation.learned
        last = self._turn(conversation, end)
        length = len(last.prompt) + len(last.answer)
        if self.truncation is Truncation.DROP and length > self.max_length:
            return [last]
        turns: list[Turn] = []
        for index in others:
            turns.append(self._turn(conversation, index))
            if len(turns[-1].prompt) >= self.max_length:  # what comes after is cut off
                return turns
        return [*turns, last]

    def _refuses_opening(self, conversation: Conversation) -> bool:
        """Whether the assistant speaks before the first question, and the template takes the rest only without that."""
        asked = conversation.messages[: conversation.first_question + 1]
        without = [message for message in asked if message["role"] != "assistant"]
        if len(without) == len(asked):
            return False
        try:
            self._rendered(conversation, len(asked), add_generation_prompt=True)
        except RowError:
            rest = replace(conversation, messages=[*without, *conversation.messages[len(asked) :]])
            self._rendered(rest, len(rest.messages), add_generation_prompt=False)
            return True
        return False

    def _turn(self, conversation: Conversation, index: int) -> Turn:
        """The answer at `index`, after the prompt that a server would build for it."""
        prompt = self._rendered(conversation, index, add_generation_prompt=True)
        whole = self._rendered(conversation, index + 1, add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise RunFailure(
                FailureClass.CHAT_TEMPLATE_MISSING,
                "the model's chat template renders a prompt differently once its answer follows: "
                f"{prompt[-60:]!r} does not begin {whole[-120:]!r}, so training text can't equal what a server builds",
                "mend the template so that the prompt with add_generation_prompt is a prefix of the whole, or use rows of prompt and completion",
            )
        _check_written(conversation, index, prompt, whole[len(prompt) :])
        prompt_ids = self._ids(prompt)
        answer = self._rest(prompt_ids, whole, whole[len(prompt) :])
        return self._turn_of(prompt_ids, answer)

    def _continuation(self, record: Continuation) -> Turn:
        prompt = self._ids(record.prompt)
        answer = self._rest(prompt, record.prompt + record.completion, record.completion)
        return self._turn_of(self._opening() + prompt, answer)

    def _rendered(self, conversation: Conversation, count: int, add_generation_prompt: bool) -> str:
        if not self.tokenizer.chat_template:
            raise RunFailure(
                FailureClass.CHAT_TEMPLATE_MISSING,
                "rows of messages need a chat template, and the model's tokenizer has none",
            )
        with row_errors("is refused by the model's chat template"):
            try:
                rendered = self.tokenizer.apply_chat_template(
                    conversation.messages[:count],
                    tools=conversation.tools,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
            except TemplateSyntaxError as error:
                message = f"the model's chat template has an error in line {error.lineno}: {error}"
                raise RunFailure(FailureClass.BAD_MODEL, message) from error
        return str(rendered)

    def _ids(self, text: str) -> list[int]:
        with row_errors("is refused by the model's tokenizer"):
            return self._tokenized(text if len(text) <= PIECE else self._beginning(text))

    def _beginning(self, text: str) -> str:
        """As much of a long text as has more than `most_tokens`, or all of it."""
        count = 0
        for end in range(PIECE, len(text), PIECE):
            count += len(self._tokenized(text[end - PIECE : end]))
            if count > self.most_tokens:
                return text[:end]
        return text

    def _tokenized(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _opening(self) -> list[int]:
        """What the tokenizer puts before plain text, such as a BOS token. A template writes that itself."""
        ids = list(self.tokenizer("")["input_ids"])
        ends = ids and ids[-1] == self.tokenizer.eos_token_id and ids != [self.tokenizer.bos_token_id]
        return ids[:-1] if ends else ids

    def _rest(self, prompt: list[int], whole: str, answer: str) -> list[int]:
        """The tokens of the answer: those after the prompt's, or, where tokens merge over the seam, its own."""
        ids = self._ids(whole)
        return ids[len(prompt) :] if _begins(ids, prompt) else self._ids(answer)

    def _turn_of(self, prompt: list[int], answer: list[int]) -> Turn:
        """The turn, with a stop token at the end of the answer, as otherwise the model would not learn to end.

        What a template writes after the stop token, such as a line break, is never the model's to say.
        """
        end = max((at + 1 for at, token in enumerate(answer) if token in self.stop_ids), default=0)
        if (not end or self.tokenizer.decode(answer[end:]).strip()) and self.tokenizer.eos_token_id is not None:
            answer = [*answer, self.tokenizer.eos_token_id]
            end = len(answer)
        return Turn(prompt, answer, learned=end or len(answer))

    def _check_tokens(self, example: Example) -> None:
        token = max(example.input_ids, default=0)
        if self.vocabulary is not None and token >= self.vocabulary:
            text = self.tokenizer.convert_ids_to_tokens(token)
            raise RowError(
                f"holds {text!r}, which is token {token}, and the model's embedding has {self.vocabulary} rows"
            )

    def _fitted(self, example: Example) -> Example | DropReason:
        self._check_tokens(example)
        if len(example.input_ids) <= self.max_length:
            return example
        if self.truncation is Truncation.DROP:
            return DropReason.TOO_LONG
        cut = Example(example.input_ids[: self.max_length], example.labels[: self.max_length])
        return cut if any(label != IGNORED for label in cut.labels[1:]) else DropReason.ANSWER_CUT_OFF


def joined(turns: list[Turn]) -> list[Example]:
    """Turns as examples: a turn is added to the example before it if its prompt begins with that, token for token."""
    examples: list[Example] = []
    for turn in turns:
        before = examples.pop() if examples and _begins(turn.prompt, examples[-1].input_ids) else Example([], [])
        context = [IGNORED] * (len(turn.prompt) - len(before.input_ids))
        answer = [token if at < turn.learned else IGNORED for at, token in enumerate(turn.answer)]
        examples.append(Example(turn.prompt + turn.answer, [*before.labels, *context, *answer]))
    return [example for example in examples if any(label != IGNORED for label in example.labels[1:])]


def _check_written(conversation: Conversation, index: int, prompt: str, answer: str) -> None:
    """Raise RowError where the template leaves out what the row has, for the answer at `index`."""
    message = conversation.messages[index]
    lost = unwritten(conversation.messages[:index], conversation.tools, prompt) or unwritten([message], None, answer)
    for key in THOUGHTS:
        if key in message and message[key].strip() not in answer:
            lost = left_out(key, message[key])
    if not lost and not writes(answer, longest_word(message)):
        lost = left_out("the content of role assistant", longest_word(message))
    if lost:
        raise RowError(
            lost, "write what it says into the content of a message that the template writes, and remove it here"
        )


def _begins(ids: list[int], start: list[int]) -> bool:
    return ids[: len(start)] == start
