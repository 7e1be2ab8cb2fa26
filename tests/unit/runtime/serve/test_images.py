"""Requests with images over HTTP: what is answered, what is refused, and that no image harms another request."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import struct
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from starlette.testclient import TestClient

from tests import tinyvision
from tests.servers import Server, run_spec
from tests.unit.runtime.serve.test_hostile import ask, is_error
from tests.unit.runtime.train.support import make_run
from tunesmith_runtime import export, train
from tunesmith_runtime.data.media_files import MediaFiles
from tunesmith_runtime.media.pictures import PictureLimits
from tunesmith_runtime.serve.generation.loop import Loop
from tunesmith_runtime.serve.generation.model import load
from tunesmith_runtime.serve.openai import app as app_module
from tunesmith_runtime.serve.openai import pictures as pictures_module
from tunesmith_runtime.serve.openai.app import Service, create_app
from tunesmith_runtime.serve.openai.remote_pictures import RemotePictures
from tunesmith_runtime.workdir import DataFile


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An untrained multimodal model."""
    folder = tinyvision.make_model(tmp_path_factory.mktemp("images") / "model", "qwen3_vl")
    model = load(tinyvision.add_processor(folder, "qwen3_vl"), {}, None, trust_remote_code=False)
    loop = Loop(model.forward, model.decode, model.eos, model.tokens.specials)
    loop.start()
    yield Service({"demo": None}, None, model, loop)
    loop.close()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://demo", timeout=300) as client:
        yield client


def data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def chat(*urls: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "what is it?"}, *map(part, urls)]
    return {"model": "demo", "messages": [{"role": "user", "content": content}], "max_tokens": 8, **fields}


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG of any size whose pixels are what is given."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


