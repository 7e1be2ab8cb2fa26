from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.serve.generation.sampling import generator_for
from tunesmith_runtime.serve.openai.errors import ApiError
from tunesmith_runtime.serve.openai.requests import ChatRequest, CompletionRequest, parse

HELLO = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}


def chat(**fields: Any) -> ChatRequest:
    return parse(ChatRequest, {**HELLO, **fields})


def asking(*parts: Any) -> dict[str, Any]:
    """Fields with a question of these parts."""
    return {"messages": [{"role": "user", "content": [*parts]}]}


REFUSED: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "an unknown parameter": ({"temprature": 0}, "temprature", "Unrecognized request argument"),
    "a wrong type": ({"max_tokens": "many"}, "max_tokens", "valid integer"),
    "a truth value for a number": ({"seed": True}, "seed", "valid integer"),
    "a temperature out of bounds": ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
    "no tokens at all": ({"max_completion_tokens": 0}, "max_completion_tokens", "greater than or equal to 1"),
    "too many choices": ({"n": 1000}, "n", "less than or equal to 128"),
    "too many stop strings": ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
    "an empty stop string": ({"stop": ""}, "stop", "1 to 1000 characters"),
    "an empty stop string among others": ({"stop": ["a", ""]}, "stop", "1 to 1000 characters"),
    "a stop string that is too long": ({"stop": "x" * 1001}, "stop", "1 to 1000 characters"),
    "a seed of more than 64 bits": ({"seed": 2**63}, "seed", "less than or equal to 9223372036854775807"),
    "a negative seed of more than 64 bits": (
        {"seed": -(2**63) - 1},
        "seed",
        "greater than or equal to -9223372036854775808",
    ),
    "more tokens than any model has": ({"max_tokens": 2**31}, "max_tokens", "less than or equal to 2147483647"),
    "a number for a truth value": ({"echo": 0}, "echo", "not supported"),
    "more biases than are taken": (
        {"logit_bias": {str(token): 1 for token in range(1025)}},
        "logit_bias",
        "at most 1024",
    ),
    "more arguments than a template has": (
        {"chat_template_kwargs": {str(index): 1 for index in range(65)}},
        None,
        "64 keys at most",
    ),
    "tools": ({"tools": [{"type": "function"}]}, "tools", "not supported"),
    "a JSON mode": ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
    "an effort": ({"reasoning_effort": "high"}, "reasoning_effort", "not supported"),
    "a penalty that it does not have": ({"repetition_penalty": 1.1}, "repetition_penalty", "not supported"),
    "no messages": ({"messages": []}, "messages", "at least 1"),
    "an unknown role": ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "system"),
    "a message without content": ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
    "an image by its path": (
        asking({"type": "image_url", "image_url": {"url": "a.png"}}),
        "messages[0].content[0].image_url.url",
        "expected a data: or https: URL",
    ),
    "an image without TLS": (
        asking({"type": "image_url", "image_url": {"url": "http://a/b.png"}}),
        "messages[0].content[0].image_url.url",
        "expected a data: or https: URL",
    ),
    "an image of another form": (
        asking({"type": "image", "image": "a.png"}),
        "messages[0].content[0]",
        "of type image; expected text or image_url. Write {type: image_url",
    ),
    "a URL in the place of its object": (
        asking({"type": "image_url", "image_url": "data:,"}),
        "messages[0].content[0].image_url",
        "is a string; expected {url}",
    ),
    "an image without a URL": (
        asking({"type": "image_url", "image_url": {}}),
        "messages[0].content[0].image_url.url",
        "expected a string",
    ),
    "an image in fewer pixels": (
        asking({"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}),
        "messages[0].content[0].image_url.detail",
        "expected auto or high",
    ),
    "an unknown key of an image": (
        asking({"type": "image_url", "image_url": {"url": "data:,"}, "min_pixels": 4}),
        "messages[0].content[0].min_pixels",
        "is not supported",
    ),
    "more images than are read": (
        asking(*[{"type": "image_url", "image_url": {"url": "data:,"}}] * 17),
        "messages",
        "has 17 images; at most 16",
    ),
    "a video": (
        asking({"type": "video_url", "video_url": {"url": "data:,"}}),
        "messages[0].content[0]",
        "of type video_url; expected text or image_url",
    ),
    "a part that is text": (asking("x"), "messages[0].content[0]", "only text"),
    "half of a UTF-16 pair": (
        {"messages": [{"role": "user", "content": "hi \ud83d"}]},
        "messages[0].content",
        "half of a UTF-16 pair",
    ),
    "half of a pair in the arguments of a call": (
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": ["\ud83d"]}}]}]},
        "messages[0].tool_calls[0].function.arguments.a[0]",
        "half of a UTF-16 pair",
    ),
    "arguments that are no object": (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}]},
        "messages[0].tool_calls[0].function.arguments",
        "expected a JSON object",
    ),
    "a weight, which only training reads": (
        {"messages": [{"role": "assistant", "content": "x", "weight": 1}]},
        "messages[].weight",
        "Unrecognized request argument",
    ),
    "a message that is none": ({"messages": ["hello"]}, "messages[0]", "is a string"),
    "alternatives without log probabilities": ({"top_logprobs": 2}, None, "needs logprobs"),
    "stream options without a stream": ({"stream_options": {"include_usage": True}}, None, "stream: true"),
    "template arguments that are the server's": (
        {"chat_template_kwargs": {"tokenize": False}},
        None,
        "may not set tokenize",
    ),
}


