"""Encodes text as token ids, within the limits of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith_api.training import LossOn, Truncation
from tunesmith_runtime.data.examples import Turn, starts_with
from tunesmith_runtime.data.row_error import row_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without special tokens at its start or end.

        Of a very long text only the beginning is read where the rest would be cut off or the row dropped; else it is tokenized
        in sections. Raises RowError where the tokenizer refuses the text.
        """
        with row_errors("is refused by the model's tokenizer"):
            if len(text) <= PIECE:
                return self._tokenized(text)
            if self.truncation in (Truncation.DROP, Truncation.TRUNCATE):
                return self._tokenized(self._beginning(text))
            return [token for section in sections(text) for token in self._tokenized(section)]

    def leading_ids(self) -> list[int]:
        """The tokens that the tokenizer puts before plain text, such as a BOS token. A chat template writes its own."""
        ids = list(self.tokenizer("")["input_ids"])
        ends = ids and ids[-1] == self.tokenizer.eos_token_id and ids != [self.tokenizer.bos_token_id]
        return ids[:-1] if ends else ids

    def answer_ids(self, prompt: list[int], whole: str, answer: str) -> list[int]:
        """The tokens of `answer` at the end of `whole`: those after the prompt's, or, where tokens merge over the seam, its own."""
        ids = self.ids(whole)
        return ids[len(prompt) :] if starts_with(ids, prompt) else self.ids(answer)

    def turn(self, prompt: list[int], answer: list[int]) -> Turn:
        """The turn, with a stop token at the end of the answer, as otherwise the model would not learn to end.

        What a template writes after the stop token, such as a line break, is never the model's to generate.
        """
        end = max((at + 1 for at, token in enumerate(answer) if token in self.stop_ids), default=0)
        if (not end or self.tokenizer.decode(answer[end:]).strip()) and self.tokenizer.eos_token_id is not None:
            answer = [*answer, self.tokenizer.eos_token_id]
            end = len(answer)
        return Turn(prompt, answer, learned=end or len(answer))

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
