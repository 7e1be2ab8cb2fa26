"""The real `openai` client against a real server process."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.servers import Server, run_spec
from tests.unit.runtime.serve.conftest import ADAPTERS

KEY = "a-secret-of-the-test"
NAMES = ("demo", *ADAPTERS)
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is a kiwi? (17)"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def server(spec: Path, work: Path) -> Iterator[Server]:
    server = Server(spec, work, {"TUNESMITH_API_KEY": f" {KEY}\n"})
    yield server.wait_ready()
    server.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0, timeout=120)


def ask(client: OpenAI, model: str = "demo", **settings: Any) -> str:
    answer = client.chat.completions.create(model=model, messages=HELLO, **{**GREEDY, **settings})
    return answer.choices[0].message.content or ""


def test_the_model_list_has_the_resource_and_its_adapters(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(NAMES)
    assert client.models.retrieve("fr").id == "fr"


def test_an_answer_has_text_finish_reason_and_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=HELLO, **GREEDY)
    assert answer.object == "chat.completion"
    assert answer.model == "demo"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24


@pytest.mark.parametrize("model", NAMES)
def test_a_stream_has_the_same_answer_as_a_single_body(client: OpenAI, model: str) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options=options, **GREEDY)
    )
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in choices) == ask(client, model)
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["length"]
    assert len(choices) > 5 or model == "demo"  # untrained, its bytes form no characters and are released at the end
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


def test_concurrent_requests_to_base_and_adapters_have_independent_answers(client: OpenAI) -> None:
    alone = {model: ask(client, model) for model in NAMES}
    assert len(set(alone.values())) == 3
    models = [*NAMES] * 6
    with ThreadPoolExecutor(len(models)) as pool:
        assert list(pool.map(lambda model: ask(client, model), models)) == [alone[model] for model in models]


def test_an_answer_stops_before_the_stop_string(client: OpenAI) -> None:
    whole = ask(client)
    stop = whole[len(whole) // 2 :][:3]
    answer = client.chat.completions.create(model="demo", messages=HELLO, stop=[stop], **GREEDY)
    assert answer.choices[0].message.content == whole.split(stop)[0]
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_makes_sampling_repeatable_and_choices_differ(client: OpenAI) -> None:
    settings: dict[str, Any] = {"temperature": 1.5, "seed": 3, "n": 2, "max_tokens": 16}
    first, second = (client.chat.completions.create(model="demo", messages=HELLO, **settings) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert texts[0] != texts[1]
    assert [choice.index for choice in first.choices] == [0, 1]


def test_each_token_has_log_probabilities(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=HELLO, logprobs=True, top_logprobs=3, **GREEDY)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 24
    for token in logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == max(other.logprob for other in token.top_logprobs) <= 0


@pytest.mark.parametrize("asked", [0, 1, 5])
def test_each_token_has_the_requested_number_of_alternatives(client: OpenAI, asked: int) -> None:
    """Random sampling from flat probabilities: the chosen token is seldom among the likeliest."""
    settings: dict[str, Any] = {"temperature": 2, "seed": 5, "max_tokens": 24}
    answer = client.chat.completions.create(model="demo", messages=HELLO, logprobs=True, top_logprobs=asked, **settings)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert {len(token.top_logprobs) for token in logprobs.content} == {asked}
    plain = client.completions.create(model="demo", prompt="kiwi", logprobs=asked, **settings).choices[0].logprobs
    assert plain is not None
    assert plain.tokens is not None
    assert plain.top_logprobs is not None
    assert plain.token_logprobs is not None
    sizes = {len(alternatives) for alternatives in plain.top_logprobs}
    assert sizes <= {asked, asked + 1}
    for token, logprob, alternatives in zip(plain.tokens, plain.token_logprobs, plain.top_logprobs, strict=True):
        assert logprob in alternatives.values()
        assert token in alternatives or f"token_id:{token}" in alternatives


def test_the_bytes_of_all_tokens_join_to_the_text(client: OpenAI) -> None:
    """An untrained model generates bytes that are parts of characters."""
    settings: dict[str, Any] = {
        "temperature": 1,
        "seed": 1,
        "max_tokens": 60,
        "logit_bias": {"0": -100, "1": -100, "2": -100},
    }
    answer = client.chat.completions.create(model="demo", messages=HELLO, logprobs=True, **settings).choices[0]
    assert answer.logprobs is not None
    tokens = answer.logprobs.content or []
    raw = b"".join(bytes(token.bytes or ()) for token in tokens)
    assert raw.decode(errors="replace") == answer.message.content
    partial = [token for token in tokens if "\\x" in token.token]
    assert partial
    assert all(token.token == "".join(f"\\x{byte:02x}" for byte in token.bytes or ()) for token in partial)


@pytest.mark.parametrize("stream", [False, True])
def test_the_offset_of_each_token_is_where_its_text_is(client: OpenAI, stream: bool) -> None:
    made: Any = client.completions.create(
        model="fr", prompt="kiwi", temperature=1, seed=1, max_tokens=60, logprobs=0, stream=stream
    )
    choices = [chunk.choices[0] for chunk in made] if stream else [made.choices[0]]
    text = "".join(choice.text for choice in choices)
    tokens, offsets = (
        [item for choice in choices if choice.logprobs for item in getattr(choice.logprobs, name)]
        for name in ("tokens", "text_offset")
    )
    assert len(tokens) == len(offsets)
    assert offsets == sorted(offsets)
    plain = [(token, offset) for token, offset in zip(tokens, offsets, strict=True) if token.isalnum()]
    assert plain
    for token, offset in plain:
        assert text[offset : offset + len(token)] == token


@pytest.mark.parametrize("special", ["<|im_start|>", "<|endoftext|>", "<|im_end|>"])
def test_an_answer_stops_at_a_special_token(client: OpenAI, special: str) -> None:
    token = ("<|endoftext|>", "<|im_start|>", "<|im_end|>").index(special)
    settings: dict[str, Any] = {"prompt": "hi", "max_tokens": 8, "temperature": 0, "logit_bias": {str(token): 100}}
    answer = client.completions.create(model="demo", stop=[special], **settings)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1
    chunks = list(client.completions.create(model="demo", stop=[special], stream=True, **settings))
    assert ("".join(chunk.choices[0].text for chunk in chunks), chunks[-1].choices[0].finish_reason) == ("", "stop")


@pytest.mark.parametrize("token", range(3))
def test_every_special_token_is_a_prompt_and_an_answer_without_text(client: OpenAI, token: int) -> None:
    answer = client.completions.create(
        model="demo", prompt=[token], temperature=0, max_tokens=3, logit_bias={str(token): 100}, logprobs=1
    ).choices[0]
    assert answer.text == ""
    assert answer.logprobs is not None
    assert set(answer.logprobs.tokens or ()) == {("<|endoftext|>", "<|im_start|>", "<|im_end|>")[token]}
    assert set(answer.logprobs.text_offset or ()) == {0}


def test_plain_completions_take_text_and_tokens(client: OpenAI) -> None:
    answer = client.completions.create(model="demo", prompt=["one", "two"], temperature=0, max_tokens=5)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 10
    streamed = client.completions.create(model="demo", prompt="two", temperature=0, max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[1].text
    tokens = client.completions.create(model="demo", prompt=[5, 6, 7], temperature=0, max_tokens=5)
    assert tokens.usage is not None
    assert tokens.usage.prompt_tokens == 3


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        ask(client, "gpt-4o")
    assert refused.value.code == "model_not_found"
    assert "demo, fr, de" in refused.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_a_conversation_that_does_not_fit_is_refused_with_the_numbers(client: OpenAI) -> None:
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "kiwi " * 600}]
    with pytest.raises(openai.BadRequestError, match="maximum context length is 512 tokens") as refused:
        client.chat.completions.create(model="demo", messages=long)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="600 in the completion"):
        ask(client, max_tokens=600)


def test_unsupported_parameters_are_refused_and_not_ignored(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, response_format={"type": "json_object"})
    assert refused.value.param == "response_format"
    with pytest.raises(openai.BadRequestError, match="Unrecognized request argument"):
        ask(client, extra_body={"min_tokenz": 3})


def test_without_the_key_only_probes_are_answered(server: Server) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        ask(OpenAI(base_url=server.url + "/v1", api_key="wrong", max_retries=0))
    assert refused.value.code == "invalid_api_key"
    assert server.status("/v1/models") == 401
    assert (server.status("/health"), server.status("/ready")) == (200, 200)
    assert KEY not in server.log.read_text()


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY}  "])
def test_the_key_is_accepted_with_any_spelling_of_the_scheme(server: Server, header: str) -> None:
    request = urllib.request.Request(server.url + "/v1/models", headers={"Authorization": header})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("header", [KEY, f"Basic {KEY}", "Bearer", "Bearer \xff\xfe", f"Bearer {KEY}x"])
def test_another_header_is_a_401_that_names_the_scheme(server: Server, header: str) -> None:
    request = urllib.request.Request(server.url + "/v1/models", headers={"Authorization": header})
    with pytest.raises(urllib.request.HTTPError) as refused:  # type: ignore[attr-defined]
        urllib.request.urlopen(request)
    assert refused.value.code == 401
    assert refused.value.headers["WWW-Authenticate"] == "Bearer"


def test_a_broken_body_and_an_unknown_path_get_openai_errors(server: Server) -> None:
    for path, body, status in (
        ("/v1/chat/completions", b"{", 400),
        ("/v1/edits", b"{}", 404),
        ("/v1/models", b"{}", 405),
    ):
        request = urllib.request.Request(server.url + path, data=body, headers={"Authorization": f"Bearer {KEY}"})
        with pytest.raises(urllib.request.HTTPError) as refused:  # type: ignore[attr-defined]
            urllib.request.urlopen(request)
        assert refused.value.code == status
        assert set(json.load(refused.value)["error"]) == {"message", "type", "param", "code"}


def test_the_log_of_the_http_server_is_redacted(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"no HTTP\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert re.search(r"^\d\d:\d\d:\d\d WARNING Invalid HTTP", server.log.read_text(), re.MULTILINE)


def test_beside_an_adopted_evaluation_the_server_is_ready_without_a_model(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    evaluation = {"benchmarks": [{"name": "gsm8k"}]}
    (tmp_path / "run.json").write_text(json.dumps(run_spec("EvalJob", "scores", evaluation)))
    (tmp_path / "fetch.json").write_text(
        json.dumps({"adopted": True, "runId": "x", "runUri": "s3://store/x", "record": {}})
    )
    server = start(tmp_path / "run.json", tmp_path).wait_ready()
    assert (server.status("/health"), server.status("/v1/models")) == (200, 404)
    server.terminate()
    assert server.wait() == 0
    assert server.read_report()["outcome"] == "Adopted"


def test_a_server_whose_key_is_empty_does_not_start(start: Callable[..., Server], spec: Path) -> None:
    server = start(spec, TUNESMITH_API_KEY="\n")
    assert server.wait() == 64
    assert server.read_report()["failure"]["class"] == "BadSpec"
    assert "API key is empty" in server.read_report()["failure"]["message"]


def test_a_model_that_cannot_be_loaded_ends_the_server_with_the_cause(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "run.json").write_text(json.dumps(run_spec("InferenceService", "demo")))
    server = start(tmp_path / "run.json", tmp_path)
    assert server.wait() == 68
    assert server.read_report()["failure"]["class"] == "ModelNotFound"
