"""The API key of a service, and the headers of requests that carry it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import API_KEY_VARIABLE
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.keys import accepts, api_key, bearer_token

KEY = "secret-key"
PADDING = st.text(" \t\r\n\f\v\u00a0\u2028\ufeff\u200b", max_size=4)


@given(PADDING, PADDING)
def test_white_space_around_the_key_is_ignored(before: str, after: str) -> None:
    assert api_key({API_KEY_VARIABLE: before + KEY + after}) == KEY


def test_requests_need_no_key_if_none_is_set() -> None:
    assert api_key({}) is None


@pytest.mark.parametrize("given", ["", " ", "\n", "\t\r\n ", "\ufeff", "\ufeff\n"])
def test_an_empty_key_is_refused_and_never_opens_the_service(given: str) -> None:
    with pytest.raises(RunFailure, match="API key is empty") as refused:
        api_key({API_KEY_VARIABLE: given})
    assert refused.value.failure is FailureClass.BAD_SPEC
    assert "spec.apiKeySecret" in (refused.value.hint or "")


@pytest.mark.parametrize("given", ["one\ntwo", "one\r\ntwo\n", "a\x7fb", "a\tb", "clé", "a\u200bb"])
def test_a_key_that_no_http_client_can_send_is_refused(given: str) -> None:
    with pytest.raises(RunFailure, match="HTTP clients do not send") as refused:
        api_key({API_KEY_VARIABLE: given})
    assert given not in str(refused.value)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer secret-key",
        "bearer secret-key",
        "BEARER secret-key",
        "bEaReR   secret-key",
        "Bearer secret-key  ",
        "  Bearer secret-key",
        "Bearer  secret-key\t",
    ],
)
def test_the_scheme_is_case_insensitive(header: str) -> None:
    assert accepts(KEY, bearer_token(header))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "secret-key",
        "Basic secret-key",
        "Bearersecret-key",
        "Token secret-key",
        "Bearer secret-key2",
        "Bearer SECRET-KEY",
        "Bearer secret-key, Bearer x",
        "Bearer Bearer secret-key",
        "Bearer \xe9\xff",
        "\xa0Bearer secret-key",
        "Bearer \x00",
    ],
)
def test_other_headers_are_not_accepted(header: str) -> None:
    assert not accepts(KEY, bearer_token(header))


@given(st.text(st.characters(max_codepoint=255)))
def test_any_header_is_compared_without_an_error(header: str) -> None:
    assert not accepts(KEY, bearer_token(header)) or header.strip().lower().startswith("bearer")
