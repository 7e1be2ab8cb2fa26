"""Encodes text as token ids, within the limits of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tunesmith_api.training import LossOn, Truncation
from tunesmith_runtime.data.encoding import Encoding, Tokens
from tunesmith_runtime.data.examples import Turn, starts_with
from tunesmith_runtime.data.pair_template import PairTemplate, pair_template
from tunesmith_runtime.data.text_tokenizer import TextTokenizer
from tunesmith_runtime.data.traced_template import TracedTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith_runtime.multimodal.encoder import MediaEncoder
    from tunesmith_runtime.multimodal.speech import SpeechEncoder

PIECE = 1 << 18
"""Characters that are tokenized at a time to find out whether a text is far too long: a tokenizer takes about 300 bytes per token."""
COUNTED = 100_000
"""Tokens up to which the length of a row is known exactly."""


@dataclass(frozen=True)
class TextEncoder:
    """Encodes text. `stop_ids` are the tokens that end an answer when the model is served."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    max_length: int
    truncation: Truncation = Truncation.DROP
    loss_on: LossOn = LossOn.ANSWER
    vocabulary: int | None = None
    """Rows of the model's embedding; None where they are not known."""
    positions: int | None = None
    """Positions of the model; None where they are not bounded or not known."""
    reserved: int = 0
    """Positions that are left for the completions that the model samples."""
    joins: bool = False
    """Whether the two texts of a pair are one sequence."""
    media: MediaEncoder | None = None
    """Reads the media of rows; None for models of text alone, and where the processor is not loaded."""
    lacks_processor: bool = False
    """Whether the model has a processor, which is not loaded."""
    speech: SpeechEncoder | None = None
    """Reads the sounds of rows; None for models that are no speech models."""

    @property
    def bound(self) -> str:
        """What bounds the length of a row, for messages."""
        if self.positions is not None and self.positions - self.reserved <= self.max_length:
            left = f", {self.reserved} of them for completions" if self.reserved else ""
            return f"the model has {self.positions} positions{left}"
        return f"training.maxLength is {self.max_length}"

    @property
    def most_tokens(self) -> int:
        """Tokens beyond which a text is not read further, far more than any example has."""
        return max(2 * self.max_length + 1000, COUNTED)

    @cached_property
    def tokenize(self) -> TextTokenizer:
        """Tokenizes texts of at most PIECE characters."""
        return TextTokenizer(self.tokenizer, self.media.processor.slots.quotes if self.media else {})

    @cached_property
    def template(self) -> TracedTemplate:
        """Renders conversations once where that is enough."""
        return TracedTemplate(self.tokenizer)

    def ids(self, *texts: str) -> Encoding[Sequence[Tokens]]:
        """The tokens of texts, without special tokens at their start or end.

        Of a very long text only the beginning is read where the rest would be cut off or the row dropped; else it is tokenized
        in sections. Raises RowError where the tokenizer refuses a text.
        """
        if all(len(text) <= PIECE for text in texts):
            return (yield texts)
        found: list[Tokens] = []
        for text in texts:
            is_cut = self.truncation in (Truncation.DROP, Truncation.TRUNCATE)
            read = [(yield from self._beginning(text))] if is_cut else list(sections(text))
            found.append([token for tokens in (yield read) for token in tokens])
        return found

    @cached_property
    def pair(self) -> PairTemplate:
        """How the tokenizer joins two texts. Raises RunFailure (BadModel)."""
        return pair_template(self.tokenizer)

    @cached_property
    def leading_ids(self) -> list[int]:
        """The tokens that the tokenizer puts before plain text, such as a BOS token. A chat template writes its own."""
        ids = list(self.tokenizer("")["input_ids"])
        ends = ids and ids[-1] == self.tokenizer.eos_token_id and ids != [self.tokenizer.bos_token_id]
        return ids[:-1] if ends else ids

    @cached_property
    def closing_ids(self) -> list[int]:
        """The tokens that the tokenizer puts after plain text, such as an EOS token."""
        return list(self.tokenizer("")["input_ids"])[len(self.leading_ids) :]

    def whole(self, *texts: str) -> Encoding[list[Tokens]]:
        """The tokens of plain texts as calls of the tokenizer return them, with those that it puts before and after each."""
        found = yield from self.ids(*texts)
        return [[*self.leading_ids, *ids, *self.closing_ids] for ids in found]

    def answered(self, prompt: str, answer: str) -> Encoding[tuple[Tokens, Tokens]]:
        """The tokens of a prompt, and those of its answer: what follows the prompt's in the whole text, or, where tokens merge
        over the seam, the answer's own."""
        prompt_ids, whole_ids = yield from self.ids(prompt, prompt + answer)
        if starts_with(whole_ids, prompt_ids):
            return prompt_ids, whole_ids[len(prompt_ids) :]
        [answer_ids] = yield from self.ids(answer)
        return prompt_ids, answer_ids

    def turn(self, prompt: list[int], answer: list[int]) -> Turn:
        """The turn, with a stop token at the end of the answer, as otherwise the model would not learn to end.

        What a template writes after the stop token, such as a line break, is never the model's to generate.
        """
        end = last_of(answer, self.stop_ids) + 1
        if (not end or self.tokenizer.decode(answer[end:]).strip()) and self.tokenizer.eos_token_id is not None:
            answer = [*answer, self.tokenizer.eos_token_id]
            end = len(answer)
        return Turn(prompt, answer, learned=end or len(answer))

    def _beginning(self, text: str) -> Encoding[str]:
        """As much of a long text as has more than `most_tokens`, or all of it."""
        count = 0
        for end in range(PIECE, len(text), PIECE):
            [tokens] = yield [text[end - PIECE : end]]
            count += len(tokens)
            if count > self.most_tokens:
                return text[:end]
        return text


def last_of(tokens: Tokens, wanted: Collection[int]) -> int:
    """Index of the last token that is among those wanted; -1 if none is."""
    return next((at for at in range(len(tokens) - 1, -1, -1) if tokens[at] in wanted), -1)


def sections(text: str) -> Iterator[str]:
    """A long text in sections of about PIECE characters, each of which ends before white space if there is some."""
    start = 0
    while len(text) - start > PIECE:
        end = start + PIECE
        spaces = [at for space in ("\n", " ") if (at := text.rfind(space, start + PIECE // 2, end)) > 0]
        end = spaces[0] if spaces else end
        yield text[start:end]
        start = end
    yield text[start:]
