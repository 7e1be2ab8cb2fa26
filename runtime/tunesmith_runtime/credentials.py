"""The credentials of this process: without the white space that Secrets made from files have, and never in a text."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, MutableMapping
from urllib.parse import unquote

from tunesmith_api.failures import FailureClass
from tunesmith_api.redaction import redact
from tunesmith_runtime.errors import RunFailure

AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
HUBS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN")

TRIMMED = re.compile(r"(?:AWS|HF|HUGGING_FACE|MODELSCOPE|TUNESMITH)_.*|.*_(?:TOKEN|KEY|PROXY)", re.IGNORECASE)
"""Variables whose values have no white space around them."""
AROUND = re.compile("^[\\s\ufeff\u200b]+|[\\s\ufeff\u200b]+$")

SECRET = re.compile(r".*_(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|SECRET_KEY|SECRET_ACCESS_KEY)")
"""Variables whose values are never printed."""
USERINFO = re.compile(r"[a-z][a-z0-9+.-]*://(?P<all>[^\s/:]*:(?P<password>(?!\d{1,5}(?:/|$))\S+))@", re.IGNORECASE)
"""User and password of a URL, such as that of a proxy."""
KEY_ID = "AWS_ACCESS_KEY_ID"
KEY_ID_CHARACTERS = 16
"""A shorter id of a key is a name, such as `tunesmith`, that messages may well have elsewhere."""


def trim(environment: MutableMapping[str, str] = os.environ) -> None:
    """Take the white space from around credentials, endpoints and regions in the environment."""
    for name, value in list(environment.items()):
        if TRIMMED.fullmatch(name) and (trimmed := AROUND.sub("", value)) != value:
            environment[name] = trimmed


def check(names: Collection[str], failure: FailureClass, environment: Mapping[str, str] = os.environ) -> None:
    """Raises RunFailure (`failure`) where a credential has white space within it, or what no HTTP header can have."""
    for name in names:
        # the secret key is signed with and never sent, so it may have any character but those of a broken paste
        wrong = re.search(r"[\x00-\x1f\x7f]" if name == AWS[1] else r"[^\x21-\x7e]", environment.get(name, ""))
        if wrong:
            what = (
                "white space"
                if wrong[0].isspace()
                else "a control character"
                if wrong[0].isascii()
                else "a character that is not ASCII"
            )
            raise RunFailure(
                failure,
                f"{name} has {what} within it, at character {wrong.start() + 1}",
                f"write {name} again, on one line and without quotes",
            )


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """The values in the environment that are never printed, each line of them too, and what URLs in it have before the host."""
    secrets = [value.strip() for name, value in environment.items() if SECRET.fullmatch(name)]
    secrets += [line.strip() for secret in secrets for line in secret.splitlines() if line.strip() != secret]
    key_id = environment.get(KEY_ID, "").strip()
    secrets += [key_id] if len(key_id) >= KEY_ID_CHARACTERS else []
    for value in environment.values():
        if userinfo := USERINFO.match(value.strip()):
            written = [userinfo["all"], userinfo["password"]]
            secrets += [*written, *map(unquote, written)]
    return secrets


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` without the secrets of this process, or what looks like one."""
    return redact(text, secrets_of(environment))
