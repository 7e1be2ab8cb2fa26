"""Redaction removes every form of a secret and leaves ordinary text alone."""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.failures import FAILURES
from tunesmith_api.redaction import SHORTEST, redact

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SIGNATURE = "fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024"
LONG = st.text(min_size=SHORTEST, max_size=60)


@given(st.text(), LONG, st.text(), LONG)
def test_no_secret_survives(before: str, secret: str, after: str, other: str) -> None:
    text = redact(before + secret + after + other + secret, [secret, other])
    assert secret not in text
    assert other not in text


@given(LONG, st.sampled_from(["*", "***", "a***b"]))
def test_no_secret_survives_that_resembles_its_replacement(secret: str, stars: str) -> None:
    stars = stars * SHORTEST
    assert stars not in redact(f"{secret}{stars}{secret}{stars}", [secret, stars])


@pytest.mark.parametrize(
    "encode",
    [
        lambda secret: quote(secret, safe=""),
        lambda secret: re.sub("%..", lambda code: code[0].lower(), quote(secret, safe="")),
        quote,
        quote_plus,
        lambda secret: json.dumps({"key": secret}),
        lambda secret: repr({"key": secret}),
        lambda secret: repr(secret.encode()),
        html.escape,
        lambda secret: base64.b64encode(secret.encode()).decode(),
        lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
        lambda secret: base64.b64encode(f"user:{secret}@host".encode()).decode(),
        lambda secret: base64.b64encode(f"name:{secret}".encode()).decode(),
        lambda secret: base64.b64encode(f"me:{secret}&".encode()).decode(),
    ],
)
@pytest.mark.parametrize("secret", [SECRET, 'quote"d <pass> & \\word', "pässwörter/+ 密码"])
def test_no_usual_form_of_a_secret_survives(encode, secret: str) -> None:  # type: ignore[no-untyped-def]
    plain = encode("x" * len(secret))
    text = redact(encode(secret), [secret])
    assert "***" in text
    assert len(text) <= len(plain) - len(secret) + 12


@given(st.lists(st.text(max_size=SHORTEST - 1)), st.text(st.characters(categories=["L", "Zs", "Po"])))
def test_a_short_value_garbles_no_text(short: list[str], text: str) -> None:
    assert redact(text, ["a", "minio", *short]) == text


