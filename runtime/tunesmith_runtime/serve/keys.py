"""The API key: read from the pod's environment, and compared with the headers of a request."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import API_KEY_VARIABLE
from tunesmith_runtime.credentials import strip_padding
from tunesmith_runtime.errors import RunFailure


def api_key(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the key without surrounding white space; None if requests need no key.

    Raises RunFailure (BadSpec) for an empty key, which would open the service to everybody, and for a key that no HTTP
    header can carry.
    """
    value = environment.get(API_KEY_VARIABLE)
    if value is None:
        return None
    key = strip_padding(value)
    if not key:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            "the API key is empty: the entry api-key of the Secret in spec.apiKeySecret holds only white space",
            "put a key into that Secret, or remove spec.apiKeySecret to serve without a key",
        )
    if not (key.isascii() and key.isprintable()):
        raise RunFailure(
            FailureClass.BAD_SPEC,
            "the API key contains a line break or another character that HTTP clients do not send in a header",
            "put one key of printable ASCII characters into the entry api-key of the Secret in spec.apiKeySecret",
        )
    return key


def bearer_token(header: str) -> bytes:
    """Return the token of an Authorization header with the scheme Bearer in any case (RFC 9110, section 11.1); else b"".

    `header` is decoded as ASGI frameworks do it: one character for each byte.
    """
    scheme, _, token = header.encode("latin-1").strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def accepts(key: str, token: bytes) -> bool:
    """Whether `token` is the key, compared in constant time."""
    return hmac.compare_digest(token, key.encode())