def parameters() -> set[str]:
    """Names that the calls between a request and its template have taken."""
    from transformers import PreTrainedTokenizerBase
    from transformers.utils.chat_template_utils import render_jinja_template

    from tunesmith_runtime.serve.generation.model import LoadedModel

    calls = (LoadedModel.encode_chat, PreTrainedTokenizerBase.apply_chat_template, render_jinja_template)
    taken = [entry for call in calls for entry in inspect.signature(call).parameters.values()]
    return {entry.name for entry in taken if entry.kind not in (entry.VAR_KEYWORD, entry.POSITIONAL_ONLY)}


def test_template_arguments_of_the_server_are_refused() -> None:
    names = parameters()
    assert {"conversation", "tokenizer_kwargs"} <= names
    for name in {*names, "self", "messages"}:
        with pytest.raises(ApiError, match=f"may not set {name}"):
            chat(chat_template_kwargs={name: []})
    assert chat(chat_template_kwargs={"enable_thinking": False})


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_parameters_are_refused_by_name(case: str) -> None:
    fields, param, words = REFUSED[case]
    with pytest.raises(ApiError) as refused:
        chat(**fields)
    error = refused.value.body()["error"]
    assert refused.value.status == 400
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]
    if param is not None:
        assert error["param"] == param or error["param"].startswith(param)


def test_a_body_without_a_model_is_refused() -> None:
    with pytest.raises(ApiError, match="Missing required parameter: 'model'"):
        parse(ChatRequest, {"messages": HELLO["messages"]})
    with pytest.raises(ApiError, match="must be an object"):
        parse(ChatRequest, ["hello"])


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "store": False, "metadata": {"a": "b"}, "service_tier": "auto"},
        {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}},
        {"temperature": None, "max_tokens": None, "tools": None, "logprobs": None},
    ],
)
def test_parameters_without_effect_are_accepted(fields: dict[str, Any]) -> None:
    assert chat(**fields) == chat()


def test_defaults_are_those_of_the_openai_api() -> None:
    sampling = chat().sampling(0, 512)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (1.0, 1.0, 0, None)
    assert chat().answer_tokens is None
    assert chat(max_tokens=5, max_completion_tokens=7).answer_tokens == 7
    assert parse(CompletionRequest, {"model": "demo", "prompt": "x"}).answer_tokens == 16


def test_each_choice_of_a_seed_has_its_own_random_numbers() -> None:
    request = chat(seed=5, n=2)
    assert [request.sampling(choice, 512).seed for choice in range(request.choices)] == [5, 6]


def test_a_bias_on_an_unknown_token_is_refused() -> None:
    assert chat(logit_bias={"7": -100}).sampling(0, 512).logit_bias == {7: -100}
    for token in ("512", "hello", "-1", "07", " 7", "7.0", "1e1", "\u0967", "9" * 5000, ""):
        with pytest.raises(ApiError, match="not a token of this model"):
            chat(logit_bias={token: 1}).sampling(0, 512)


def test_content_parts_and_the_role_developer_are_converted_for_the_template() -> None:
    parts = [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]
    request = chat(messages=[{"role": "developer", "content": parts}, *HELLO["messages"]])
    assert request.messages[0] == {"role": "system", "content": "be brief"}


def test_tool_calls_and_results_are_read_as_in_training() -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    returned = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "4"}]}
    asked = {"role": "user", "content": "Weather?", "tool_calls": None, "name": None}
    request = chat(messages=[asked, {"role": "assistant", "content": None, "tool_calls": [called]}, returned])
    read = {**called, "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    assert request.messages == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [read]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])],
)
def test_a_prompt_is_text_or_tokens_single_or_several(prompt: Any, prompts: list[Any]) -> None:
    assert parse(CompletionRequest, {"model": "demo", "prompt": prompt}).prompts == prompts


def test_values_at_the_limits_are_accepted() -> None:
    request = chat(stop=["x" * 1000] * 4, seed=2**63 - 1, n=128, max_tokens=2**31 - 1)
    assert [request.sampling(choice, 512).seed for choice in (0, 127)] == [2**63 - 1, 2**63 + 126]
    assert chat(seed=-(2**63)).sampling(0, 512).seed == -(2**63)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 127))
def test_every_seed_makes_random_numbers(seed: int, choice: int) -> None:
    first, second = (generator_for(chat(seed=seed).sampling(choice, 512)) for _ in range(2))
    assert torch.equal(torch.rand(4, generator=first), torch.rand(4, generator=second))


def test_an_error_quotes_at_most_a_part_of_the_request() -> None:
    long = "x" * 100_000
    for fields in (
        {long: 1},
        {"tools": [long] * 100},
        {"stop": [{long: long}]},
        {"temperature": long},
        {"logit_bias": {long: 1}},
    ):
        with pytest.raises(ApiError) as refused:
            chat(**fields).sampling(0, 512)
        assert len(str(refused.value.body())) < 1200
