"""The OpenAI API over HTTP, for a model that is loading, ready or draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tunesmith_runtime.serve.generation.loop import Loop, Piece, QueueFull, Row
from tunesmith_runtime.serve.generation.model import LoadedModel, TooLong
from tunesmith_runtime.serve.generation.prompt import Prompt
from tunesmith_runtime.serve.keys import accepts, bearer_token
from tunesmith_runtime.serve.openai.bodies import LARGE_BODY_BYTES, decode_body, read_body
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
from tunesmith_runtime.serve.openai.image_parts import HTTPS
from tunesmith_runtime.serve.openai.multipart import parse_form
from tunesmith_runtime.serve.openai.pictures import read_pictures, refused
from tunesmith_runtime.serve.openai.remote_pictures import SECONDS, RemotePictures
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
from tunesmith_runtime.serve.openai.transcriptions import Transcriber, read_request

log = logging.getLogger(__name__)

Bodies = Chat | Completion
Handler = Callable[[Request], Awaitable[Response]]
Body = TypeVar("Body", bound=Generate)
Result = TypeVar("Result")


LOADING = "The model is still loading; retry once GET /ready returns 200."


@dataclass
class Service:
    """The served model and its state. `model` and `loop` are set once every model name has generated a token."""

    names: Mapping[str, str | None]
    """Model name in requests -> adapter, or None for the base weights. The first is the resource's own name."""
    api_key: str | None = None
    model: LoadedModel | None = None
    loop: Loop | None = None
    transcriber: Transcriber | None = None
    """Set instead of `model` and `loop` for a speech model."""
    draining: bool = False
    """Set on SIGTERM, also while the model loads."""
    remote: RemotePictures = field(default_factory=lambda: RemotePictures(()))
    """Reads the images at https URLs."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def max_length(self) -> int | None:
        """Maximum number of tokens of prompt and answer together; None until the model is loaded."""
        return self.model.max_length if self.model else None

    @property
    def healthy(self) -> bool:
        """False once the generating thread has ended. Only a new process recovers from that."""
        return self.loop is None or self.loop.alive

    @property
    def ready(self) -> bool:
        """True from the first token of every model name until the server drains."""
        is_loaded = self.transcriber is not None or (self.loop is not None and self.loop.alive)
        return is_loaded and not self.draining

    def backend(self) -> tuple[LoadedModel, Loop]:
        """Return model and loop. Raises ApiError while the model loads, and for a speech model."""
        if self.transcriber is not None:
            raise invalid("This model writes down speech: use /v1/audio/transcriptions.")
        if self.model is None or self.loop is None:
            raise unavailable(LOADING)
        return self.model, self.loop

    def speech(self) -> Transcriber:
        """Return what writes down speech. Raises ApiError while the model loads, and for a language model."""
        if self.transcriber is not None:
            return self.transcriber
        if self.model is None:
            raise unavailable(LOADING)
        raise invalid("This model does not write down speech: use /v1/chat/completions.")


@dataclass(frozen=True)
class PendingAnswers:
    """The rows of a request, and the queue of their pieces with the index of the row."""

    rows: Sequence[Row]
    prompt_tokens: int
    pieces: asyncio.Queue[tuple[int, Piece]]

    def cancel(self) -> None:
        """Stop generating, because the client no longer reads."""
        for row in self.rows:
            row.cancelled = True

    async def answers(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yield pieces until every row has ended. Raises ApiError if a row fails."""
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


def prepare_rows(service: Service, request: Generate, prompts: Sequence[Prompt]) -> PendingAnswers:
    """Make a row for each prompt and choice. Raises ApiError if a prompt does not fit."""
    model, _ = service.backend()
    if (answers := len(prompts) * request.choices) > MAX_ANSWERS:
        raise invalid(f"The request asks for {answers} answers (prompts times n); the limit is {MAX_ANSWERS}.")
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

    def emitter(index: int) -> Callable[[Piece], None]:
        def emit(piece: Piece) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop has closed, and so has the connection
                loop.call_soon_threadsafe(pieces.put_nowait, (index, piece))

        return emit

    rows: list[Row] = []
    adapter = service.names[request.model]
    for prompt in prompts:
        tokens = prompt.tokens
        check_tokens(tokens, model, request.prompt_field)
        room = model.max_length - len(tokens)
        requested = request.answer_tokens
        if room < (requested or 1):
            raise context_too_long(model.max_length, len(tokens), requested)
        for choice in range(request.choices):
            sampling = request.sampling(choice, model.vocabulary)
            emit = emitter(len(rows))
            rows.append(Row(tokens, requested or room, sampling, adapter, request.stops, emit, prompt.inputs))
    return PendingAnswers(rows, sum(len(prompt.tokens) for prompt in prompts), pieces)


