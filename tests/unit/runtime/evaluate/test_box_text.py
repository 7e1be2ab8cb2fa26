"""References of boxes are what a training on the same rows learns, at every size of the resized picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tinyvision
from tests.tinymodel import make_tokenizer
from tunesmith_runtime.answers.boxes import accuracy, read_boxes
from tunesmith_runtime.answers.coordinates import Size
from tunesmith_runtime.data.formats import FORMATS, read
from tunesmith_runtime.data.records import Box, MultimodalConversation
from tunesmith_runtime.evaluate.box_text import BoxText
from tunesmith_runtime.multimodal.encoder import MediaEncoder
from tunesmith_runtime.multimodal.processor import MediaProcessor
from tunesmith_runtime.multimodal.sources import MediaSource

BOX = [100, 40, 180, 90]
ROW = {"image_path": "a.png", "text": "where?", "answer": "<bbox>", "objects": {"bbox": [BOX]}}


def make_processor(folder: Path, most_pixels: int) -> Path:
    """A model's folder without weights. Its processor resizes to at most `most_pixels`."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tinyvision.IMAGE_TOKENS)})
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    tinyvision.add_processor(folder, "qwen2_5_vl")
    for file in ("processor_config.json", "preprocessor_config.json"):
        if (folder / file).exists():
            (folder / file).write_text((folder / file).read_text().replace(str(64 * 64), str(most_pixels)))
    return folder


@pytest.mark.parametrize("most_pixels", [64 * 64, 128 * 128])
def test_a_reference_is_the_text_that_is_learned(tmp_path: Path, most_pixels: int) -> None:
    folder, size = make_processor(tmp_path, most_pixels), Size(200, 100)
    source = MediaSource({"a.png": tinyvision.picture("red", size.width, size.height)}.get)
    record = read(ROW, FORMATS["vqa"])
    assert isinstance(record, MultimodalConversation)
    learned = MediaEncoder(MediaProcessor.load(folder), source).conversation(record, [size]).messages[-1]["content"]
    written = BoxText(folder).write(Box(tuple(BOX), is_relative=False), [size])
    assert written == learned
    assert written != str(BOX), "the picture is resized"
    assert accuracy(read_boxes(learned), read_boxes(written)) == 1.0
