"""What a processor writes for an image follows from its size, and its tensors are those of transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from tests import tinyvision
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.answers.coordinates import Size
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal import processor as processor_module
from tunesmith_runtime.multimodal.processor import MediaProcessor, packages_of, reads_images

RED, WIDE = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (100, 50), "blue")


@pytest.fixture(scope="module")
def processor(base: Path) -> MediaProcessor:
    return MediaProcessor.load(base)


@pytest.mark.parametrize("image", [RED, WIDE])
def test_the_text_of_an_image_is_what_transformers_writes(
    processor: MediaProcessor, base: Path, image: Image.Image
) -> None:
    own = AutoProcessor.from_pretrained(base)
    message = [{"role": "user", "content": [{"type": "image", "image": image}]}]
    expected = own.apply_chat_template(message, tokenize=True, return_dict=True)["input_ids"][0]
    written = processor.written(Size(*image.size))
    assert expected.count(own.image_token_id) == written.text.count(own.image_token) > 1


def test_a_box_is_read_in_the_pixels_that_the_model_sees(processor: MediaProcessor) -> None:
    assert processor.written(Size(32, 32)).resized == Size(32, 32)
    assert processor.written(Size(1000, 500)).resized == Size(80, 32)  # whole patches within 64 x 64 pixels


def test_a_size_that_the_processor_refuses_is_a_fault_of_its_row(processor: MediaProcessor) -> None:
    with pytest.raises(
        RowError, match="has an image of 1000 x 2 pixels, which the model's processor refuses"
    ) as refused:
        processor.written(Size(1000, 2))
    assert refused.value.hint


def test_few_sizes_are_kept(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of a server's images are chosen by its clients."""
    monkeypatch.setattr(processor_module, "SIZES", 2)
    bounded, measured = MediaProcessor.load(base), []
    measure = MediaProcessor._measured
    monkeypatch.setattr(MediaProcessor, "_measured", lambda self, size: measured.append(size) or measure(self, size))
    small, wide, tall = Size(32, 32), Size(64, 32), Size(32, 64)
    for size in (small, small, wide, tall, small):
        assert bounded.written(size) == measure(bounded, size)
    assert measured == [small, wide, tall, small]


def test_the_features_of_a_batch_are_those_of_its_rows_in_their_order(processor: MediaProcessor) -> None:
    batch = processor.features([[RED], [], [WIDE, RED]])
    alone = [processor.features([[image]]) for image in (RED, WIDE, RED)]
    for name in ("pixel_values", "image_grid_thw"):
        parts = [each[name] for each in alone]
        assert batch[name].equal(parts[0].new_empty(0).new_tensor([row for part in parts for row in part.tolist()]))
    assert processor.features([[], []]) == {}


def test_tokens_of_images_have_a_type_of_their_own(processor: MediaProcessor) -> None:
    (slot,) = processor.processor.image_token_ids
    types = processor.token_types(torch.tensor([[[5, slot, slot, 6]]]))
    assert types is not None
    assert types.tolist() == [[[0, 1, 1, 0]]]


def test_a_model_without_a_processor_reads_text_alone(base: Path, tmp_path: Path) -> None:
    assert reads_images(base)
    assert packages_of(base) == {"torchvision"}
    bare = tinyvision.make_model(tmp_path, "qwen2_5_vl")
    assert not reads_images(bare)
    assert packages_of(bare) == frozenset()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "the processor of its images cannot be loaded"),
        ('{"processor_class": "None"}', "does not name the token of an image"),
    ],
)
def test_a_processor_that_cannot_be_used_is_refused(base: Path, tmp_path: Path, content: str, sentence: str) -> None:
    broken = shutil.copytree(base, tmp_path / "broken")
    (broken / "processor_config.json").write_text(content)
    with pytest.raises(RunFailure, match=sentence) as failure:
        MediaProcessor.load(broken)
    assert failure.value.failure is FailureClass.BAD_MODEL
