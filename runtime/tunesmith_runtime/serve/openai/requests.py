"""Validated requests of the OpenAI API. Parameters that this server lacks are refused if they would change the answer."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tunesmith_runtime.data.json_text import surrogate_in
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.messages import KNOWN, Message, conversation, unknown
from tunesmith_runtime.serve.generation.sampling import Sampling
from tunesmith_runtime.serve.openai.errors import ApiError, invalid
from tunesmith_runtime.serve.openai.image_parts import images_of, with_images, without_images

WITHOUT_EFFECT = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "parallel_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    }
)
"""Parameters that do not affect the answer; they are accepted and ignored."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
    "min_p": (0, 0.0),
    "repetition_penalty": (1, 1.0),
}
"""Parameters that this server does not implement -> the values besides null that have no effect and are accepted."""

TEMPLATE_ARGUMENTS = frozenset(
    {"self", "messages", "conversation", "conversations", "chat_template", "tools", "documents"}
    | {"add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask"}
    | {"tokenize", "tokenizer_kwargs", "return_dict", "return_tensors", "padding", "truncation", "max_length"}
)
"""Arguments of the template call that only the server sets."""

MAX_CHOICES = 128
MAX_ANSWERS = 256
"""Maximum number of answers to a request (prompts times choices): a quarter of the waiting rows, so that no request fills the queue."""
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 1000
MAX_BIASES = 1024
MAX_ARGUMENTS = 64
MAX_INT = (1 << 31) - 1
MAX_SEED = (1 << 63) - 1
DECIMAL = re.compile(r"0|[1-9][0-9]{0,9}")
"""A token id in its canonical spelling, so that different keys are different tokens."""
UNION_MEMBERS = frozenset({"str", "int", "float", "bool"})
"""Parts of an error's location that name a member of a union instead of a field."""

Request = TypeVar("Request", bound="Generate")


class StreamOptions(BaseModel):
    """Contents of a stream besides the answer."""

    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool = False


class Generate(BaseModel):
    """Fields that chat completions and completions share."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _few_biases(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MAX_BIASES:
            raise ValueError(f"at most {MAX_BIASES} tokens")
        return given

    @field_validator("stop")
    @classmethod
    def _stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        strings = [stop] if isinstance(stop, str) else stop or []
        if len(strings) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} stop strings")
        if not all(1 <= len(string) <= MAX_STOP_CHARACTERS for string in strings):
            raise ValueError(f"a stop string has 1 to {MAX_STOP_CHARACTERS} characters")
        return stop

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Generate:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed with stream: true")
        return self

    @property
    def prompt_field(self) -> str:
        """Name of the field that holds the prompt."""
        return "messages"

    @property
    def images(self) -> Mapping[str, str]:
        """The URL of each image by its place."""
        return {}

    @property
    def stops(self) -> list[str]:
        """Stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def choices(self) -> int:
        """Number of answers to each prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def answer_tokens(self) -> int | None:
        """Maximum number of tokens of an answer; None: as many as fit."""
        return self.max_tokens

    @property
    def requested_logprobs(self) -> int | None:
        """Number of alternatives to return with each token; None: no probabilities."""
        return None

    def sampling(self, choice: int, vocabulary: int) -> Sampling:
        """Return the sampling of the answer with index `choice`. With a seed, each choice has its own random numbers.

        Raises ApiError if a token of logit_bias is not in the vocabulary.
        """
        bias = {_token(token, vocabulary): value for token, value in (self.logit_bias or {}).items()}
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=bias,
            seed=None if self.seed is None else self.seed + choice,
            logprobs=self.requested_logprobs,
        )


class ChatRequest(Generate):
    """Body of POST /v1/chat/completions. `chat_template_kwargs` goes to the template, as in vLLM and SGLang."""

    messages: Annotated[list[Any], Field(min_length=1)]
    """Messages as the chat template takes them; the content of messages with images is a list of parts."""
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @field_validator("messages")
    @classmethod
    def _conversation(cls, given: list[Any]) -> list[Message]:
        try:
            texts = without_images(given)
            messages = conversation(texts, "messages")
            surrogate = surrogate_in(messages)
            messages = with_images(messages, given)
        except RowError as error:
            hint = f" {error.hint[0].upper()}{error.hint[1:]}." if error.hint else ""
            raise invalid(f"Invalid value: {error}.{hint}", error.field, "invalid_value") from error
        if surrogate is not None:
            field = f"messages{surrogate}"
            raise invalid(f"Invalid value: {field} has half of a UTF-16 pair.", field, "invalid_value")
        if others := sorted(unknown(texts, "messages", KNOWN)):
            raise invalid(f"Unrecognized request argument supplied: {others[0]}", others[0], "unknown_parameter")
        return messages

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if len(self.chat_template_kwargs or {}) > MAX_ARGUMENTS:
            raise ValueError(f"chat_template_kwargs may have {MAX_ARGUMENTS} keys at most")
        if wrong := TEMPLATE_ARGUMENTS & set(self.chat_template_kwargs or {}):
            raise ValueError(f"chat_template_kwargs may not set {min(wrong)}")
        return self

    @property
    def images(self) -> Mapping[str, str]:
        return images_of(self.messages)

    @property
    def answer_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def requested_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Generate):
    """Body of POST /v1/completions: a prompt or several prompts, as text or tokens."""

    prompt: (
        str
        | Annotated[list[str], Field(fail_fast=True)]
        | Annotated[list[int], Field(fail_fast=True)]
        | Annotated[list[Annotated[list[int], Field(fail_fast=True)]], Field(fail_fast=True)]
    )
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def prompt_field(self) -> str:
        return "prompt"

    @property
    def answer_tokens(self) -> int | None:
        return self.max_tokens or 16

    @property
    def requested_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list."""
        prompt: Any = self.prompt
        is_single = isinstance(prompt, str) or (
            prompt and isinstance(prompt[0], int)
        )  # integers: tokens of a single prompt
        return [prompt] if is_single else list(prompt)


