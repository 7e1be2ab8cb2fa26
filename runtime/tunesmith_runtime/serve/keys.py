"""The API key: read from the pod's environment, and looked for in the headers of a request."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Mapping

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

API_KEY_VARIABLE = "TUNESMITH_API_KEY"
"""Environment variable with the key that requests must have; absent: none is needed."""

AROUND = r"[\s\ufeff\u200b]+"
"""White space, and the invisible characters that editors put at the beginning of a file."""


def api_key(environment: Mapping[str, str] = os.environ) -> str | None:
    """The key without the white space around it; None where requests need none.

    Raises RunFailure (BadSpec) for a key that is empty, which must not open the service to everybody, or that no header
    can carry.
    """
    given = environment.get(API_KEY_VARIABLE)
    if given is None:
        return None
    key = re.sub(f"^{AROUND}|{AROUND}$", "", given)
    if not key:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            "the API key is empty: the entry api-key of the Secret in spec.apiKeySecret has nothing but white space",
            "put a key into that Secret, or remove spec.apiKeySecret to serve without a key",
        )
    if not (key.isascii() and key.isprintable()):
        raise RunFailure(
            FailureClass.BAD_SPEC,
            "the API key has a line break or another character inside that HTTP clients don't send in a header",
            "put one key of printable ASCII characters into the entry api-key of the Secret in spec.apiKeySecret",
        )
    return key


def bearer_token(header: str) -> bytes:
    """The token of an Authorization header of the scheme Bearer, whose case does not matter (RFC 9110, section 11.1); else empty.

    `header` is as ASGI frameworks give it, each character a byte.
    """
    scheme, _, token = header.encode("latin-1").strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def accepts(key: str, token: bytes) -> bool:
    """Whether a request with this token has the key; takes as long whatever part of it is right."""
    return hmac.compare_digest(token, key.encode())
