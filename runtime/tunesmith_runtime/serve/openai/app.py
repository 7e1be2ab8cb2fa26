"""The OpenAI API over HTTP, for a model that is loading, ready, or draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tunesmith_runtime.serve.generation.loop import Full, Loop, Piece, Row
from tunesmith_runtime.serve.generation.model import LoadedModel, TooLong
from tunesmith_runtime.serve.keys import accepts, bearer_token
from tunesmith_runtime.serve.openai.bodies import LARGE_BODY_BYTES, decoded, read_body
from tunesmith_runtime.serve.openai.errors import (
    ApiError,
    context_too_long,
    invalid,
    model_not_found,
    prompt_too_long,
    server_error,
    unauthorized,
    unavailable,
)
from tunesmith_runtime.serve.openai.requests import MAX_ANSWERS, ChatRequest, CompletionRequest, Generate, parse
from tunesmith_runtime.serve.openai.responses import (
    DONE,
    Answer,
    Chat,
    Completion,
    event,
    identifier,
    model_card,
    model_list,
    usage,
)

log = logging.getLogger(__name__)

Bodies = Chat | Completion
Handler = Callable[[Request], Awaitable[Response]]
Asked = TypeVar("Asked", bound=Generate)


@dataclass
class Service:
    """What the API serves, and the state of it. `model` and `loop` are set once every name has generated a token."""

    names: Mapping[str, str | None]
    """Model name of requests -> adapter, None for the base model. The first is the resource's own."""
    api_key: str | None = None
    model: LoadedModel | None = None
    loop: Loop | None = None
    draining: bool = False
    """Set when the server is asked to stop, loaded or not."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def max_length(self) -> int | None:
        """Tokens of prompt and answer together at most, once it is known."""
        return self.model.max_length if self.model else None

    @property
    def healthy(self) -> bool:
        """False where the thread that generates has ended, which only a new process mends."""
        return self.loop is None or self.loop.alive

    @property
    def ready(self) -> bool:
        """True from the first generated token by every name until the server drains."""
        return self.loop is not None and self.loop.alive and not self.draining

    def backend(self) -> tuple[LoadedModel, Loop]:
        """Model and loop. Raises ApiError while they load."""
        if self.model is None or self.loop is None:
            raise unavailable("The model is still loading; GET /ready tells when it can answer.")
        return self.model, self.loop


@dataclass(frozen=True)
class Planned:
    """The rows of a request, each with the index of its choice, and the queue that their pieces come by."""

    rows: Sequence[Row]
    prompt_tokens: int
    pieces: asyncio.Queue[tuple[int, Piece]]

    def cancel(self) -> None:
        """Stop generating: nobody reads any more."""
        for row in self.rows:
            row.cancelled = True

    async def answers(self) -> AsyncIterator[tuple[int, Piece]]:
        """Pieces as they come, until every row has ended. Raises ApiError where a row failed."""
        running = len(self.rows)
        try:
            while running:
                index, piece = await self.pieces.get()
                if piece.error is not None:
                    raise server_error(f"The generation failed: {piece.error}")
                running -= piece.finish is not None
                yield index, piece
        finally:
            self.cancel()


def plan(service: Service, request: Generate, prompts: Sequence[Sequence[int]]) -> Planned:
    """Rows for each prompt and choice. Raises ApiError where a prompt does not fit."""
    model, _ = service.backend()
    if (answers := len(prompts) * request.choices) > MAX_ANSWERS:
        raise invalid(
            f"The request asks for {answers} answers (prompts times n); at most {MAX_ANSWERS} are given to one."
        )
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

    def emitter(index: int) -> Callable[[Piece], None]:
        def emit(piece: Piece) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is gone: so is the reader
                loop.call_soon_threadsafe(pieces.put_nowait, (index, piece))

        return emit

    rows: list[Row] = []
    adapter = service.names[request.model]
    for prompt in prompts:
        check_tokens(prompt, model, request.prompt_field)
        room = model.max_length - len(prompt)
        wanted = request.answer_tokens
        if room < (wanted or 1):
            raise context_too_long(model.max_length, len(prompt), wanted or 0, wanted is not None)
        for choice in range(request.choices):
            sampling = request.sampling(choice, model.vocabulary)
            rows.append(Row(prompt, wanted or room, sampling, adapter, request.stops, emitter(len(rows))))
    return Planned(rows, sum(map(len, prompts)), pieces)


def check_tokens(prompt: Sequence[int], model: LoadedModel, field: str) -> None:
    """Raises ApiError for an empty prompt, and for a token that the model has no embedding of, wherever it comes from: a
    forward with one fails for all rows beside it."""
    if not prompt:
        raise invalid(f"Invalid value for '{field}': it is empty.", field, "invalid_value")
    wrong = next((token for token in prompt if not 0 <= token < model.vocabulary), None)
    if wrong is not None:
        raise invalid(
            f"Invalid value for '{field}': the token {wrong} is not one of the model's, which are from 0 to {model.vocabulary - 1}.",
            field,
            "invalid_value",
        )


def chat_prompts(service: Service, request: ChatRequest) -> list[list[int]]:
    """The conversation in tokens. Raises ApiError where the template is missing or refuses it."""
    model, _ = service.backend()
    if not model.has_chat_template:
        raise invalid("This model's tokenizer has no chat template: use /v1/completions.", "messages")
    try:
        return [model.encode_chat(request.messages, **(request.chat_template_kwargs or {}))]
    except TooLong as error:
        raise prompt_too_long(model.max_length, error.tokens) from error
    except ValueError as error:
        raise invalid(f"Invalid value for 'messages': {error}.", "messages", "invalid_value") from error


def completion_prompts(service: Service, request: CompletionRequest) -> list[list[int]]:
    """Each prompt in tokens. Raises ApiError where there is none or one can't fit."""
    model, _ = service.backend()
    if not request.prompts:
        raise invalid("Invalid value for 'prompt': it is empty.", "prompt", "invalid_value")
    if len(request.prompts) > MAX_ANSWERS:
        raise invalid(f"Invalid value for 'prompt': at most {MAX_ANSWERS} prompts.", "prompt", "invalid_value")
    try:
        return [model.encode(prompt) if isinstance(prompt, str) else prompt for prompt in request.prompts]
    except TooLong as error:
        raise prompt_too_long(model.max_length, error.tokens) from error
    except ValueError as error:
        raise invalid(f"Invalid value for 'prompt': {error}.", "prompt", "invalid_value") from error


