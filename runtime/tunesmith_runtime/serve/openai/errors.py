"""Errors in the shape of the OpenAI API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RETRY_SECONDS = 5
"""Value of Retry-After."""
MAX_MESSAGE, MAX_NAME = 1000, 80
"""Maximum number of characters of an error message, and of a model's name within it."""


@dataclass
class ApiError(Exception):
    """An error response: HTTP status, message, and the fields type, param and code that clients evaluate."""

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
    """400: invalid request. The message, which may quote the request, is cut to a readable length."""
    return ApiError(400, _readable(message, MAX_MESSAGE), param=param and _readable(param, MAX_NAME), code=code)


def model_not_found(name: str, served: list[str]) -> ApiError:
    """404: unknown model."""
    message = f"The model `{_readable(name, MAX_NAME)}` does not exist. Served here: {', '.join(served)}."
    return ApiError(404, message, param="model", code="model_not_found")


def prompt_too_long(limit: int, minimum: int) -> ApiError:
    """400: the prompt has at least `minimum` tokens, more than `limit`."""
    message = (
        f"This model's maximum context length is {limit} tokens. However, your prompt has at least {minimum} tokens."
    )
    return invalid(message, code="context_length_exceeded")


def context_too_long(limit: int, prompt: int, answer: int | None) -> ApiError:
    """400: prompt and answer do not fit. `answer` is the length that the request asks for, if any."""
    cause = (
        f"your prompt has {prompt} tokens, which leaves none for the completion"
        if answer is None
        else f"you requested {prompt + answer} tokens ({prompt} in the prompt, {answer} in the completion)"
    )
    return invalid(
        f"This model's maximum context length is {limit} tokens. However, {cause}.", code="context_length_exceeded"
    )


def unauthorized(given: bool) -> ApiError:
    """401: no key, or a wrong key."""
    message = (
        "Incorrect API key provided." if given else "You didn't provide an API key: send `Authorization: Bearer KEY`."
    )
    code = "invalid_api_key" if given else None
    return ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def unavailable(message: str) -> ApiError:
    """503: temporarily unavailable."""
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return ApiError(503, message, type="server_error", code="service_unavailable", headers=headers)


def server_error(message: str) -> ApiError:
    """500: internal error."""
    return ApiError(500, message, type="server_error")


def _readable(text: str, most: int) -> str:
    """Cut a text to `most` characters, and escape characters that UTF-8 cannot encode."""
    return text[:most].encode(errors="backslashreplace").decode()
