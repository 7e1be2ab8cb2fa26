"""Encodes records as token ids and labels, with the prompts that a server would build.

An answer is learned after exactly the tokens that a server makes of the prompt: the chat template rendered up to the
answer with `add_generation_prompt`, tokenized separately. A conversation is a single example as long as every later
prompt begins with the tokens before it. Where a template rewrites earlier turns (Qwen3 removes the thoughts of
all but the last), the rest becomes a further example, so that no token is trained in a context that a server
would not build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import METHOD_FACTS, Method
from tunesmith_api.training import LossOn, Training, Truncation
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encoders import ENCODERS, JOINED, TEXTS
from tunesmith_runtime.data.encoders.conversation import render
from tunesmith_runtime.data.encoders.multimodal import encode_multimodal, largest_budget
from tunesmith_runtime.data.encoders.prompt import encode_prompt
from tunesmith_runtime.data.encoders.rated import RATED, Rated
from tunesmith_runtime.data.encoders.transcription import encode_transcription
from tunesmith_runtime.data.encoding import Encoding, complete
from tunesmith_runtime.data.examples import Example, Turn, join_turns, keep_end, keep_start, pieces
from tunesmith_runtime.data.records import (
    Conversation,
    MultimodalConversation,
    MultimodalPrompt,
    PlainText,
    Prompt,
    Record,
    Transcription,
)
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.text_encoder import TextEncoder
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.config import NO_LIMITS, Limits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith_runtime.multimodal.encoder import MediaEncoder
    from tunesmith_runtime.multimodal.speech import SpeechEncoder

CUTS: Mapping[Truncation, Callable[[Example, int], Example]] = {
    Truncation.TRUNCATE: keep_start,
    Truncation.LEFT: keep_end,
}
"""The ways of training.truncation that shorten an example. The others drop it; plain text is split before."""


def completion_tokens(job: FineTuneJobSpec) -> int:
    """Tokens that the model may write after each prompt while it trains."""
    if job.rollouts:
        return job.rollouts.max_completion_length
    if job.actor_critic:
        return job.actor_critic.max_completion_length
    return job.gkd.max_completion_length if job.gkd and job.gkd.lambda_ else 0


def truncation_of(training: Training, method: Method) -> Truncation:
    """The truncation of a run: a corpus that is packed loses no token, so that dropping is splitting."""
    splits = METHOD_FACTS[method].is_plain_text and training.packing and training.truncation is Truncation.DROP
    return Truncation.SPLIT if splits else training.truncation


@dataclass(frozen=True)
class Encoder(TextEncoder):
    """Encodes records, by the encoder of each record's type."""

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: frozenset[int],
        training: Training,
        limits: Limits = NO_LIMITS,
        method: Method = Method.SFT,
        reserved: int = 0,
        media: MediaEncoder | None = None,
        lacks_processor: bool = False,
        speech: SpeechEncoder | None = None,
    ) -> Encoder:
        """The encoder for the settings of `spec.training`, within the limits of the model.

        `reserved`: positions that are left for completions. Raises RunFailure (BadSpec) if none is left for a prompt.
        """
        if limits.positions is not None and reserved >= limits.positions:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"{method}.maxCompletionLength is {reserved}, and the model has {limits.positions} positions for prompt and completion",
                f"set spec.{method}.maxCompletionLength to {limits.positions // 2} or less",
            )
        length = min(training.max_length, (limits.positions or training.max_length + reserved) - reserved)
        return cls(
            tokenizer,
            stop_ids,
            length,
            truncation_of(training, method),
            training.loss_on,
            limits.vocabulary,
            limits.positions,
            reserved,
            METHOD_FACTS[method].joins_texts,
            media,
            lacks_processor,
            speech,
        )

    def encode(self, record: Record) -> list[Example] | DropReason:
        """The examples of a record that fit into max_length.

        Raises RowError where the template, the tokenizer or a library fails on this record, RunFailure
        (ChatTemplateMissing, BadModel) where the tokenizer has no template, or a template that cannot be trained on.
        """
        examples = complete(self.examples(record), self.tokenize)
        return examples if isinstance(examples, DropReason) else self.fit(examples)

    def examples(self, record: Record) -> Encoding[list[Example] | DropReason]:
        """The examples of a record in full length: more than one where the chat template rewrites earlier turns.

        With truncation split, those of plain text are pieces of at most max_length.
        """
        if isinstance(record, Transcription):
            return (yield from encode_transcription(record, self))
        if self.speech is not None:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                "the base is a speech model, which learns from sounds with their texts alone",
                'write rows {"audio": PATH, "text": TRANSCRIPT}, or name a language model in spec.model',
            )
        if isinstance(record, MultimodalConversation):
            return (yield from encode_multimodal(record, self))
        if isinstance(record, Conversation) and self.media is not None:
            record = self.media.quoted(record)
        if isinstance(record, Prompt | MultimodalPrompt):
            return [(yield from encode_prompt(record, self))]
        if self.joins and type(record) in JOINED:
            return (yield from JOINED[type(record)](record, self))
        if type(record) in TEXTS:
            return (yield from TEXTS[type(record)](record, self))
        if type(record) in RATED:
            return (yield from self._answers(RATED[type(record)](record)))
        turns: list[Turn] | DropReason = yield from ENCODERS[type(record)](record, self)
        if isinstance(turns, DropReason):
            return turns
        examples = join_turns(turns)
        if not isinstance(record, PlainText):
            return examples
        if self.truncation is Truncation.SPLIT:
            return [piece for example in examples for piece in pieces(example, self.max_length)]
        return [replace(example, is_text=True) for example in examples]

    def fit(self, examples: list[Example]) -> list[Example] | DropReason:
        """The examples as they are learned, none longer than max_length."""
        if not examples or not all(example.input_ids for example in examples):
            return DropReason.EMPTY_ANSWER
        learned: list[Example] = []
        for example in examples:
            fitting = self._fit(example)
            if isinstance(fitting, DropReason):
                return fitting
            all_tokens = self.loss_on is LossOn.ALL
            learned.append(replace(fitting, labels=list(fitting.input_ids)) if all_tokens else fitting)
        return learned if are_different(learned) else DropReason.EQUAL_ANSWERS

    def is_truncated(self, record: Record, examples: list[Example]) -> bool:
        """Whether a record with these examples, as `examples` returns them, is trained on in part or in pieces."""
        pieces = isinstance(record, PlainText) and len(examples) > 1
        return pieces or any(len(example.input_ids) > self.max_length for example in examples)

    def largest_budget(self, examples: list[Example]) -> int | None:
        """The largest training.maxPixels with which examples that are too long fit; None where there is none."""
        return largest_budget(examples, self)

    def prompt_ids(self, conversation: Conversation, messages: int) -> list[int]:
        """The tokens of the prompt that a server builds of the first `messages` messages."""
        prompt = render(conversation, self, messages, add_generation_prompt=True)
        [ids] = complete(self.ids(prompt), self.tokenize)
        return ids

    def _answers(self, rated: Rated) -> Encoding[list[Example] | DropReason]:
        """One example for each answer. Raises RowError where an answer is not one text after its prompt."""
        found: list[Example] = []
        for answer in rated.answers:
            examples = yield from self.examples(answer)
            if isinstance(examples, DropReason):
                return examples
            if not examples:
                return DropReason.EMPTY_ANSWER
            if len(examples) > 1:
                raise RowError(
                    "has an answer of several messages, and the chat template rewrites the earlier ones once the later follow",
                    "end the answer with its first message of the assistant",
                )
            found.append(replace(examples[0], value=rated.value))
        return found if are_different(found) else DropReason.EQUAL_ANSWERS

    def _fit(self, example: Example) -> Example | DropReason:
        self._check_tokens(example)
        if len(example.input_ids) <= self.max_length:
            return example
        if example.media:  # a cut through the slots of an image would leave features without a place
            return DropReason.TOO_LONG
        if self.truncation not in CUTS or not example.has_labels:
            return DropReason.TOO_LONG
        cut = CUTS[self.truncation](example, self.max_length)
        return cut if cut.has_labels else DropReason.ANSWER_CUT_OFF

    def _check_tokens(self, example: Example) -> None:
        token = max(example.input_ids, default=0)
        if self.vocabulary is not None and token >= self.vocabulary:
            text = self.tokenizer.convert_ids_to_tokens(token)
            raise RowError(
                f"holds {text!r}, which is token {token}, and the model's embedding has {self.vocabulary} rows"
            )


def are_different(examples: Sequence[Example]) -> bool:
    """Whether the examples of a row differ, as the answers of a preference must."""
    return len(examples) < 2 or any(example.input_ids != examples[0].input_ids for example in examples[1:])