def check_tokens(prompt: Sequence[int], model: LoadedModel, field: str) -> None:
    """Raise ApiError for an empty prompt, and for a token without an embedding, which would fail the whole batch."""
    if not prompt:
        raise invalid(f"Invalid value for '{field}': it is empty.", field, "invalid_value")
    wrong = next((token for token in prompt if not 0 <= token < model.vocabulary), None)
    if wrong is not None:
        raise invalid(
            f"Invalid value for '{field}': token {wrong} is not in the model's vocabulary (0 to {model.vocabulary - 1}).",
            field,
            "invalid_value",
        )


def check_images(service: Service, request: Generate) -> dict[str, str]:
    """Return the images of a request at https URLs by place. Raises ApiError where the model or the service does not read them."""
    model, _ = service.backend()
    if model.media is None and request.images:
        raise refused(next(iter(request.images)), "it is an image, and this model reads text alone", None)
    remote = {place: url for place, url in request.images.items() if url.startswith(HTTPS)}
    service.remote.check(remote)
    return remote


def chat_prompts(service: Service, request: ChatRequest, fetched: Mapping[str, bytes]) -> list[Prompt]:
    """Return the prompt of the conversation. `fetched`: the images at https URLs.

    Raises ApiError if there is no chat template, if it refuses the conversation, or if an image cannot be read.
    """
    model, _ = service.backend()
    if not model.has_chat_template:
        raise invalid("This model's tokenizer has no chat template: use /v1/completions.", "messages")
    pictures = read_pictures(request.images, fetched)
    try:
        return [model.encode_chat(request.messages, pictures, **(request.chat_template_kwargs or {}))]
    except TooLong as error:
        raise prompt_too_long(model.max_length, error.tokens) from error
    except ValueError as error:
        raise invalid(f"Invalid value for 'messages': {error}.", "messages", "invalid_value") from error


def completion_prompts(service: Service, request: CompletionRequest, _fetched: Mapping[str, bytes]) -> list[Prompt]:
    """Return the prompts. Raises ApiError if there is none or if a prompt cannot fit."""
    model, _ = service.backend()
    if not request.prompts:
        raise invalid("Invalid value for 'prompt': it is empty.", "prompt", "invalid_value")
    if len(request.prompts) > MAX_ANSWERS:
        raise invalid(f"Invalid value for 'prompt': at most {MAX_ANSWERS} prompts.", "prompt", "invalid_value")
    try:
        return [Prompt(model.encode(each) if isinstance(each, str) else each) for each in request.prompts]
    except TooLong as error:
        raise prompt_too_long(model.max_length, error.tokens) from error
    except ValueError as error:
        raise invalid(f"Invalid value for 'prompt': {error}.", "prompt", "invalid_value") from error


