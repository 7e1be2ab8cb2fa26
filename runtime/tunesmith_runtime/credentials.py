"""The credentials of this process: trimmed of the white space that Secrets made from files have, and redacted in texts."""

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
"""Variables whose values never begin or end with white space."""
PADDING = re.compile("^[\\s\ufeff\u200b]+|[\\s\ufeff\u200b]+$")
"""White space, and invisible characters that editors put at the beginning of a file."""

SECRET = re.compile(r".*_(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|SECRET_KEY|SECRET_ACCESS_KEY)")
"""Variables whose values are never printed."""
USERINFO = re.compile(r"[a-z][a-z0-9+.-]*://(?P<all>[^\s/:]*:(?P<password>(?!\d{1,5}(?:/|$))\S+))@", re.IGNORECASE)
"""User and password of a URL, such as a proxy's."""
KEY_ID = "AWS_ACCESS_KEY_ID"
KEY_ID_CHARACTERS = 16
"""A shorter key id is a name such as `tunesmith`, which messages may contain for other reasons."""


def strip_padding(text: str) -> str:
    """Return `text` without white space and invisible characters at both ends."""
    return PADDING.sub("", text)


def trim(environment: MutableMapping[str, str] = os.environ) -> None:
    """Strip credentials, endpoints and regions in the environment."""
    for name, value in list(environment.items()):
        if TRIMMED.fullmatch(name) and (trimmed := strip_padding(value)) != value:
            environment[name] = trimmed


def check(names: Collection[str], failure: FailureClass, environment: Mapping[str, str] = os.environ) -> None:
    """Raise RunFailure (`failure`) if a credential holds white space or a character that no HTTP header can carry."""
    for name in names:
        # the secret key signs requests and is never sent: only control characters, as of a broken paste, are wrong in it
        wrong = re.search(r"[\x00-\x1f\x7f]" if name == AWS[1] else r"[^\x21-\x7e]", environment.get(name, ""))
        if wrong:
            raise RunFailure(
                failure,
                f"{name} has {_kind_of(wrong[0])} within it, at character {wrong.start() + 1}",
                f"write {name} again, on one line and without quotes",
            )


def _kind_of(character: str) -> str:
    if character.isspace():
        return "white space"
    return "a control character" if character.isascii() else "a character that is not ASCII"


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """Return the values that are never printed, their single lines, and the user information of URLs."""
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
    """Return `text` without the secrets of this process and without anything that has the form of a secret."""
    return redact(text, secrets_of(environment))


def without_secrets(environment: Mapping[str, str], keep: Collection[str] = ()) -> dict[str, str]:
    """Return the environment of a program that needs no credentials but those in `keep`."""
    return {name: value for name, value in environment.items() if name in keep or not SECRET.fullmatch(name)}
