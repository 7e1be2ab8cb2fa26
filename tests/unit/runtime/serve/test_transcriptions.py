"""The real `openai` client has sounds written down: all words of a long one, once, and a bad request harms no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import openai
import pytest
import uvicorn
from openai import OpenAI

from tests import tinyspeech
from tests.servers import free_port
from tunesmith_runtime.media.sounds import SoundLimits
from tunesmith_runtime.serve.config import ServeConfig
from tunesmith_runtime.serve.openai import transcriptions
from tunesmith_runtime.serve.openai.app import Service, create_app
from tunesmith_runtime.serve.openai.server import _load_speech
from tunesmith_runtime.serve.openai.transcriptions import MAX_REQUESTS, Transcriber

WORD_SECONDS, PAUSE = 0.6, numpy.zeros(4_800, numpy.float32)


def sound(words: str) -> bytes:
    """A WAV file with a pause of 0.3 s between words. The model hears 1 s."""
    each = [
        part
        for seed, word in enumerate(words.split())
        for part in (tinyspeech.tone(word, WORD_SECONDS, 50 + seed), PAUSE)
    ]
    return tinyspeech.wav(numpy.concatenate(each[:-1]))


@pytest.fixture(scope="module")
def transcriber(tmp_path_factory: pytest.TempPathFactory) -> Transcriber:
    folder = tinyspeech.make_trained_model(tmp_path_factory.mktemp("speech"))
    return _load_speech(ServeConfig(folder, {"demo": None}), "cpu")


@pytest.fixture(scope="module")
def client(transcriber: Transcriber) -> Iterator[OpenAI]:
    service = Service({"demo": None}, api_key="key", transcriber=transcriber)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(service), "127.0.0.1", port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="key", max_retries=0, timeout=600)
    server.should_exit = True
    thread.join()


def write(client: OpenAI, content: bytes, **options: Any) -> Any:
    fields: Any = {"model": "demo", "language": "fr", **options}
    return client.audio.transcriptions.create(file=("a.wav", content), **fields)


def test_a_sound_is_written_down_in_every_form(client: OpenAI) -> None:
    assert write(client, sound("high")).text == "high"
    assert write(client, sound("low"), response_format="text") == "low\n"
    verbose = write(client, sound("low shrill"), response_format="verbose_json", temperature=0)
    assert (verbose.text, verbose.language, verbose.duration) == ("low shrill", "fr", 1.5)
    assert [segment.text for segment in verbose.segments] == ["low", "shrill"]
    assert verbose.segments[0].end == verbose.segments[1].start == pytest.approx(0.75, abs=0.15)


def test_all_words_of_a_long_sound_come_back_once_and_in_their_order(client: OpenAI) -> None:
    words = "low high high middle shrill low middle"
    assert write(client, sound(words)).text == words


def test_without_a_language_the_model_recognizes_one(client: OpenAI) -> None:
    verbose = write(client, sound("middle"), language=openai.omit, response_format="verbose_json")
    assert verbose.text == "middle"
    assert verbose.language in tinyspeech.LANGUAGES


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (b"", {}, "the sound is empty: it has 0 bytes; replace the sound"),
        (b"not a sound", {}, "is in no format that is read"),
        (sound("low")[:9000], {}, "is cut off: it has 9,000 of 19,244 bytes"),
        (sound("low"), {"language": "tlh"}, "Invalid value for 'language': names the language 'tlh'"),
        (sound("low"), {"response_format": "srt"}, "Supported: json, text, verbose_json"),
        (sound("low"), {"prompt": "birds"}, "Unsupported value for 'prompt'"),
        (sound("low"), {"temperature": 0.7}, "Unsupported value for 'temperature'"),
        (sound("low"), {"extra_body": {"beam": "5"}}, "Unrecognized request argument supplied: beam"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_with_the_reason(
    client: OpenAI, content: bytes, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=sentence):
        write(client, content, **options)


def test_a_sound_that_is_too_long_is_refused(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcriptions, "LIMITS", SoundLimits(seconds=1.0))
    with pytest.raises(openai.BadRequestError, match="lasts longer than 1 s"):
        write(client, sound("low high"))


def test_models_keys_and_other_endpoints_are_checked(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`other` does not exist"):
        write(client, sound("low"), model="other")
    with pytest.raises(openai.AuthenticationError):
        write(client.with_options(api_key="wrong"), sound("low"))
    with pytest.raises(openai.BadRequestError, match="use /v1/audio/transcriptions"):
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hi"}])
    assert [model.id for model in client.models.list()] == ["demo"]


LONG = 320
"""Words of a sound that takes much longer than another, however busy the machine is."""


def test_damaged_and_long_sounds_neither_harm_nor_delay_others(client: OpenAI) -> None:
    ended: list[str] = []

    def ask(name: str, content: bytes) -> str:
        try:
            return str(write(client, content).text)
        except openai.BadRequestError:
            return "refused"
        finally:
            ended.append(name)

    with ThreadPoolExecutor(4) as threads:
        long = threads.submit(ask, "long", sound("low " * LONG))
        time.sleep(0.2)
        damaged = [threads.submit(ask, "damaged", sound("low")[:5000]) for _ in range(2)]
        short = threads.submit(ask, "short", sound("high"))
    assert [each.result() for each in (*damaged, short)] == ["refused", "refused", "high"]
    assert long.result() == " ".join(["low"] * LONG)
    assert ended[-1] == "long"


def test_more_requests_than_memory_holds_are_refused_at_once(
    client: OpenAI, transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcriber, "requests", MAX_REQUESTS)
    with pytest.raises(openai.InternalServerError, match="too many sounds are waiting") as refused:
        write(client, sound("low"))
    assert (refused.value.status_code, refused.value.response.headers["retry-after"]) == (503, "5")


def test_a_language_model_writes_down_no_speech(model: Any) -> None:
    with pytest.raises(Exception, match="does not write down speech"):
        Service({"demo": None}, model=model).speech()
    with pytest.raises(Exception, match="still loading"):
        Service({"demo": None}).speech()
