"""Rows with images: those that are too long name the settings with which they fit, and conversions are counted."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoProcessor

from tests import tinyvision
from tests.unit.runtime.data.loading import dropped, given_files
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.answers.boxes import overlap, read_boxes
from tunesmith_runtime.answers.coordinates import Size, decode, family_of
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.load import Data, load
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.encoder import MediaEncoder
from tunesmith_runtime.multimodal.pixels import PixelBudget
from tunesmith_runtime.multimodal.processor import MediaProcessor
from tunesmith_runtime.multimodal.sources import MediaSource
from tunesmith_runtime.train.methods import METHODS
from tunesmith_runtime.workdir import Work

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
FOLDER = "s3://data/part-0"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("vision")
    made = {family: tinyvision.make_model(folder / family, family) for family in FAMILIES}
    return {family: tinyvision.add_processor(path, family) for family, path in made.items()}


def file_of(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    return file_of(image, "JPEG", exif=exif)


SQUARE = file_of(Image.new("RGB", (160, 160), "red"))
FILES = {
    "square.png": SQUARE,
    "wide.png": file_of(Image.new("RGB", (256, 128), "red")),
    "turned.jpg": turned(Image.new("RGB", (40, 20), "red")),
    "grey.png": file_of(Image.new("I;16", (32, 32), 30000)),
    "clear.png": file_of(Image.new("RGBA", (32, 32), (255, 0, 0, 0))),
}


def asked(name: str) -> dict[str, Any]:
    return {"image_path": name, "text": "what is it?", "answer": "red"}


def read(base: Path, work: Work, rows: list[dict[str, Any]], **training: Any) -> Data:
    """Load rows that name FILES, with the processor of a tiny model whose images have at most 400 tokens."""
    work.root.mkdir(exist_ok=True)
    given_files(work, (0, rows))
    made = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": f"{FOLDER}/train.jsonl"}], "training": training}
    job = FineTuneJobSpec.model_validate(made)
    most = job.training.max_pixels or 320 * 320
    processor = MediaProcessor.load(base, budget=PixelBudget(job.training.min_pixels, most))
    media = MediaEncoder(processor, MediaSource(lambda uri: FILES.get(uri.removeprefix(f"{FOLDER}/"))))
    tokenizer = AutoProcessor.from_pretrained(base).tokenizer
    encoder = Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training, media=media)
    return load(work, job, encoder, METHODS[job.method].learnable(job, work))


def test_rows_that_are_too_long_name_the_length_and_the_pixels_with_which_they_fit(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """A square of 160 x 160 pixels has 100 tokens, and is never cut."""
    base, rows = bases["qwen2_5_vl"], [asked("square.png")] * 2
    with pytest.raises(RunFailure, match=r"dropped 2 TooLong; rows have 122 to 122 tokens") as failure:
        read(base, Work(tmp_path / "short"), rows, maxLength=57, truncation="truncate")
    assert failure.value.failure is FailureClass.EMPTY_DATASET
    pixels = 6 * 6 * 16**2 - 1  # 25 tokens beside 22 of text; 36 are too many
    assert (
        failure.value.hint
        == f"set spec.training.maxLength to 122 or more, or spec.training.maxPixels to {pixels} or less"
    )
    assert read(base, Work(tmp_path / "long"), rows, maxLength=122).rows.kept == 2
    assert read(base, Work(tmp_path / "small"), rows, maxLength=57, maxPixels=pixels).rows.kept == 2
    with pytest.raises(RunFailure):
        read(base, Work(tmp_path / "larger"), rows, maxLength=57, maxPixels=pixels + 1)


def test_a_text_that_is_too_long_has_no_fitting_pixels(bases: dict[str, Path], work: Work) -> None:
    row = {**asked("square.png"), "text": "what is it? " * 30}
    with pytest.raises(RunFailure) as failure:
        read(bases["qwen2_5_vl"], work, [row], maxLength=60)
    assert "maxPixels" not in str(failure.value.hint)


def test_images_that_are_converted_are_counted_in_rows_that_are_kept(bases: dict[str, Path], work: Work) -> None:
    names = ("turned.jpg", "grey.png", "clear.png", "clear.png", "wide.png", "square.png")
    data = read(bases["qwen2_5_vl"], work, [asked(name) for name in names], maxLength=110)
    assert data.rows.to_dict()["converted"] == [
        {"conversion": "Flattened", "count": 2},
        {"conversion": "Scaled16Bit", "count": 1},
        {"conversion": "Turned", "count": 1},
    ]
    assert [each["reason"] for each in dropped(work)] == ["TooLong", "TooLong"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("pixels", "resized"), [(256 * 128, Size(256, 128)), (128 * 64, Size(128, 64))])
def test_a_perfect_box_scores_1_however_the_image_is_scaled(
    bases: dict[str, Path], work: Work, family: str, pixels: int, resized: Size
) -> None:
    """Qwen2.5-VL names pixels of the scaled image, and Qwen3-VL thousandths."""
    source, box = Size(256, 128), (128, 64, 160, 96)
    row = {
        "images": ["wide.png"],
        "messages": [{"role": "user", "content": "<image>where?"}, {"role": "assistant", "content": "<bbox>"}],
        "objects": {"bbox": [list(box)]},
    }
    base = bases[family]
    (example,) = read(base, work, [row], maxPixels=pixels).train
    tokenizer = AutoProcessor.from_pretrained(base).tokenizer
    answer = tokenizer.decode([label for label in example["labels"] if label != IGNORED])
    written = {"qwen2_5_vl": [each * resized.width // 256 for each in box], "qwen3_vl": [500, 500, 625, 750]}
    assert answer == f"{written[family]}<|im_end|>"
    span = family_of(family).convention.span(resized)
    (found,) = read_boxes(answer)
    assert overlap([decode(found, source, span)], [box]) == 1.0  # type: ignore[list-item]
