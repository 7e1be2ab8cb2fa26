"""Encodes records as token ids and labels, with the prompts that a server would build.

An answer is learned after exactly the tokens that a server makes of the prompt: the chat template rendered up to the
answer with `add_generation_prompt`, tokenized separately. A conversation is a single example as long as every later
prompt begins with the tokens before it. Where a template rewrites earlier turns (Qwen3 removes the thoughts of
all but the last), the rest becomes a further example, so that no token is trained in a context that a server
would not build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith_api.training import LossOn, Method, Training, Truncation
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encoders import ENCODERS
from tunesmith_runtime.data.encoders.conversation import render
from tunesmith_runtime.data.examples import Example, join_turns, keep_end, keep_start, pieces
from tunesmith_runtime.data.records import Conversation, PlainText, Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.text_encoder import TextEncoder
from tunesmith_runtime.modelcheck.config import NO_LIMITS, Limits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CUTS: Mapping[Truncation, Callable[[Example, int], Example]] = {
    Truncation.TRUNCATE: keep_start,
    Truncation.LEFT: keep_end,
}
"""The ways of training.truncation that shorten an example. The others drop it; plain text is split before."""


def truncation_of(training: Training, method: Method) -> Truncation:
    """The truncation of a run: a corpus that is packed loses no token, so that dropping is splitting."""
    splits = method is Method.PRETRAIN and training.packing and training.truncation is Truncation.DROP
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
    ) -> Encoder:
        """The encoder for the settings of `spec.training`, within the limits of the model."""
        length = min(training.max_length, limits.positions or training.max_length)
        return cls(
            tokenizer,
            stop_ids,
            length,
            truncation_of(training, method),
            training.loss_on,
            limits.vocabulary,
            limits.positions,
        )

    def encode(self, record: Record) -> list[Example] | DropReason:
        """The examples of a record that fit into max_length.

        Raises RowError where the template, the tokenizer or a library fails on this record, RunFailure
        (ChatTemplateMissing, BadModel) where the tokenizer has no template, or a template that cannot be trained on.
        """
        examples = self.examples(record)
        return examples if isinstance(examples, DropReason) else self.fit(examples)

    def examples(self, record: Record) -> list[Example] | DropReason:
        """The examples of a record in full length: more than one where the chat template rewrites earlier turns.

        With truncation split, those of plain text are pieces of at most max_length.
        """
        turns = ENCODERS[type(record)](record, self)
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
        if not examples:
            return DropReason.EMPTY_ANSWER
        learned: list[Example] = []
        for example in examples:
            fitting = self._fit(example)
            if isinstance(fitting, DropReason):
                return fitting
            all_tokens = self.loss_on is LossOn.ALL
            learned.append(replace(fitting, labels=list(fitting.input_ids)) if all_tokens else fitting)
        return learned

    def is_truncated(self, record: Record, examples: list[Example]) -> bool:
        """Whether a record with these examples, as `examples` returns them, is trained on in part or in pieces."""
        pieces = isinstance(record, PlainText) and len(examples) > 1
        return pieces or any(len(example.input_ids) > self.max_length for example in examples)

    def prompt_ids(self, conversation: Conversation, messages: int) -> list[int]:
        """The tokens of the prompt that a server builds of the first `messages` messages."""
        return self.ids(render(conversation, messages, self, add_generation_prompt=True))

    def _fit(self, example: Example) -> Example | DropReason:
        self._check_tokens(example)
        if len(example.input_ids) <= self.max_length:
            return example
        if self.truncation not in CUTS:
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
