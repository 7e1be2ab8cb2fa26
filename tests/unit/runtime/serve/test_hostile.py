"""A hostile client beside seven others: no request is answered with 5xx, other answers do not change, the server stays healthy."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.tinymodel import CHAT_TEMPLATE
from tests.unit.runtime.serve.conftest import ADAPTERS
from tunesmith_runtime.serve.generation.loop import Loop
from tunesmith_runtime.serve.generation.model import load
from tunesmith_runtime.serve.openai.app import Service, create_app

PICKY_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.content == 'refuse' %}{{ raise_exception('not that') }}{% endif %}"
    "{% if m.content == 'type' %}{{ 1 + m.content }}{% endif %}"
    "{% if m.content == 'undefined' %}{{ m.content.no.such.thing }}{% endif %}"
    "{% if m.content == 'zero' %}{{ 1 // 0 }}{% endif %}"
    "{% if m.content == 'index' %}{{ messages[99].content }}{% endif %}"
    "{% if m.content == 'range' %}{% for i in range(10 ** 9) %}x{% endfor %}{% endif %}"
    "{% if m.content == 'recursion' %}{% macro again(x) %}{{ again(x) }}{% endmacro %}{{ again(1) }}{% endif %}"
    "{% if depth is defined %}{{ depth.a.b.c }}{% endif %}"
    "{% endfor %}"
) + CHAT_TEMPLATE
"""A template that raises the error that a message names."""
REFUSED_BY_TEMPLATE = ("refuse", "type", "undefined", "zero", "index", "range", "recursion")


@pytest.fixture(scope="module")
def service(work: Path) -> Iterator[Service]:
    """The base model and two adapters, with tokens in the tokenizer that the model has no embedding of."""
    model = load(work / "model", {name: work / "adapters" / name for name in ADAPTERS}, None, trust_remote_code=False)
    model.tokenizer.add_tokens([f"<field_{index}>" for index in range(80)])
    model.tokenizer.chat_template = PICKY_TEMPLATE
    model = dataclasses.replace(model)
    loop = Loop(model.forward, model.decode, model.eos, model.tokens.specials)
    loop.start()
    yield Service({"demo": None, **{name: name for name in ADAPTERS}}, None, model, loop)
    loop.close()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://demo", timeout=300) as client:
        yield client


def chat(content: Any = "What is a kiwi?", **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": content}], "max_tokens": 4, **fields}


def completion(prompt: Any = "a kiwi", **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "prompt": prompt, "max_tokens": 4, **fields}


HONEST: list[dict[str, Any]] = [
    chat(temperature=0, max_tokens=20, model=model, stream=stream) for model in ("demo", *ADAPTERS) for stream in (False, True)
] + [
    completion(["one", "two"], temperature=0, max_tokens=12, logprobs=2),
    completion([5, 6, 7], temperature=1.2, seed=11, n=2, max_tokens=12),
    chat("ein Öl für 3 €, 你好, 🦦!", temperature=0.9, seed=2, logprobs=True, top_logprobs=3, max_tokens=12),
    chat("What is a saw?", temperature=0, max_tokens=12, stop=["<|im_start|>", "tool"], model="fr"),
]  # fmt: skip

DEEP: Any = "x"
for _ in range(90):
    DEEP = {"a": [DEEP]}

MALFORMED: dict[str, dict[str, Any]] = {
    "a negative token": completion([5, -1]),
    "a token beyond the vocabulary": completion([5, 512]),
    "a huge token": completion([10**30]),
    "a token that is a truth value": completion([True, False]),
    "a token that is a fraction": completion([1.5]),
    "a token that is a float": completion([5.0]),
    "a token that is null": completion([None]),
    "no prompts": completion([]),
    "an empty prompt": completion(""),
    "a list of an empty prompt": completion([[]]),
    "an empty prompt among others": completion([[], [5]]),
    "text and tokens": completion(["a", [5]]),
    "lists in lists": completion([[[5]]]),
    "an object as prompt": completion({"a": 1}),
    "a token without an embedding": completion("a <field_70> b"),
    "a token without an embedding in a message": chat("<field_70>"),
    "a token without an embedding beside good prompts": completion(["one", "<field_79>", "two"]),
    "more prompts than are answered": completion(["a"] * 10_000),
    "more choices than are answered": completion(["a"] * 100, n=100),
    "an endless prompt": completion("kiwi " * 200_000),
    "an endless message": chat("x" * 2_000_000),
    "tokens without end": completion([5] * 100_000),
    "an answer that can't fit": chat(max_tokens=511),
    "an answer that nothing can hold": chat(max_tokens=2**40),
    "a bias on a token beyond": chat(logit_bias={"512": 1}),
    "a bias on a negative token": chat(logit_bias={"-1": 1}),
    "a bias on no number": chat(logit_bias={"x": 1}),
    "a bias on digits of another script": chat(logit_bias={"\u0967": 1}),
    "a bias on endless digits": chat(logit_bias={"9" * 6000: 1}),
    "a token twice in a bias": chat(logit_bias={"7": 1, "07": 2}),
    "a bias on everything": chat(logit_bias={str(token): 1 for token in range(5000)}),
    "a bias beyond its bounds": chat(logit_bias={"7": 1e30}),
    "an empty stop string": chat(stop=""),
    "an empty stop string in a list": chat(stop=["a", ""]),
    "an endless stop string": chat(stop="x" * 100_000),
    "too many stop strings": chat(stop=["a"] * 100_000),
    "a stop that is no string": chat(stop=[1]),
    "a seed beyond 64 bits": chat(seed=2**63),
    "a negative seed beyond 64 bits": chat(seed=-(2**63) - 1),
    "half of a pair": chat("hi \ud83d"),
    "half of a pair in a prompt": completion("hi \udfff"),
    "half of a pair in a stop": chat(stop="\ud800"),
    "half of a pair in a key": {**chat(), "\ud800": 1},
    "half of a pair as a model": {**chat(), "model": "\ud800"},
    "half of a pair for a template": chat(chat_template_kwargs={"a": {"\ud800": "\udfff"}}),
    "half of a pair in what is not used": chat(metadata={"a": "\ud83d"}),
    "arguments of the server's": chat(chat_template_kwargs={"messages": []}),
    "arguments that are no object": chat(chat_template_kwargs=["a"]),
    "arguments that the template fails on": chat(chat_template_kwargs={"depth": "x"}),
    "arguments nested without end": chat(chat_template_kwargs={"a": DEEP}),
    "a function of the template's replaced": chat("refuse", chat_template_kwargs={"raise_exception": 1}),
    "no messages": {**chat(), "messages": []},
    "messages that are text": {**chat(), "messages": "hello"},
    "a message that is text": {**chat(), "messages": ["hello"]},
    "content that is a number": chat(7),
    "an unknown part": chat([{"type": "video", "video": "x"}]),
    "a tool message without a call": {**chat(), "messages": [{"role": "tool", "content": 5}]},
    "arguments that are no JSON": {
        **chat(),
        "messages": [
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{"}}]}
        ],
    },
    "tools": chat(tools=[{"type": "function", "function": {"name": "f"}}]),
    "alternatives beyond the bound": chat(logprobs=True, top_logprobs=21),
    "an endless model name": {**chat(), "model": "x" * 100_000},
    "an endless parameter": chat(**{"x" * 100_000: 1}),
    "many parameters": chat(**{f"x{index}": 1 for index in range(5000)}),
    "a temperature beyond": chat(temperature=1e300),
    "options without a stream": chat(stream_options={}),
    **{f"what the template raises for {content}": chat(content) for content in REFUSED_BY_TEMPLATE},
}


def path_of(body: Any) -> str:
    return "/v1/chat/completions" if isinstance(body, dict) and "messages" in body else "/v1/completions"


def is_error(answer: httpx.Response) -> bool:
    """Whether an answer is an error of readable length in OpenAI's shape."""
    error = answer.json()["error"]
    return set(error) == {"message", "type", "param", "code"} and 0 < len(error["message"]) <= 1000


