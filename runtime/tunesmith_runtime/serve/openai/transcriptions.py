"""Requests to write down a sound: POST /v1/audio/transcriptions of the OpenAI API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from starlette.responses import JSONResponse, PlainTextResponse, Response

from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.media.sound_error import SoundError
from tunesmith_runtime.media.sounds import Sound, SoundLimits, read_sound
from tunesmith_runtime.serve.generation.speech import Segment, SpeechModel, joined, windows
from tunesmith_runtime.serve.openai.bodies import MAX_BODY_BYTES
from tunesmith_runtime.serve.openai.errors import ApiError, invalid, unavailable

LIMITS = SoundLimits(seconds=3600.0, size_bytes=MAX_BODY_BYTES)
MAX_REQUESTS = 8
"""Maximum number of requests in progress: each holds its sound, of up to 230 MB."""
NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "prompt": ("",),
    "temperature": ("0", "0.0", "0.00"),
    "stream": ("false", "False"),
    "timestamp_granularities[]": ("segment",),
    "chunking_strategy": ("auto",),
    "include[]": (),
}
"""Fields that this server does not implement -> the values without effect, which are accepted."""
KNOWN = frozenset({"model", "language", "response_format", *NEUTRAL})

Result = TypeVar("Result")


class ResponseFormat(StrEnum):
    """The forms of an answer."""

    JSON = "json"
    TEXT = "text"
    VERBOSE_JSON = "verbose_json"


@dataclass(frozen=True)
class TranscriptionRequest:
    """A validated request."""

    model: str
    file: bytes
    language: str | None = None
    response_format: ResponseFormat = ResponseFormat.JSON


def read_request(fields: Mapping[str, str], files: Mapping[str, bytes]) -> TranscriptionRequest:
    """Return the request of a form. Raises ApiError (400)."""
    for name in ("model", "file"):
        if name not in (files if name == "file" else fields):
            raise invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    for name, value in fields.items():
        if name not in KNOWN:
            raise invalid(f"Unrecognized request argument supplied: {name:.80}", name, "unknown_parameter")
        if name in NEUTRAL and value not in NEUTRAL[name]:
            sentence = f"Unsupported value for '{name}': this server does not implement it."
            raise invalid(sentence, name, "unsupported_value")
    form = fields.get("response_format", ResponseFormat.JSON)
    if form not in (*ResponseFormat,):
        supported = ", ".join(ResponseFormat)
        sentence = f"Invalid value for 'response_format': {form!r:.80}. Supported: {supported}."
        raise invalid(sentence, "response_format", "invalid_value")
    return TranscriptionRequest(fields["model"], files["file"], fields.get("language") or None, ResponseFormat(form))


@dataclass(frozen=True)
class Transcript:
    """What was spoken in a sound."""

    language: str
    seconds: float
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """All of it."""
        return joined([segment.text for segment in self.segments], self.language)

    def response(self, form: ResponseFormat) -> Response:
        """Return the answer."""
        if form is ResponseFormat.TEXT:
            return PlainTextResponse(self.text + "\n")
        if form is ResponseFormat.JSON:
            return JSONResponse({"text": self.text})
        return JSONResponse(self._verbose())

    def _verbose(self) -> dict[str, Any]:
        return {
            "task": "transcribe",
            "language": self.language,
            "duration": round(self.seconds, 3),
            "text": self.text,
            "segments": [
                {"id": index, "start": round(each.start, 3), "end": round(each.end, 3), "text": each.text}
                for index, each in enumerate(self.segments)
            ],
        }


@dataclass
class Transcriber:
    """Writes down the sounds of requests in one thread. Requests take turns after each window, so that a long sound does not delay the
    others."""

    model: SpeechModel
    requests: int = 0
    """Requests in progress."""
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="transcribe"))

    async def transcribe(self, request: TranscriptionRequest, adapter: str | None) -> Transcript:
        """Return the text of a sound. Raises ApiError: 400 for a sound that cannot be read or is too long, and for a language that the
        model does not write; 503 with too many requests in progress."""
        if self.requests >= MAX_REQUESTS:
            raise unavailable("The server is overloaded: too many sounds are waiting. Try again later.")
        self.requests += 1
        try:
            return await self._transcribe(request, adapter)
        finally:
            self.requests -= 1

    async def _transcribe(self, request: TranscriptionRequest, adapter: str | None) -> Transcript:
        processor = self.model.processor
        language = None if request.language is None else self._language(request.language)
        sound = await self._run(lambda: _sound(request.file, processor.rate))
        segments = []
        for window in windows(sound.samples, sound.rate, processor.window_seconds):
            part = sound.samples[window.start : window.end]
            if language is None:
                language = await self._run(lambda part=part: self.model.language(part, adapter))  # type: ignore[misc]
            text = await self._run(lambda part=part, code=language: self.model.write(part, code, adapter))  # type: ignore[misc]
            segments.append(Segment(window.start / sound.rate, window.end / sound.rate, text))
        assert language is not None
        return Transcript(language, sound.seconds, tuple(segments))

    def _language(self, named: str) -> str:
        try:
            return self.model.processor.tokens.language(named)
        except RowError as error:
            raise invalid(f"Invalid value for 'language': {error}.", "language", "invalid_value") from error

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _sound(content: bytes, rate: int) -> Sound:
    try:
        return read_sound(content, rate, LIMITS)
    except SoundError as error:
        raise unreadable(error) from error


def unreadable(error: SoundError) -> ApiError:
    """400: a sound that cannot be read."""
    return invalid(f"Invalid file: the sound {error}; {error.hint}.", "file", "invalid_value")
