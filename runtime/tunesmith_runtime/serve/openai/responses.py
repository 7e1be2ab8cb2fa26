"""Responses of the OpenAI API: bodies and stream events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith_runtime.serve.generation.loop import Finish, Piece
from tunesmith_runtime.serve.generation.sampling import Choice
from tunesmith_runtime.serve.generation.tokens import Tokens

DONE = b"data: [DONE]\n\n"


@dataclass
class Answer:
    """A choice while it grows."""

    text: str = ""
    tokens: int = 0
    finish: Finish | None = None
    pieces: list[Piece] = field(default_factory=list)
    """The pieces that have a token."""

    def add(self, piece: Piece) -> None:
        """Append the output of a step."""
        self.text += piece.text
        self.finish = piece.finish
        if piece.choice is not None:
            self.tokens += 1
            self.pieces.append(piece)


def identifier(prefix: str) -> str:
    """Return a new id."""
    return f"{prefix}-{uuid.uuid4().hex}"


def event(body: Mapping[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """Return the token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def model_list(names: Sequence[str], created: int, max_length: int | None) -> dict[str, Any]:
    """Return the body of GET /v1/models."""
    return {"object": "list", "data": [model_card(name, created, max_length) for name in names]}


def model_card(name: str, created: int, max_length: int | None) -> dict[str, Any]:
    """Return an entry of the list, and the body of GET /v1/models/{name}. `max_model_len` is an extension of vLLM and SGLang."""
    return {"id": name, "object": "model", "created": created, "owned_by": "tunesmith", "max_model_len": max_length}


@dataclass(frozen=True)
class Chat:
    """Bodies of /v1/chat/completions."""

    id: str
    created: int
    model: str
    tokens: Tokens
    logprobs: bool

    prefix = "chatcmpl"

    def full_body(self, answers: Sequence[Answer], prompt_tokens: int) -> dict[str, Any]:
        """Return the body of a response that is not streamed."""
        choices: list[dict[str, Any]] = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []},
                "logprobs": self._logprobs(answer.pieces),
                "finish_reason": answer.finish,
            }
            for index, answer in enumerate(answers)
        ]
        counted = usage(prompt_tokens, sum(answer.tokens for answer in answers))
        return {**self._head("chat.completion"), "choices": choices, "usage": counted}

    def first_chunk(self, index: int) -> dict[str, Any] | None:
        """Return the first chunk of a choice."""
        return self._chunk(index, {"role": "assistant", "content": "", "refusal": None}, None, None)

    def chunk(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """Return the chunk of a step; None if it has no text to send yet."""
        if not piece.text and not (self.logprobs and piece.choice):
            return None
        return self._chunk(index, {"content": piece.text}, self._logprobs([piece]), None)

    def last_chunk(self, index: int, finish: Finish | None) -> dict[str, Any] | None:
        """Return the last chunk of a choice."""
        return self._chunk(index, {}, None, finish)

    def usage_chunk(self, counted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the chunk with the token counts."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": counted}

    def _chunk(self, index: int, delta: Mapping[str, Any], logprobs: Any, finish: Finish | None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {"content": [self._token_entry(piece.choice) for piece in pieces if piece.choice], "refusal": None}

    def _token_entry(self, choice: Choice) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in choice.top]
        return {**self._token(choice.token, choice.logprob), "top_logprobs": top}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        raw = self.tokens.bytes_of(token)
        return {"token": self.tokens.text_of(token), "logprob": logprob, "bytes": None if raw is None else list(raw)}


@dataclass(frozen=True)
class Completion:
    """Bodies of /v1/completions."""

    id: str
    created: int
    model: str
    tokens: Tokens
    logprobs: bool

    prefix = "cmpl"

    def full_body(self, answers: Sequence[Answer], prompt_tokens: int) -> dict[str, Any]:
        """Return the body of a response that is not streamed."""
        choices = [
            self._choice(index, answer.text, self._logprobs(answer.pieces), answer.finish)
            for index, answer in enumerate(answers)
        ]
        counted = usage(prompt_tokens, sum(answer.tokens for answer in answers))
        return {**self._head(), "choices": choices, "usage": counted}

    def first_chunk(self, index: int) -> dict[str, Any] | None:
        """Return None: streams of completions begin with text."""
        return None

    def chunk(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """Return the chunk of a step; None if it has no text to send yet."""
        if not piece.text and not (self.logprobs and piece.choice):
            return None
        return {**self._head(), "choices": [self._choice(index, piece.text, self._logprobs([piece]), None)]}

    def last_chunk(self, index: int, finish: Finish | None) -> dict[str, Any] | None:
        """Return the last chunk of a choice."""
        return {**self._head(), "choices": [self._choice(index, "", None, finish)]}

    def usage_chunk(self, counted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the chunk with the token counts."""
        return {**self._head(), "choices": [], "usage": counted}

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}

    @staticmethod
    def _choice(index: int, text: str, logprobs: Any, finish: Finish | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        """`text_offset` counts the characters of the answer, which does not repeat the prompt."""
        if not self.logprobs:
            return None
        chosen = [(piece, piece.choice) for piece in pieces if piece.choice]
        return {
            "tokens": [self.tokens.text_of(choice.token) for _, choice in chosen],
            "token_logprobs": [choice.logprob for _, choice in chosen],
            "top_logprobs": [self._alternatives(choice) for _, choice in chosen],
            "text_offset": [self._offset(piece, choice) for piece, choice in chosen],
        }

    def _offset(self, piece: Piece, choice: Choice) -> int:
        """Return where the text of a token begins; for a part of a character, where the character begins."""
        text = self.tokens.text_of(choice.token)
        is_text = text.encode() == self.tokens.bytes_of(choice.token)
        follows_held_bytes = is_text and piece.end - piece.begin > len(text)
        return piece.end - len(text) if follows_held_bytes else piece.begin

    def _alternatives(self, choice: Choice) -> dict[str, float | None]:
        """Return the likeliest tokens and the chosen token by text; tokens of equal text are listed by id."""
        logprobs: dict[str, float | None] = {}
        for token, logprob in {**dict(choice.top), choice.token: choice.logprob}.items():
            text = self.tokens.text_of(token)
            logprobs[f"token_id:{token}" if text in logprobs else text] = logprob
        return logprobs
