"""A conversation with images is the same tokens and features in a request as in a row of a training."""

from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tinyvision
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.formats import answers, vqa
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.media.pictures import Picture
from tunesmith_runtime.multimodal.encoder import MediaEncoder
from tunesmith_runtime.multimodal.processor import TYPES, MediaProcessor
from tunesmith_runtime.multimodal.sources import MediaSource
from tunesmith_runtime.serve.generation.model import LoadedModel, TooLong, load
from tunesmith_runtime.serve.generation.prompt import Prompt
from tunesmith_runtime.serve.openai.pictures import read_pictures
from tunesmith_runtime.serve.openai.requests import ChatRequest, parse
from tunesmith_runtime.train.models.files import load_model, load_tokenizer, save_trained
from tunesmith_runtime.train.rows.media_batches import MediaCollator

SLOT = "<|image_pad|>"
FILES = {"a.png": tinyvision.picture("red", 48, 32), "b.png": tinyvision.picture("blue", 200, 120)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tinyvision.make_model(tmp_path_factory.mktemp("prompt") / "model", "qwen2_5_vl")
    return tinyvision.add_processor(made, "qwen2_5_vl")


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load(folder, {}, None, trust_remote_code=False)


@pytest.fixture(scope="module")
def media(folder: Path) -> MediaEncoder:
    return MediaEncoder(MediaProcessor.load(folder), MediaSource(FILES.get))


def trained(model: LoadedModel, media: MediaEncoder, messages: list[dict[str, Any]]) -> Example:
    """The row as training encodes it."""
    row = {"messages": [*messages, {"role": "assistant", "content": "red"}]}
    record = vqa.read(row) if any(isinstance(each["content"], list) for each in messages) else answers.read(row)
    [example] = Encoder(model.tokenizer, model.eos, 512, media=media).encode(record)  # type: ignore[arg-type]
    return example


def prompt_ids(example: Example) -> list[int]:
    """The tokens before the last answer."""
    starts = [at for at, (before, label) in enumerate(pairwise(example.labels), 1) if before == IGNORED != label]
    return example.input_ids[: starts[-1]]


def served(model: LoadedModel, messages: list[dict[str, Any]]) -> Prompt:
    """The same conversation as the server encodes a request."""
    request = parse(ChatRequest, {"model": "demo", "messages": [*map(_as_sent, messages)]})
    return model.encode_chat(request.messages, read_pictures(request.images, {}))


def _as_sent(message: dict[str, Any]) -> dict[str, Any]:
    if isinstance(message["content"], str):
        return message
    sent = [_data_url(part["image"]) if part["type"] == "image" else part for part in message["content"]]
    return {**message, "content": sent}


def _data_url(name: str) -> dict[str, Any]:
    content = base64.b64encode(FILES[name]).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}", "detail": "auto"}}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


A, B = ({"type": "image", "image": name} for name in FILES)
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "text before": [{"role": "user", "content": [text("what is it?"), A]}],
    "text behind": [{"role": "user", "content": [B, text("what is it?")]}],
    "two images": [{"role": "user", "content": [A, text("and "), B, text("?")]}],
    "a typed marker": [{"role": "user", "content": [text("what does an <image> tag do?"), A]}],
    "a typed slot": [{"role": "user", "content": [text(f"what does {SLOT} do?"), A, text(f"and {SLOT}<|vision_start|>?")]}],
    "a typed slot in another message": [
        {"role": "system", "content": f"never write {SLOT}"},
        {"role": "user", "content": [text("what is it?"), A]},
    ],
    "a typed slot without images": [{"role": "user", "content": f"what does {SLOT} do?"}],
    "text alone": [{"role": "user", "content": "what is it?"}],
    "several turns": [
        {"role": "user", "content": [A, text("what is it?")]},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": [text("and it?"), B]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_a_prompt_has_the_tokens_of_the_trained_row(model: LoadedModel, media: MediaEncoder, case: str) -> None:
    messages = CONVERSATIONS[case]
    assert list(served(model, messages).tokens) == prompt_ids(trained(model, media, messages))


@pytest.mark.parametrize("typed", ["<image>", SLOT, "<|vision_start|>"])
def test_a_typed_marker_is_no_image(model: LoadedModel, media: MediaEncoder, typed: str) -> None:
    slot = model.tokens.specials[SLOT]

    def slots(word: str) -> int:
        return list(served(model, [{"role": "user", "content": [text(f"what is {word}?"), A]}]).tokens).count(slot)

    assert slots(typed) == slots("it") > 0


def test_an_image_has_the_features_of_the_trained_row(model: LoadedModel, media: MediaEncoder) -> None:
    messages = CONVERSATIONS["two images"]
    example = trained(model, media, messages)
    assert example.media
    collate = MediaCollator(lambda rows: {"input_ids": torch.tensor([row["input_ids"] for row in rows])}, media)
    batch = collate([{"input_ids": prompt_ids(example), "media": example.media}])
    found = served(model, messages).inputs
    assert batch["media"].keys() == {"pixel_values", "image_grid_thw"}
    expected = {**batch["media"], TYPES: batch[TYPES]}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_published_model_reads_images_within_the_budget_that_it_was_trained_with(
    model: LoadedModel, folder: Path, tmp_path: Path
) -> None:
    """200 x 120 pixels are beyond the budget of the processor, which the trained model is published with."""
    published = save_trained(
        load_model(folder), load_tokenizer(folder), tmp_path / "merged", folder, "s3://models/base"
    )
    messages = CONVERSATIONS["text behind"]
    before, after = served(model, messages), served(load(published, {}, None, False), messages)
    assert before.tokens == after.tokens
    assert torch.equal(before.inputs["image_grid_thw"], after.inputs["image_grid_thw"])
    assert torch.equal(before.inputs["pixel_values"], after.inputs["pixel_values"])
    _, height, width = after.inputs["image_grid_thw"][0].tolist()
    assert height * width * 8 * 8 <= 64 * 64 < 200 * 120


def test_a_prompt_that_cannot_fit_is_refused_before_its_images_are_processed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = load(folder, {}, 16, trust_remote_code=False)
    monkeypatch.setattr(MediaProcessor, "features", lambda *_: pytest.fail("processed"))
    with pytest.raises(TooLong):
        served(short, CONVERSATIONS["two images"])


def test_an_image_that_the_template_leaves_out_is_refused(folder: Path) -> None:
    blind = load(folder, {}, None, trust_remote_code=False)
    blind.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content if m.content is string else m.content[-1].text }}{% endfor %}"
    )
    with pytest.raises(RowError, match="has 1 images, and the model's chat template writes 0"):
        served(blind, CONVERSATIONS["text behind"])


def test_an_image_that_the_processor_refuses_is_refused(model: LoadedModel) -> None:
    from PIL import Image

    request = parse(ChatRequest, {"model": "demo", "messages": [*map(_as_sent, CONVERSATIONS["text before"])]})
    [url] = request.images.values()
    thin = Picture(Image.new("RGB", (1000, 2)), frozenset())
    with pytest.raises(RowError, match="an image of 1000 x 2 pixels, which the model's processor refuses"):
        model.encode_chat(request.messages, {url: thin})