async def respond(
    service: Service, request: Request, body: Generate, prompts: Sequence[Prompt], bodies: type[Bodies]
) -> Response:
    """Generate, and respond with one body or a stream."""
    model, loop = service.backend()
    pending = prepare_rows(service, body, prompts)
    logprobs = body.requested_logprobs is not None
    form = bodies(identifier(bodies.prefix), int(time.time()), body.model, model.tokens, logprobs)
    try:
        loop.submit(pending.rows)
    except QueueFull as error:
        raise unavailable("The server is overloaded: too many requests are waiting. Try again later.") from error
    if body.stream:
        events = stream(form, pending, body.include_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    answers = [Answer() for _ in pending.rows]
    try:
        if not await unless_disconnected(request, collect(pending, answers)):
            return Response(status_code=499)
    finally:
        pending.cancel()
    # encoding many answers with many alternatives takes seconds
    return await asyncio.to_thread(lambda: JSONResponse(form.full_body(answers, pending.prompt_tokens)))


async def collect(pending: PendingAnswers, answers: Sequence[Answer]) -> bool:
    """Collect the pieces of each row in its answer; return True."""
    async for index, piece in pending.answers():
        answers[index].add(piece)
    return True


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Return the result of `work`; None if the client disconnects first, which cancels it."""
    working, disconnect = asyncio.ensure_future(work), asyncio.ensure_future(wait_for_disconnect(request))
    try:
        await asyncio.wait({working, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        disconnect.cancel()


async def wait_for_disconnect(request: Request) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def stream(form: Bodies, pending: PendingAnswers, include_usage: bool) -> AsyncIterator[bytes]:
    """Yield the events of a streamed answer."""
    tokens = 0
    begun: set[int] = set()
    try:
        async for index, piece in pending.answers():
            tokens += piece.choice is not None
            chunks = [] if index in begun else [form.first_chunk(index)]
            begun.add(index)
            chunks.append(form.chunk(index, piece))
            if piece.finish is not None:
                chunks.append(form.last_chunk(index, piece.finish))
            for chunk in chunks:
                if chunk is not None:
                    yield event(chunk | ({"usage": None} if include_usage else {}))
    except ApiError as error:  # the status line has been sent: report the error within the stream
        yield event(error.body())
        return
    if include_usage:
        yield event(form.usage_chunk(usage(pending.prompt_tokens, tokens)))
    yield DONE


Prompts = Callable[[Service, Body, Mapping[str, bytes]], list[Prompt]]
"""Returns the prompts in a body, with the images that were fetched for it."""
FETCHES = 8
"""Maximum number of requests whose images are fetched at a time."""


class Endpoints:
    """The handlers of the API, and of the pod's probes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._large_bodies, self._images = asyncio.Semaphore(1), asyncio.Semaphore(1)
        self._fetches = ThreadPoolExecutor(FETCHES, "fetch")

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        return await self._answer(request, ChatRequest, chat_prompts, Chat)

    async def completion(self, request: Request) -> Response:
        """Continue a text."""
        return await self._answer(request, CompletionRequest, completion_prompts, Completion)

    async def transcription(self, request: Request) -> Response:
        """Write down a sound."""
        raw = await read_body(request)
        body = read_request(*parse_form(request.headers.get("content-type", ""), raw))
        adapter = self._service.names[self._known(body.model)]
        transcript = await unless_disconnected(request, self._service.speech().transcribe(body, adapter))
        return Response(status_code=499) if transcript is None else transcript.response(body.response_format)

    async def models(self, request: Request) -> Response:
        """Return the list of the models."""
        service = self._service
        return JSONResponse(model_list(list(service.names), service.created, service.max_length))

    async def model(self, request: Request) -> Response:
        """Return a model of the list."""
        name = self._known(request.path_params["name"])
        return JSONResponse(model_card(name, self._service.created, self._service.max_length))

    async def health(self, request: Request) -> Response:
        """Return whether the service can answer at all."""
        if not self._service.healthy:
            return JSONResponse({"status": "the generating thread has ended"}, 503)
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Return whether the service accepts requests."""
        return JSONResponse({"ready": self._service.ready}, 200 if self._service.ready else 503)

    def with_key(self, handler: Handler) -> Handler:
        """Return a handler that answers only requests with the API key, if the service has one."""

        async def checked(request: Request) -> Response:
            if self._service.api_key is not None:
                token = bearer_token(request.headers.get("authorization", ""))
                if not accepts(self._service.api_key, token):
                    raise unauthorized(bool(token))
            return await handler(request)

        return checked

    async def _answer(
        self, request: Request, kind: type[Body], prompts: Prompts[Body], bodies: type[Bodies]
    ) -> Response:
        raw = await read_body(request)
        # parsing large bodies takes seconds of CPU time: one at a time, so that other requests are not delayed
        costly = self._large_bodies if len(raw) > LARGE_BODY_BYTES else contextlib.nullcontext()
        async with costly:
            body = await asyncio.to_thread(self._parse, kind, raw)
        fetched = await self._fetched(body)
        # decoding images takes memory too
        async with self._images if body.images else costly:
            encoded = await asyncio.to_thread(prompts, self._service, body, fetched)
        return await respond(self._service, request, body, encoded, bodies)

    def _parse(self, kind: type[Body], raw: bytes) -> Body:
        body = parse(kind, decode_body(raw))
        self._known(body.model)
        return body

    async def _fetched(self, body: Generate) -> Mapping[str, bytes]:
        """Return the images at https URLs by URL. Raises ApiError, also where that takes too long."""
        if not (remote := check_images(self._service, body)):
            return {}
        reading = asyncio.get_running_loop().run_in_executor(self._fetches, self._service.remote.read, remote)
        try:
            return await asyncio.wait_for(reading, SECONDS)
        except TimeoutError as error:
            sentence = f"reading the images of the request took more than {SECONDS:g} s"
            raise refused(next(iter(remote)), sentence, "send them as data: URLs") from error

    def _known(self, name: str) -> str:
        if name not in self._service.names:
            raise model_not_found(name, list(self._service.names))
        return name


def create_app(service: Service) -> Starlette:
    """Return the application: the API, and the pod's probes."""
    endpoints = Endpoints(service)
    routes = [
        Route("/v1/chat/completions", endpoints.with_key(endpoints.chat), methods=["POST"]),
        Route("/v1/completions", endpoints.with_key(endpoints.completion), methods=["POST"]),
        Route("/v1/audio/transcriptions", endpoints.with_key(endpoints.transcription), methods=["POST"]),
        Route("/v1/models", endpoints.with_key(endpoints.models)),
        Route("/v1/models/{name}", endpoints.with_key(endpoints.model)),
        Route("/health", endpoints.health),
        Route("/ready", endpoints.ready),
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
