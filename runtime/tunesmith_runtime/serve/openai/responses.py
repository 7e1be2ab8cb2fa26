"""Answers of the OpenAI API: bodies and stream events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith_runtime.serve.generation.loop import Finish, Piece
from tunesmith_runtime.serve.generation.sampling import Choice

TokenText = Callable[[int], str]

DONE = b"data: [DONE]\n\n"


@dataclass
class Answer:
    """One choice as it grows."""

    text: str = ""
    tokens: int = 0
    finish: Finish | None = None
    choices: list[Choice] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Take in what a step brought."""
        self.text += piece.text
        self.finish = piece.finish
        if piece.choice is not None:
            self.tokens += 1
            self.choices.append(piece.choice)


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
    token_text: TokenText
    logprobs: bool

    prefix = "chatcmpl"

    def whole(self, answers: Sequence[Answer], prompt_tokens: int) -> dict[str, Any]:
        """The answer in one body."""
        choices: list[dict[str, Any]] = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []},
                "logprobs": self._logprobs(answer.choices),
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
        told = [piece.choice] if piece.choice is not None else []
        if not piece.text and not (self.logprobs and told):
            return None
        return self._chunk(index, {"content": piece.text}, self._logprobs(told), None)

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

    def _logprobs(self, choices: Sequence[Choice]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {"content": [self._told(choice) for choice in choices], "refusal": None}

    def _told(self, choice: Choice) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in choice.top]
        return {**self._token(choice.token, choice.logprob), "top_logprobs": top}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self.token_text(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


@dataclass(frozen=True)
class Completion:
    """Bodies of /v1/completions."""

    id: str
    created: int
    model: str
    token_text: TokenText
    logprobs: bool

    prefix = "cmpl"

    def whole(self, answers: Sequence[Answer], prompt_tokens: int) -> dict[str, Any]:
        """The answers in one body."""
        choices = [self._choice(i, one.text, self._logprobs(one.choices), one.finish) for i, one in enumerate(answers)]
        counted = usage(prompt_tokens, sum(answer.tokens for answer in answers))
        return {**self._head(), "choices": choices, "usage": counted}

    def first(self, index: int) -> dict[str, Any] | None:
        """Nothing: a stream of this kind begins with text."""
        return None

    def piece(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """What a step brought; None where there is nothing to tell yet."""
        told = [piece.choice] if piece.choice is not None else []
        if not piece.text and not (self.logprobs and told):
            return None
        return {**self._head(), "choices": [self._choice(index, piece.text, self._logprobs(told), None)]}

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

    def _logprobs(self, choices: Sequence[Choice]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {
            "tokens": [self.token_text(choice.token) for choice in choices],
            "token_logprobs": [choice.logprob for choice in choices],
            "top_logprobs": [{self.token_text(token): value for token, value in choice.top} for choice in choices],
            "text_offset": None,
        }
