"""White space around credentials is removed, and credentials are never printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.failures import FAILURES, FailureClass, Retry
from tunesmith_api.run import Store
from tunesmith_runtime.credentials import AWS, HUBS, check, redacted, secrets_of, trim, without_secrets
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.hub import Download
from tunesmith_runtime.fetch.import_parts import Parts
from tunesmith_runtime.storage import join, open_storage

AROUND = st.text(st.sampled_from(" \t\r\n\u00a0\ufeff\u200b"))
KEY = "AKIAIOSFODNN7EXAMPLE"
NAMES = [
    *AWS,
    *HUBS,
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_CA_BUNDLE",
    "TUNESMITH_API_KEY",
    "TUNESMITH_PROGRESS_TOKEN",
    "HTTPS_PROXY",
]


@given(st.sampled_from(NAMES), AROUND, AROUND)
def test_white_space_around_a_credential_is_removed(name: str, before: str, after: str) -> None:
    environment = {name: f"{before}{KEY}{after}", "PATH": " /bin "}
    trim(environment)
    assert environment == {name: KEY, "PATH": " /bin "}
    check([*AWS, *HUBS], FailureClass.STORAGE_403, environment)


@pytest.mark.parametrize("name", [*AWS, *HUBS])
def test_white_space_within_a_credential_is_named_and_the_credential_is_not(name: str) -> None:
    with pytest.raises(RunFailure, match=f"{name} has white space within it, at character 5") as wrong:
        check([name], FailureClass.STORAGE_403, {name: "AKIA\nIOSFODNN7"})
    assert wrong.value.failure is FailureClass.STORAGE_403
    assert name in str(wrong.value.hint)
    assert "AKIA" not in f"{wrong.value} {wrong.value.hint}"
    assert FAILURES[FailureClass.STORAGE_403].retry is Retry.NEVER


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_SECRET_ACCESS_KEY", "with space and ü"), ("AWS_ACCESS_KEY_ID", ""), ("AWS_SESSION_TOKEN", "a/b+c==")],
)
def test_a_credential_that_can_be_signed_with_or_sent_is_accepted(name: str, value: str) -> None:
    check(AWS, FailureClass.STORAGE_403, {name: value})


def test_a_character_that_no_header_can_carry_is_named() -> None:
    with pytest.raises(
        RunFailure, match=r"AWS_ACCESS_KEY_ID has a character that is not ASCII within it, at character 3"
    ):
        check(AWS, FailureClass.STORAGE_403, {"AWS_ACCESS_KEY_ID": "AKéA"})


def test_secrets_are_values_of_variables_named_like_secrets() -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": "one\n",
        "AWS_ACCESS_KEY_ID": KEY,
        "MY_DB_PASSWORD": "two",
        "TUNESMITH_API_KEY": "three",
        "HF_TOKEN": "four",
        "TUNESMITH_PROGRESS_TOKEN": "five",
        "TUNESMITH_TERMINATION_LOG": "/dev/termination-log",
        "SECRET_STORE_SERVICE_HOST": "10.0.0.1",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
    }
    assert set(secrets_of(environment)) == {"one", KEY, "two", "three", "four", "five"}


PROXY = "http://robert:hunter%2Fsecret@proxy.example.com:3128"


@pytest.mark.parametrize(
    "text",
    [
        "robert:hunter%2Fsecret@proxy.example.com:3128 refuses the tunnel",
        "Proxy-Auth cm9iZXJ0Omh1bnRlci9zZWNyZXQ= is wrong",
        "user robert, password hunter/secret",
        "to=http%3A%2F%2Frobert%3Ahunter%252Fsecret%40proxy",
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "HF_ENDPOINT"])
def test_the_password_of_a_proxy_is_a_secret(name: str, text: str) -> None:
    left = redacted(text, {name: PROXY})
    assert "***" in left
    assert not [form for form in ("hunter", "cm9iZXJ0Omh1bnRlci9zZWNyZXQ") if form in left]


def test_a_port_before_a_path_is_not_a_password() -> None:
    assert not secrets_of({"BASE": "oci://registry:5000/image@sha256:0123", "URL": "http://host:9000/me@example"})


def test_each_line_of_a_secret_of_several_lines_is_a_secret() -> None:
    text = "Invalid header value: first-of-them\nsecond-of-them"
    assert redacted(text, {"HF_TOKEN": "first-of-them\r\n second-of-them \n"}) == "Invalid header value: ***\n***"


def test_a_control_character_is_named_as_such() -> None:
    with pytest.raises(RunFailure, match="HF_TOKEN has a control character within it, at character 3"):
        check(HUBS, FailureClass.MODEL_NOT_FOUND, {"HF_TOKEN": "hf\x01x"})


def test_a_short_key_id_is_not_a_secret() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "tunesmith", "AWS_SECRET_ACCESS_KEY": ""}
    assert redacted("bucket tunesmith", environment) == "bucket tunesmith"


@given(st.from_regex(re.compile(r"[!-~]{8,40}"), fullmatch=True), st.text(), st.text())
def test_every_secret_of_the_environment_is_redacted(secret: str, before: str, after: str) -> None:
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "HF_TOKEN",
        "TUNESMITH_API_KEY",
        "TUNESMITH_PROGRESS_TOKEN",
    ):
        assert secret not in redacted(before + secret + after, {name: f"{secret}\n"})


@pytest.mark.parametrize(("uri", "name"), [("hf://org/small", "HF_TOKEN"), ("ms://org/small", "MODELSCOPE_API_TOKEN")])
def test_a_token_that_cannot_be_sent_is_refused_before_a_hub_is_contacted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str, name: str
) -> None:
    monkeypatch.setenv(name, "hf_one\nhf_two")
    parts = Parts(open_storage(Store(uri=tmp_path.as_uri())), join(tmp_path.as_uri(), "import"))
    with pytest.raises(RunFailure, match=f"{name} has white space within it, at character 7") as wrong:
        Download(uri, tmp_path / "model", False, False, lambda _: None, parts).run(None)
    assert wrong.value.failure is FailureClass.MODEL_NOT_FOUND


def test_a_program_gets_no_credentials_but_its_own() -> None:
    environment = {
        "WANDB_API_KEY": "k1", "HF_TOKEN": "k2", "AWS_SECRET_ACCESS_KEY": "k3", "TUNESMITH_PROGRESS_TOKEN": "k4", "PATH": "/bin",
    }  # fmt: skip
    assert without_secrets(environment, keep=["WANDB_API_KEY"]) == {"WANDB_API_KEY": "k1", "PATH": "/bin"}