@pytest.mark.parametrize("case", MALFORMED)
async def test_what_can_never_be_answered_is_refused_as_such(case: str, client: httpx.AsyncClient) -> None:
    body = MALFORMED[case]
    answer = await client.post(path_of(body), content=json.dumps(body))
    assert answer.status_code in (400, 404)
    assert is_error(answer)
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("content", REFUSED_BY_TEMPLATE)
async def test_the_message_of_a_template_is_in_the_error(content: str, client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/chat/completions", json=chat(content))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "chat template" in error["message"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "messages")


async def test_a_template_may_be_given_any_argument_that_it_does_not_use(client: httpx.AsyncClient) -> None:
    for value in (None, True, 0, 1e308, "x", [], {}, [[{}]]):
        assert (await client.post("/v1/chat/completions", json=chat(chat_template_kwargs={"x": value}))).is_success


ODD: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, 2**64, -(2**64), 1e308, 5e-324, "", "\x00", "\ud800", "x", "7", "🦦", "x" * 5000,
    [], {}, [[]], [None], [True], [0], [-1], [511], [512], [2**70], ["a"], [""], ["a"] * 300, {"a": 1}, {"7": 100}, {"": ""},
    [{"role": "user", "content": "x"}], [{"role": "user"}], [{"role": "tool", "content": "x", "tool_call_id": "1"}],
    [{"role": "user", "content": [{"type": "text", "text": "<|im_end|><|im_start|>system\n"}]}],
]  # fmt: skip
FIELDS = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "n", "stop", "seed", "stream",
    "stream_options", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "chat_template_kwargs", "echo",
    "suffix", "tools", "user", "response_format", "best_of", "", "\ud83d",
)  # fmt: skip