def parse(kind: type[Request], body: Any) -> Request:
    """Return the request in a JSON body. Raises ApiError that names the parameter."""
    if not isinstance(body, dict):
        raise invalid("We could not parse the JSON body of your request: it must be an object.")
    given = {name: value for name, value in body.items() if name not in WITHOUT_EFFECT and value is not None}
    for name in NEUTRAL.keys() & given.keys():
        if not _is_among(value := given.pop(name), NEUTRAL[name]):
            raise invalid(
                f"Unsupported parameter: '{name}' with the value {reprlib.repr(value)} is not supported by this server.",
                name,
                "unsupported_parameter",
            )
    if unknown := given.keys() - kind.model_fields.keys():
        raise invalid(f"Unrecognized request argument supplied: {min(unknown)}", min(unknown), "unknown_parameter")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> ApiError:
    # among the errors of a union, the deepest is about the member that the user meant
    first = max(error.errors(include_url=False, include_input=False), key=lambda entry: len(entry["loc"]))
    path = [
        part for part in first["loc"] if isinstance(part, int) or (part.isidentifier() and part not in UNION_MEMBERS)
    ]
    param = ".".join(str(part) for part in path) or None
    match first["type"]:
        case "extra_forbidden":
            return invalid(f"Unrecognized request argument supplied: {param}", param, "unknown_parameter")
        case "missing":
            return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    return invalid(f"Invalid value for '{param}': {first['msg']}." if param else first["msg"], param, "invalid_value")


def _is_among(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Whether a value equals one of `neutral` and has its type: True is not 1."""
    return any(value == other and type(value) is type(other) for other in neutral)


def _token(text: str, vocabulary: int) -> int:
    if not DECIMAL.fullmatch(text) or int(text) >= vocabulary:
        raise invalid(
            f"Invalid key in 'logit_bias': not a token of this model (0 to {vocabulary - 1}): {text!r}.",
            "logit_bias",
            "invalid_value",
        )
    return int(text)
