"""Answers of the OpenAI API: bodies and stream events."""

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
    """One choice as it grows."""

    text: str = ""
    tokens: int = 0
    finish: Finish | None = None
    pieces: list[Piece] = field(default_factory=list)
    """Those with a token."""

    def add(self, piece: Piece) -> None:
        """Take in what a step brought."""
        self.text += piece.text
        self.finish = piece.finish
        if piece.choice is not None:
            self.tokens += 1
            self.pieces.append(piece)


def identifier(prefix: str) -> str:
    """A fresh id."""
    return f"{prefix}-{uuid.uuid4().hex}"


def event(body: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """Token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def model_list(names: Sequence[str], created: int, max_length: int | None) -> dict[str, Any]:
    """Body of GET /v1/models."""
    return {"object": "list", "data": [model_card(name, created, max_length) for name in names]}


def model_card(name: str, created: int, max_length: int | None) -> dict[str, Any]:
    """One model of the list, and the body of GET /v1/models/{name}. `max_model_len` is vLLM's and SGLang's addition."""
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

    def whole(self, answers: Sequence[Answer], prompt_tokens: int) -> dict[str, Any]:
        """The answer in one body."""
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

    def first(self, index: int) -> dict[str, Any] | None:
        """What a stream begins with for each choice."""
        return self._chunk(index, {"role": "assistant", "content": "", "refusal": None}, None, None)

    def piece(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """What a step brought; None where there is nothing to tell yet."""
        if not piece.text and not (self.logprobs and piece.choice):
            return None
        return self._chunk(index, {"content": piece.text}, self._logprobs([piece]), None)

    def last(self, index: int, finish: Finish | None) -> dict[str, Any] | None:
        """What a stream ends with for each choice."""
        return self._chunk(index, {}, None, finish)

    def counts(self, counted: Mapping[str, Any]) -> dict[str, Any]:
        """The chunk with the token counts."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": counted}

    def _chunk(self, index: int, delta: Mapping[str, Any], logprobs: Any, finish: Finish | None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {"content": [self._told(piece.choice) for piece in pieces if piece.choice], "refusal": None}

    def _told(self, choice: Choice) -> dict[str, Any]:
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

    def whole(self, answers: Sequence[Answer], prompt_tokens: int) -> dict[str, Any]:
        """The answers in one body."""
        choices = [self._choice(i, one.text, self._logprobs(one.pieces), one.finish) for i, one in enumerate(answers)]
        counted = usage(prompt_tokens, sum(answer.tokens for answer in answers))
        return {**self._head(), "choices": choices, "usage": counted}

    def first(self, index: int) -> dict[str, Any] | None:
        """Nothing: a stream of this kind begins with text."""
        return None

    def piece(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """What a step brought; None where there is nothing to tell yet."""
        if not piece.text and not (self.logprobs and piece.choice):
            return None
        return {**self._head(), "choices": [self._choice(index, piece.text, self._logprobs([piece]), None)]}

    def last(self, index: int, finish: Finish | None) -> dict[str, Any] | None:
        """What a stream ends with for each choice."""
        return {**self._head(), "choices": [self._choice(index, "", None, finish)]}

    def counts(self, counted: Mapping[str, Any]) -> dict[str, Any]:
        """The chunk with the token counts."""
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
        """Where the text of a token begins: of a part of a character, where the character does."""
        text = self.tokens.text_of(choice.token)
        behind_broken_bytes = piece.end - piece.begin > len(text) and text.encode() == self.tokens.bytes_of(
            choice.token
        )
        return piece.end - len(text) if behind_broken_bytes else piece.begin

    def _alternatives(self, choice: Choice) -> dict[str, float | None]:
        """The likeliest tokens and the chosen one; tokens of the same text are listed by their ids."""
        logprobs: dict[str, float | None] = {}
        for token, logprob in {**dict(choice.top), choice.token: choice.logprob}.items():
            text = self.tokens.text_of(token)
            logprobs[f"token_id:{token}" if text in logprobs else text] = logprob
        return logprobs
