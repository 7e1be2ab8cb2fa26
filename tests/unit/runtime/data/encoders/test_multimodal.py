"""Rows with images have the tokens that transformers makes of them, and labels at their answers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoProcessor

from tests import tinyvision
from tunesmith_api.failures import FailureClass
from tunesmith_api.training import Training
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.formats import FORMATS, read
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.media.pictures import read_picture
from tunesmith_runtime.multimodal.encoder import MediaEncoder
from tunesmith_runtime.multimodal.processor import MediaProcessor
from tunesmith_runtime.multimodal.sources import MediaSource

PICTURES = {"red.png": tinyvision.picture("red"), "wide.png": tinyvision.picture("blue", 64, 32)}
ASKED = {"role": "assistant", "content": "red"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    return tinyvision.add_processor(tinyvision.make_model(folder, "qwen2_5_vl"), "qwen2_5_vl")


@pytest.fixture(scope="module")
def own(base: Path) -> Any:
    """The processor of transformers."""
    return AutoProcessor.from_pretrained(base)


@pytest.fixture(scope="module")
def media(base: Path) -> MediaEncoder:
    return MediaEncoder(MediaProcessor.load(base), MediaSource(PICTURES.get))


def encoder_of(own: Any, media: MediaEncoder | None, **training: Any) -> Encoder:
    ends = frozenset([own.tokenizer.eos_token_id])
    return Encoder.of(own.tokenizer, ends, Training.model_validate({"maxLength": 256, **training}), media=media)


def encoded(own: Any, media: MediaEncoder, row: dict[str, Any]) -> list[Example]:
    found = encoder_of(own, media).encode(read(row, FORMATS["vqa"]))
    assert isinstance(found, list)
    return found


def learned(own: Any, example: Example) -> str:
    return str(own.tokenizer.decode([label for label in example.labels if label != IGNORED]))


def image(name: str) -> dict[str, Any]:
    return {"type": "image", "image": read_picture(PICTURES[name]).pixels}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def turns(*questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A conversation of questions with the answer red."""
    return [
        turn
        for question in questions
        for turn in ({"role": "user", "content": question}, {"role": "assistant", "content": [text("red")]})
    ]


@pytest.mark.parametrize(
    ("row", "messages", "names"),
    [
        (
            {"image_path": "red.png", "text": "what is it?", "answer": "red"},
            turns([image("red.png"), text("what is it?")]),
            ["red.png"],
        ),
        (
            {"images": ["red.png", "wide.png"], "text": "<image>one, <image>two: which?", "answer": "red"},
            turns([image("red.png"), text("one, "), image("wide.png"), text("two: which?")]),
            ["red.png", "wide.png"],
        ),
        (
            {
                "images": ["red.png", "wide.png"],
                "messages": [
                    {"role": "user", "content": "<image>?"}, ASKED, {"role": "user", "content": "and<image>?"}, ASKED,
                ],
            },
            turns([image("red.png"), text("?")], [text("and"), image("wide.png"), text("?")]),
            ["red.png", "wide.png"],
        ),
    ],
    ids=["one", "two", "two turns"],
)  # fmt: skip
def test_a_row_has_the_tokens_that_transformers_makes_of_it(
    own: Any, media: MediaEncoder, row: dict[str, Any], messages: list[dict[str, Any]], names: list[str]
) -> None:
    (example,) = encoded(own, media, row)
    expected = own.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"][0]
    assert example.input_ids == expected[: len(example.input_ids)]
    assert own.tokenizer.decode(expected[len(example.input_ids) :]).strip() == ""
    assert learned(own, example) == "red<|im_end|>" * (len(messages) // 2)
    assert example.media == names


@pytest.mark.parametrize("typed", ["<image>", "<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>"])
def test_a_typed_marker_is_plain_text_and_no_slot(own: Any, media: MediaEncoder, typed: str) -> None:
    def row(word: str) -> dict[str, Any]:
        parts = [text(f"what does {word} do?"), {"type": "image", "image": "red.png"}]
        return {"messages": [{"role": "user", "content": parts}, ASKED]}

    (harmless,), (example,) = (encoded(own, media, row(word)) for word in ("kiwi", typed))
    slot = own.image_token_id
    assert example.input_ids.count(slot) == harmless.input_ids.count(slot) > 0
    ends = [each.input_ids[each.input_ids.index(slot) :] for each in (harmless, example)]
    assert ends[0] == ends[1]
    assert f"what does {typed} do?" in own.tokenizer.decode(example.input_ids)


@pytest.mark.parametrize(("key", "answers"), [("messages", [ASKED]), ("prompt", [])])
def test_a_typed_marker_is_no_slot_in_a_row_of_text(
    own: Any, media: MediaEncoder, key: str, answers: list[dict[str, Any]]
) -> None:
    """Such rows share batches with rows of images, whose features would not be as many as the slots."""
    asked = "what does <|image_pad|> do?"
    row = {key: [{"role": "user", "content": asked}, *answers]}
    [example] = encoder_of(own, media).encode(read(row, FORMATS[key]))
    assert own.image_token_id not in example.input_ids
    assert asked in own.tokenizer.decode(example.input_ids)


def test_a_row_is_never_cut_as_a_cut_would_part_slots_from_features(own: Any, media: MediaEncoder) -> None:
    record = read({"image_path": "red.png", "text": "what is it?", "answer": "red"}, FORMATS["vqa"])
    for truncation in ("drop", "truncate", "left"):
        encoder = encoder_of(own, media, maxLength=20, truncation=truncation)
        assert encoder.encode(record) is DropReason.TOO_LONG


def test_a_caption_is_learned_after_its_picture_alone(own: Any, media: MediaEncoder) -> None:
    found = encoder_of(own, media).encode(read({"image": "red.png", "caption": "red"}, FORMATS["caption"]))
    assert isinstance(found, list)
    expected = own.apply_chat_template(turns([image("red.png")]), tokenize=True, return_dict=True)["input_ids"][0]
    assert found[0].input_ids == expected[: len(found[0].input_ids)]
    assert learned(own, found[0]) == "red<|im_end|>"


def test_a_box_is_written_in_the_pixels_that_the_model_sees(own: Any, media: MediaEncoder) -> None:
    row = {
        "images": [f"data:image/png;base64,{base64.b64encode(tinyvision.picture('red', 200, 100)).decode()}"],
        "messages": [{"role": "user", "content": "<image>where?"}, {"role": "assistant", "content": "<bbox>"}],
        "objects": {"bbox": [[100, 50, 200, 100]]},
    }
    (example,) = encoded(own, media, row)
    assert learned(own, example) == "[40, 16, 80, 32]<|im_end|>"  # of 80 x 32 pixels


def test_a_picture_that_is_not_there_is_a_bad_row(own: Any, media: MediaEncoder) -> None:
    with pytest.raises(RowError, match=r"names the picture none\.png, which does not exist"):
        encoded(own, media, {"image_path": "none.png", "text": "what is it?", "answer": "red"})


def test_sounds_and_videos_are_refused(own: Any, media: MediaEncoder) -> None:
    with pytest.raises(RowError, match="has audio media, which this version does not train on"):
        encoded(own, media, {"audios": ["a.wav"], "text": "what is it?", "answer": "red"})


def test_a_model_of_text_alone_refuses_images(own: Any) -> None:
    record = read({"image_path": "red.png", "text": "what is it?", "answer": "red"}, FORMATS["vqa"])
    with pytest.raises(RunFailure, match="the base model reads text alone") as failure:
        encoder_of(own, None).encode(record)
    assert failure.value.failure is FailureClass.BAD_SPEC