PIECES = [
    "Authorization: ",
    "Bearer ",
    "Basic ",
    "token=",
    "'token': ",
    "Signature=",
    "://",
    "a",
    ":",
    "@",
    "1",
    "x" * 24,
]
PIECES += ["hf_", "AKIA", "A" * 16, "eyJ", ".", " ", "'", "b'", "***", "&", "https", "api-key: ", KEY, SECRET]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text())
def test_redacted_text_is_not_changed_again(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            f"Invalid header value b'AWS4-HMAC-SHA256 Credential={KEY}\\n/us/s3, SignedHeaders=host, Signature={SIGNATURE}'",
            "Invalid header value b'AWS4-HMAC-SHA256 Credential=***, SignedHeaders=host, Signature=***'",
        ),
        (
            f"GET https://s3.example.com/b/k?X-Amz-Credential={KEY}%2F20260101&X-Amz-Signature={SIGNATURE}&x-id=GetObject",
            "GET https://s3.example.com/b/k?X-Amz-Credential=***&X-Amz-Signature=***&x-id=GetObject",
        ),
        (  # Alibaba's CDN, to which ModelScope redirects: time-random-user-hash
            "HTTP 403 on GET /lfs/model?revision=master&auth_key=1764400000-0-0-0123456789abcdef0123456789abcdef",
            "HTTP 403 on GET /lfs/model?revision=master&auth_key=***",
        ),
        (f"X-Amz-Security-Token: IQoJb3JpZ2luX2VjEJr//{SIGNATURE}", "X-Amz-Security-Token: ***"),
        (f"{{'x-amz-security-token': 'IQoJb3JpZ2luX2VjEJr{SIGNATURE}'}}", "{'x-amz-security-token': '***'}"),
        ("Authorization: Bearer secret-key", "Authorization: Bearer ***"),
        ("'Authorization': 'Basic dXNlcjpwYXNz'", "'Authorization': 'Basic ***'"),
        (f"authorization: {SIGNATURE}", "authorization: ***"),
        (f"Authorization: AWS {KEY}:frJIUN8DYpKDtOLCwo//yllqDzg=", "Authorization: AWS ***"),
        ("sent 'Bearer sk-12345678'", "sent 'Bearer ***'"),
        (f"no bucket at s3://{KEY}:{SECRET}@bucket/x", "no bucket at s3://***@bucket/x"),
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        (f"HF_TOKEN: {SIGNATURE}", "HF_TOKEN: ***"),
        (f"x-api-key: {SIGNATURE}", "x-api-key: ***"),
        ("https://host/x?sig=abc%2Fdefghijk%3D&se=1", "https://host/x?sig=***&se=1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END", "-----BEGIN RSA PRIVATE KEY-----***-----END"),
        ("proxy http://me:pass@proxy:3128 refused", "proxy http://***@proxy:3128 refused"),
        ("https://ghp_abc@github.com/x", "https://***@github.com/x"),
        (f"aws_secret_access_key = {SECRET}", "aws_secret_access_key = ***"),
        (f"AWS_SECRET_ACCESS_KEY={SECRET} HF_TOKEN='hf_1234567890abcdef'", "AWS_SECRET_ACCESS_KEY=*** HF_TOKEN='***'"),
        ("token hf_AbCdEfGhIjKlMnOpQrStUvWx is not valid", "token *** is not valid"),
        (f"the key {KEY} is not known", "the key *** is not known"),
        ("ms-01234567-89ab-cdef-0123-456789abcdef", "***"),
        ("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl", "***"),
        (f"<SignatureProvided>{SIGNATURE}</SignatureProvided>", "<SignatureProvided>***</SignatureProvided>"),
        ("<Code>InvalidToken</Code><Token-0>IQoJ/b3+Jp==</Token-0>", "<Code>InvalidToken</Code><Token-0>***</Token-0>"),
        (
            f"<SecretAccessKey>{SECRET}</SecretAccessKey>\n<SessionToken>\nIQoJb3Jp\nZ2lu==\n</SessionToken>",
            "<SecretAccessKey>***</SecretAccessKey>\n<SessionToken>***</SessionToken>",
        ),
        (
            f'{{"SecretAccessKey": "{SECRET}", "SessionToken": "IQoJb3Jp"}}',
            '{"SecretAccessKey": "***", "SessionToken": "***"}',
        ),
        ("[(b'authorization', b'Bearer mysecretpassword')]", "[(b'authorization', b'Bearer ***')]"),
        ("proxy http://me:p@ss@wo@proxy:3128 refused", "proxy http://***@proxy:3128 refused"),
        ("to=http%3A%2F%2Fme%3Apass%40proxy%3A3128&x=1", "to=http%3A%2F%2F***%40proxy%3A3128&x=1"),
    ],
)
def test_what_is_a_secret_by_its_form_is_taken_out(text: str, left: str) -> None:
    assert redact(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "model hf://Qwen/Qwen3-8B@main and ms://org/name@v1.0",
        "s3://data/mail@example.com/rows.jsonl line 17: column 2 is not JSON",
        "nothing at s3://bucket/a:b@c",
        "http://127.0.0.1:9000/path@x answers 503",
        "http://127.0.0.1:9000 and me@example.com",
        "pad_token='<|endoftext|>', eos_token='<|im_end|>', max_new_tokens=512, tokens=12345678",
        "Please use AWS4-HMAC-SHA256.",
        "https://host/?next=https%3A%2F%2Fhost%2Fmail%40example.com",
        "Basic authentication is not supported; Bearer authentication is required",
        "correct AWS_SECRET_ACCESS_KEY in the credentials Secret: it does not belong to its AWS_ACCESS_KEY_ID",
        "name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in storage.credentialsSecret",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "docker.io/tunesmith/runtime:0.2.0@sha256:9f86d081884c7d65",
        "hf_transfer is not installed",
        "HF_TOKEN: the hub refuses it; token: 17; password: see the documentation of the store",
        *(hint for failure in FAILURES.values() if (hint := failure.hint)),
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact(text, ["minio", "a", ""]) == text


@pytest.mark.parametrize(
    "part",
    [
        "://a:",
        "%3A%2F%2F",
        "%3A%2F%2Fa",
        "://a:b@",
        "<Token-0>",
        "Bearer 1",
        "authorization: ",
        "token=",
        "eyJaaaaaaaa.",
        "Signature=",
        "hf_",
        "\\",
    ],
)
def test_a_long_hostile_text_is_redacted_in_linear_time(part: str) -> None:
    """A pattern that looks back at every character would take hours."""
    assert redact(part * (250_000 // len(part)))
