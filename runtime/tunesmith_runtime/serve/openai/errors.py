"""Errors in the shape of the OpenAI API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RETRY_SECONDS = 5
"""Value of Retry-After."""
MAX_MESSAGE, MAX_NAME = 1000, 80
"""Characters at most of an error message, and of a model's name within it."""


@dataclass
class ApiError(Exception):
    """An answer that says what is wrong: HTTP status, message, and the words that clients look at."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request is wrong. What the message repeats of the request is cut to a readable length."""
    return ApiError(400, _readable(message, MAX_MESSAGE), param=param and _readable(param, MAX_NAME), code=code)


def model_not_found(name: str, served: list[str]) -> ApiError:
    """404: no such model here."""
    message = f"The model `{_readable(name, MAX_NAME)}` does not exist. Served here: {', '.join(served)}."
    return ApiError(404, message, param="model", code="model_not_found")


def prompt_too_long(limit: int, fewest: int) -> ApiError:
    """400: the prompt alone does not fit, which is known without counting its tokens."""
    message = (
        f"This model's maximum context length is {limit} tokens. However, your prompt has at least {fewest} tokens."
    )
    return invalid(message, code="context_length_exceeded")


def context_too_long(limit: int, prompt: int, answer: int, asked: bool) -> ApiError:
    """400: prompt and answer do not fit. `asked`: the length of the answer is the request's own."""
    wanted = f"you requested {prompt + answer} tokens ({prompt} in the prompt, {answer} in the completion)"
    if not asked:
        wanted = f"your prompt has {prompt} tokens, which leaves none for the completion"
    return invalid(
        f"This model's maximum context length is {limit} tokens. However, {wanted}.", code="context_length_exceeded"
    )


def unauthorized(given: bool) -> ApiError:
    """401: no key, or a wrong one."""
    message = (
        "Incorrect API key provided." if given else "You didn't provide an API key: send `Authorization: Bearer KEY`."
    )
    code = "invalid_api_key" if given else None
    return ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def unavailable(message: str) -> ApiError:
    """503: not now, but soon."""
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return ApiError(503, message, type="server_error", code="service_unavailable", headers=headers)


def server_error(message: str) -> ApiError:
    """500: it is our fault."""
    return ApiError(500, message, type="server_error")


def _readable(text: str, most: int) -> str:
    """A text that JSON in UTF-8 can carry, of a length that people read."""
    return text[:most].encode(errors="backslashreplace").decode()