async def answer(
    service: Service, request: Request, body: Generate, prompts: Sequence[Sequence[int]], bodies: type[Bodies]
) -> Response:
    """Generate, and answer in one body or as a stream."""
    model, loop = service.backend()
    planned = plan(service, body, prompts)
    logprobs = body.told_logprobs is not None
    form = bodies(identifier(bodies.prefix), int(time.time()), body.model, model.tokens, logprobs)
    try:
        loop.submit(planned.rows)
    except Full as error:
        raise unavailable("The server is overloaded: too many requests wait. Try again later.") from error
    if body.stream:
        events = stream(form, planned, body.include_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    answers = [Answer() for _ in planned.rows]
    collected = asyncio.ensure_future(collect(planned, answers))
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({collected, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not collected.done():
            return Response(status_code=499)
        await collected
    finally:
        planned.cancel()
        collected.cancel()
        gone.cancel()
    # many answers with many alternatives take seconds to write
    return await asyncio.to_thread(lambda: JSONResponse(form.whole(answers, planned.prompt_tokens)))


async def collect(planned: Planned, answers: Sequence[Answer]) -> None:
    """Let the answers grow to their ends."""
    async for index, piece in planned.answers():
        answers[index].add(piece)


async def disconnected(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def stream(form: Bodies, planned: Planned, include_usage: bool) -> AsyncIterator[bytes]:
    """The events of a streamed answer."""
    tokens = 0
    begun: set[int] = set()
    try:
        async for index, piece in planned.answers():
            tokens += piece.choice is not None
            chunks = [] if index in begun else [form.first(index)]
            begun.add(index)
            chunks.append(form.piece(index, piece))
            if piece.finish is not None:
                chunks.append(form.last(index, piece.finish))
            for chunk in chunks:
                if chunk is not None:
                    yield event(chunk | ({"usage": None} if include_usage else {}))
    except ApiError as error:  # the status line is long gone: the client learns it from the stream
        yield event(error.body())
        return
    if include_usage:
        yield event(form.counts(usage(planned.prompt_tokens, tokens)))
    yield DONE


def create_app(service: Service) -> Starlette:
    """The application: the API, and the probes of the pod."""

    def served(name: str) -> str:
        if name not in service.names:
            raise model_not_found(name, list(service.names))
        return name

    large_bodies = asyncio.Semaphore(1)

    def understood(kind: type[Asked], raw: bytes, prompts: Callable[[Service, Asked], list[list[int]]]) -> Any:
        body = parse(kind, decoded(raw))
        served(body.model)
        return body, prompts(service, body)

    async def handled(
        request: Request, kind: type[Asked], prompts: Callable[[Service, Asked], list[list[int]]], bodies: type[Bodies]
    ) -> Response:
        raw = await read_body(request)
        # they take seconds of CPU time, so that they wait for each other and not all others for them
        async with large_bodies if len(raw) > LARGE_BODY_BYTES else contextlib.nullcontext():
            body, encoded = await asyncio.to_thread(understood, kind, raw, prompts)
        return await answer(service, request, body, encoded, bodies)

    async def chat(request: Request) -> Response:
        return await handled(request, ChatRequest, chat_prompts, Chat)

    async def completion(request: Request) -> Response:
        return await handled(request, CompletionRequest, completion_prompts, Completion)

    async def models(request: Request) -> Response:
        return JSONResponse(model_list(list(service.names), service.created, service.max_length))

    async def model(request: Request) -> Response:
        return JSONResponse(model_card(served(request.path_params["name"]), service.created, service.max_length))

    async def health(request: Request) -> Response:
        if not service.healthy:
            return JSONResponse({"status": "the thread that generates has ended"}, 503)
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    def guarded(handler: Handler) -> Handler:
        async def checked(request: Request) -> Response:
            if service.api_key is not None:
                token = bearer_token(request.headers.get("authorization", ""))
                if not accepts(service.api_key, token):
                    raise unauthorized(bool(token))
            return await handler(request)

        return checked

    routes = [
        Route("/v1/chat/completions", guarded(chat), methods=["POST"]),
        Route("/v1/completions", guarded(completion), methods=["POST"]),
        Route("/v1/models", guarded(models)),
        Route("/v1/models/{name}", guarded(model)),
        Route("/health", health),
        Route("/ready", ready),
    ]
    handlers: dict[Any, Any] = {ApiError: _api_error, HTTPException: _http_error, Exception: _unexpected}
    return Starlette(routes=routes, exception_handlers=handlers)


async def _api_error(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status, error.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    known = {404: "Invalid URL", 405: "Method not allowed for this URL"}
    message = f"{known.get(error.status_code, error.detail)} ({request.method} {request.url.path})"
    return JSONResponse(ApiError(error.status_code, message).body(), error.status_code, error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse(server_error("The server had an error while processing your request.").body(), 500)