RED, BLUE = data_url(tinyvision.picture("red", 48, 32)), data_url(tinyvision.picture("blue", 64, 48))
BOMB = png(60_000, 60_000)
PLACE = "messages[0].content[1]"
REFUSED: dict[str, tuple[str, str]] = {
    "a decompression bomb": (data_url(BOMB), "is 60000 x 60000 pixels; at most 33,554,432 are read. Make the picture smaller."),
    "a picture that is cut off": (data_url(tinyvision.picture("red")[:-100]), "is a damaged PNG"),
    "a picture of zero bytes": ("data:image/png;base64,", "is empty"),
    "text": (data_url(b"hello, I am text"), "is in no format that is read"),
    "damaged base64": ("data:image/png;base64,%%%", "whose base64 is damaged"),
    "another encoding": ("data:text/plain,hello", "is no data URI in base64"),
    "a host that is not allowed": (
        "https://images.example.com/a.png",
        "this service reads no images from URLs. Send the image as a data: URL, or add images.example.com to spec.media.allowedHosts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_an_image_that_cannot_be_read_is_a_400_that_names_its_place(case: str, client: httpx.AsyncClient) -> None:
    url, words = REFUSED[case]
    answer = await client.post("/v1/chat/completions", json=chat(url))
    assert answer.status_code == 400
    assert is_error(answer)
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == PLACE


async def test_an_image_that_the_model_cannot_read_is_a_400(client: httpx.AsyncClient) -> None:
    thin = data_url(png(1000, 2, (b"\0" + bytes(3000)) * 2))
    answer = await client.post("/v1/chat/completions", json=chat(thin))
    assert answer.status_code == 400
    assert "1000 x 2 pixels, which the model's processor refuses" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [
        ("LIMITS", PictureLimits(pixels=1000), "is 48 x 32 pixels; at most 1,000 are read"),
        ("LIMITS", PictureLimits(size_bytes=1000), "bytes; at most 1,000 are read"),
        ("MAX_PIXELS", 48 * 32 + 1, "have 4,608 pixels; at most 1,537 are read"),
    ],
)
async def test_images_beyond_a_limit_are_a_400(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, name: str, limit: Any, words: str
) -> None:
    monkeypatch.setattr(pictures_module, name, limit)
    answer = await client.post("/v1/chat/completions", json=chat(RED, BLUE))
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_a_model_of_text_refuses_images(work: Path) -> None:
    model = load(work / "model", {}, None, trust_remote_code=False)
    service = Service({"demo": None}, None, model, Loop(model.forward, model.decode, model.eos))
    for url in (RED, "https://images.example.com/a.png"):
        answer = TestClient(create_app(service)).post("/v1/chat/completions", json=chat(url))
        assert answer.status_code == 400
        assert "this model reads text alone" in answer.json()["error"]["message"]
        assert answer.json()["error"]["param"] == PLACE


async def test_an_image_of_an_allowed_host_has_the_answer_of_its_data_url(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, other = "https://images.example.com/red.png", "https://images.example.com/slow.png"

    def read(self: RemotePictures, images: dict[str, str]) -> dict[str, bytes]:
        if other in images.values():
            time.sleep(0.5)
        return {each: tinyvision.picture("red", 48, 32) for each in images.values()}

    monkeypatch.setattr(RemotePictures, "read", read)
    allowing = dataclasses.replace(service, remote=RemotePictures({"images.example.com"}))
    transport = httpx.ASGITransport(app=create_app(allowing))
    async with httpx.AsyncClient(transport=transport, base_url="http://demo", timeout=300) as client:
        assert await ask(client, chat(url, temperature=0)) == await ask(client, chat(RED, temperature=0))
        monkeypatch.setattr(app_module, "SECONDS", 0.1)
        late = await client.post("/v1/chat/completions", json=chat(RED, other))
    assert late.status_code == 400
    assert "took more than" in late.json()["error"]["message"]


async def test_other_requests_are_answered_while_an_image_is_decoded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, finish = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert finish.wait(60)
        return read(*arguments)

    read = pictures_module.read_picture
    monkeypatch.setattr(pictures_module, "read_picture", slow)
    waiting = asyncio.ensure_future(client.post("/v1/chat/completions", json=chat(RED)))
    try:
        assert await asyncio.to_thread(begun.wait, 60)
        assert (await client.get("/health")).status_code == 200
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        assert not waiting.done()
    finally:
        finish.set()
    assert (await waiting).status_code == 200


async def test_the_images_of_one_request_are_decoded_at_a_time(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes hundreds of megabytes while it is decoded."""
    decoding: list[int] = [0]

    def counted(*arguments: Any) -> Any:
        decoding.append(decoding[-1] + 1)
        time.sleep(0.02)
        found = read(*arguments)
        decoding.append(decoding[-1] - 1)
        return found

    read = pictures_module.read_picture
    monkeypatch.setattr(pictures_module, "read_picture", counted)
    requests = [client.post("/v1/chat/completions", json=chat(RED, max_tokens=1)) for _ in range(4)]
    assert [answer.status_code for answer in await asyncio.gather(*requests)] == [200] * 4
    assert max(decoding) == 1


async def test_hostile_images_change_no_other_answer(client: httpx.AsyncClient) -> None:
    honest = [chat(RED, temperature=0), chat(BLUE, RED, temperature=0, stream=True), chat(temperature=0, n=2)]
    alone = [await ask(client, body) for body in honest]

    async def ask_again() -> None:
        for _ in range(3):
            assert await asyncio.gather(*(ask(client, body) for body in honest)) == alone

    async def attack() -> None:
        for url, _ in REFUSED.values():
            refused = await client.post("/v1/chat/completions", content=json.dumps(chat(RED, url)))
            assert refused.status_code == 400

    await asyncio.gather(ask_again(), attack(), attack())
    assert (await client.get("/ready")).status_code == 200


async def test_the_images_of_a_request_count_as_tokens_of_its_prompt(client: httpx.AsyncClient) -> None:
    counts = []
    for urls in ((), (RED,), (RED, BLUE)):
        answer = await client.post("/v1/chat/completions", json=chat(*urls))
        counts.append(answer.json()["usage"]["prompt_tokens"])
    tokens_of_red, tokens_of_blue = 3 * 2 + 2, 4 * 3 + 2  # a token for 16 x 16 pixels, and those around an image
    assert counts == [counts[0], counts[0] + tokens_of_red, counts[0] + tokens_of_red + tokens_of_blue]


@pytest.mark.deep
def test_a_trained_and_published_model_names_the_colour_of_an_uploaded_picture(tmp_path: Path) -> None:
    base = tinyvision.add_processor(tinyvision.make_model(tmp_path / "base", "qwen2_5_vl"), "qwen2_5_vl")
    rows = tinyvision.picture_rows(tmp_path / "pictures", 32)
    run = make_run(tmp_path / "run", base, rows, {"epochs": 24}, tuner="full")
    root = f"file://{tmp_path}/pictures"
    MediaFiles(root, frozenset(row["image_path"] for row in rows)).write(run.work.data / "files-00.json")
    run.work.write_data_files(
        [DataFile(path="00.jsonl", uri=f"{root}/train.jsonl", dataset=0, listing="files-00.json")]
    )
    run.do(train.run)
    [artifact] = run.do(export.run).artifacts
    work = tmp_path / "service"
    work.mkdir()
    (work / "model").symlink_to(artifact.uri.removeprefix("file://"))
    (work / "run.json").write_text(json.dumps(run_spec("InferenceService", "demo")))
    server = Server(work / "run.json", work).wait_ready()
    try:
        client = OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)
        for colour in tinyvision.COLOURS:
            messages: Any = chat(data_url(tinyvision.picture(colour, 48, 32, seed=999)))["messages"]
            answer = client.chat.completions.create(model="demo", messages=messages, temperature=0, max_tokens=8)
            assert answer.choices[0].message.content == colour
    finally:
        server.stop()
