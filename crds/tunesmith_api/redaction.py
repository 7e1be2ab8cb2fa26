"""Redaction of secrets in text of clients and logs, before it reaches a status, an Event or a log."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus

REDACTED = "***"
SHORTEST = 8
"""Minimum length of a value that is redacted wherever it occurs. A shorter value may be a part of ordinary words."""

NAMES = (
    r"X-Amz-(?:Signature|Security-Token|Credential)|(?:aws_)?(?:secret_?access_?key|session_?token)|aws_access_key_id|AWSAccessKeyId"
    r"|hf_token|hugging_face_hub_token|modelscope_api_token|tunesmith_(?:api_key|progress_token)"
    r"|(?:access_|refresh_|id_)?token|(?:api|auth|secret)_key|password|passwd|sig"
)
PATTERNS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # user and password of a URL; what begins with a port is a path
        (r"://[^\s/@:]{0,256}:(?!\d{1,5}(?:/|\s|$))[^\s@]{0,512}@(?:[^\s/@]{1,256}@){0,8}", f"://{REDACTED}@"),
        (r"(https?://)[^\s/@:]{1,256}@", rf"\1{REDACTED}@"),
        (r"(%3A%2F%2F)(?:(?!%2F)[^\s&/@]){1,512}?%40", rf"\1{REDACTED}%40"),
        # the parts of an AWS signature: RFC 7235 parameters and presigned URLs
        (r"\b(Credential|Signature)=[^\s&,;'\"<>]+", rf"\1={REDACTED}"),
        (
            rf"(?<![\w-])({NAMES})(\s?=\s?(?:b?['\"])?|['\"]\s*[:=]\s*(?:b?['\"])?)[^\s&,;'\"<>]{{8,}}",
            rf"\1\2{REDACTED}",
        ),
        (r"\b(X-Amz-Security-Token:\s*)[^\s'\"]+", rf"\1{REDACTED}"),
        (
            rf"(?<![\w-])((?:{NAMES}|x-api-key|api-key)\s?:\s?)(?=[\w.~+/=-]{{0,256}}\d)[\w.~+/=-]{{16,}}",
            rf"\1{REDACTED}",
        ),
        # fields of answers of S3 and STS
        (
            r"(<(?:SignatureProvided|AWSAccessKeyId|AccessKeyId|SecretAccessKey|SessionToken|ExpiredToken|Token-\d{1,3})>)[^<]+",
            rf"\1{REDACTED}",
        ),
        (r"\b(Authorization['\"]?\s*[:=,]\s*b?['\"]?(?:Bearer|Basic|Token|AWS)\s+)[^\s'\",]+", rf"\1{REDACTED}"),
        (r"\b(Authorization['\"]?\s*[:=]\s*b?['\"]?)[^\s'\",]{16,}", rf"\1{REDACTED}"),
        (r"\b(Bearer|Basic)\s+(?=[\w.~+/=-]{0,256}\d|[\w.~+/=-]{24})[\w.~+/=-]{8,}", rf"\1 {REDACTED}"),
        (r"(-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----)[^-]{1,8192}", rf"\1{REDACTED}"),
        # tokens with a known prefix: Hugging Face, AWS, ModelScope, JSON Web Tokens
        (r"\bhf_[a-z0-9]{16,}", REDACTED),
        (r"\b(?-i:AKIA|ASIA)(?-i:[0-9A-Z]{16})\b", REDACTED),
        (r"\bms-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", REDACTED),
        (r"\b(?-i:eyJ)[\w-]{8,4096}\.(?-i:eyJ)[\w-]{8,8192}\.[\w-]{8,2048}", REDACTED),
    )
]
"""Patterns of secrets that are known by their form or by the name before them."""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace each secret in `text` by `***`: the given values in any of their usual forms, and the matches of PATTERNS.

    Values shorter than SHORTEST stay, as replacing them would garble ordinary text.
    """
    for _ in range(2):  # the rest of a secret can be a part of another
        for pattern, replacement in PATTERNS:
            text = pattern.sub(replacement, text)
    finder = _finder(frozenset(secrets))
    while finder and (less := finder.sub(REDACTED, text)) != text:  # the joined text may form another secret
        text = less
    return text


@lru_cache(maxsize=16)
def _finder(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """Return the pattern of the secrets in any form, the longest first."""
    forms = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret) if len(form) >= SHORTEST}
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret verbatim, escaped for JSON, Python and HTML, percent-encoded, and in base64."""
    raw = secret.encode(errors="surrogatepass")
    yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield from (repr(secret)[1:-1], repr(raw)[2:-1], html.escape(secret))
    for encoded in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        yield encoded
        yield re.sub("%..", lambda code: code[0].lower(), encoded)
    for offset, lost in enumerate((0, 2, 3)):  # within other bytes, base64 depends on the position modulo 3
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(bytes(offset) + raw).decode().rstrip("=")
            yield text[lost : -1 if (offset + len(raw)) % 3 else None]