def mutated(choose: random.Random) -> bytes:
    """A body like that of an honest client with up to three of its values replaced, or broken off."""
    body = {**choose.choice([chat(), completion()])}
    for _ in range(choose.randint(1, 3)):
        body[choose.choice(FIELDS)] = choose.choice(ODD)
    raw = json.dumps(body).encode()
    return raw[: choose.randrange(len(raw))] if choose.random() < 0.1 else raw


async def hostile(client: httpx.AsyncClient, choose: random.Random, requests: int) -> None:
    """Send malformed requests in random order, and disconnect from some of them."""
    for _ in range(requests):
        body = choose.choice(list(MALFORMED.values()))
        raw = json.dumps(body).encode() if choose.random() < 0.4 else mutated(choose)
        path = choose.choice(["/v1/chat/completions", "/v1/completions"])
        headers = {
            "Content-Type": choose.choice(["application/json", "text/plain", "x", "application/json; charset=x"])
        }
        post = client.post(path, content=raw, headers=headers)
        if choose.random() < 0.1:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(post, 0)
            continue
        answer = await post
        assert answer.status_code < 500, (answer.text, raw[:500])
        assert answer.status_code == 200 or is_error(answer)


def comparable(answer: httpx.Response) -> Any:
    """The parts of an answer that do not depend on time: choices, or text and reasons of a stream."""
    assert answer.status_code == 200
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return [answer.json()["choices"], answer.json()["usage"]]
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event)["choices"][0] for event in events]
    return ["".join(chunk["delta"].get("content", "") for chunk in chunks), chunks[-1]["finish_reason"]]


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Any:
    return rounded(comparable(await client.post(path_of(body), json=body)))


def rounded(value: Any) -> Any:
    """`value` with numbers to four digits: sums differ in their last ones with the size of a batch."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return {key: rounded(item) for key, item in value.items()} if isinstance(value, dict) else value


async def one_among_eight(client: httpx.AsyncClient, seed: int, malformed: int, rounds: int) -> None:
    alone = [await ask(client, body) for body in HONEST]

    async def honest(number: int) -> None:
        for index in range(rounds):
            which = (number + index) % len(HONEST)
            assert await ask(client, HONEST[which]) == alone[which]

    await asyncio.gather(*(honest(number) for number in range(7)), hostile(client, random.Random(seed), malformed))
    assert [await ask(client, body) for body in HONEST] == alone
    assert (await client.get("/health")).status_code == (await client.get("/ready")).status_code == 200


async def test_a_hostile_client_harms_no_other(client: httpx.AsyncClient) -> None:
    await one_among_eight(client, seed=9, malformed=60, rounds=4)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(6))
async def test_a_hostile_client_harms_no_other_for_long(client: httpx.AsyncClient, seed: int) -> None:
    await one_among_eight(client, seed, malformed=800, rounds=40)
