"""A budget of pixels holds in training and wherever the published processor is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from PIL import Image
from transformers import AutoProcessor

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.answers.coordinates import Size
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.pixels import BY_PIXELS, BY_PIXELS_OF_FRAMES, PixelBudget, largest_budget
from tunesmith_runtime.multimodal.processor import MediaProcessor

SIZES = [(200, 100), (33, 65), (1000, 900), (16, 16), (50, 700)]
CLASSES = sorted(BY_PIXELS | BY_PIXELS_OF_FRAMES)


BOUNDS = {"shortest_edge": 56 * 56, "longest_edge": 1280 * 28 * 28}


def images_of(name: str, **settings: Any) -> Any:
    return getattr(transformers, f"{name}ImageProcessor")(**settings)


def bounded(name: str) -> Any:
    """The default of a class is that of the last one loaded from an older file, which transformers writes into it."""
    return images_of(name, size=dict(BOUNDS))


def pixels(images: Any, size: tuple[int, int]) -> int:
    """The pixels of an image of a size as the model receives it."""
    _, height, width = images([Image.new("RGB", size)], return_tensors="pt")["image_grid_thw"][0].tolist()
    return int(height * width * images.patch_size**2)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_the_table_keeps_the_budget(name: str) -> None:
    images, budget = images_of(name), PixelBudget(least=40_000, most=90_000)
    budget.set_in(images)
    assert 60_000 < pixels(images, (1000, 1000)) <= 90_000
    assert 40_000 <= pixels(images, (64, 64)) < 60_000
    assert 40_000 <= pixels(images, (250, 250)) <= 90_000


@pytest.mark.parametrize("budget", [PixelBudget(most=2048), PixelBudget(1024, 2048), PixelBudget(least=1024)], ids=str)
@pytest.mark.parametrize("layout", ["processor_config.json", "preprocessor_config.json"])
def test_the_published_processor_makes_the_grids_of_the_training(
    base: Path, tmp_path: Path, layout: str, budget: PixelBudget
) -> None:
    """Files of today hold the settings of images below a key, older ones have a file of their own, with the bounds by their old names."""
    model = shutil.copytree(base, tmp_path / "model")
    if layout == "preprocessor_config.json":
        config = json.loads((model / "processor_config.json").read_text())
        bounds = {"min_pixels": 256, "max_pixels": 4096}
        own = {key: value for key, value in config.pop("image_processor").items() if key != "size"} | bounds
        (model / layout).write_text(json.dumps(own))
        (model / "processor_config.json").write_text(json.dumps(config))
    training = MediaProcessor.load(model, budget=budget)
    published = shutil.copytree(model, tmp_path / "published")
    training.write_budget(published)
    trained, served = training.processor.image_processor, AutoProcessor.from_pretrained(published).image_processor
    assert [pixels(served, size) for size in SIZES] == [pixels(trained, size) for size in SIZES]
    before = AutoProcessor.from_pretrained(model).image_processor
    assert [pixels(served, size) for size in SIZES] != [pixels(before, size) for size in SIZES]
    assert {**served.to_dict(), "size": None} == {**before.to_dict(), "size": None}


def test_without_a_budget_no_file_changes(base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base, tmp_path / "copy")
    MediaProcessor.load(base).write_budget(copy)
    assert (copy / "processor_config.json").read_bytes() == (base / "processor_config.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("Siglip", {"size": {"height": 384, "width": 384}}, "resizes every image to 384 x 384 pixels"),
        ("CLIP", {}, "resizes every image to 224 x 224 pixels"),
        ("GotOcr2", {"crop_to_patches": True}, "resizes every image to tiles of 384 x 384 pixels"),
        ("Pixtral", {}, "has no budget of pixels"),
    ],
)
def test_a_processor_without_a_budget_is_refused_with_what_it_does(
    name: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RunFailure, match=rf"the base model's {name}ImageProcessor {sentence}") as failure:
        PixelBudget(most=40_000).set_in(images_of(name, **settings))
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert failure.value.hint == "remove spec.training.maxPixels and minPixels"


@pytest.mark.parametrize(
    ("budget", "hint", "followed"),
    [
        (PixelBudget(most=700), "set spec.training.maxPixels to 784 or more", PixelBudget(700, 784)),
        (PixelBudget(most=2000), "set spec.training.minPixels to 2000 or less", PixelBudget(2000, 2000)),
        (PixelBudget(2_000_000), "set spec.training.maxPixels to 2000000 or more", PixelBudget(2_000_000, 2_000_000)),
    ],
)
def test_a_budget_that_a_processor_cannot_keep_is_refused(
    budget: PixelBudget, hint: str, followed: PixelBudget
) -> None:
    with pytest.raises(RunFailure, match=r"training\.maxPixels, minPixels: ") as failure:
        budget.set_in(bounded("Qwen2VL"))
    assert failure.value.hint == hint
    followed.set_in(bounded("Qwen2VL"))


@pytest.mark.parametrize("name", ["Qwen2VL", "Glm4v"])
def test_the_largest_budget_is_the_last_with_which_images_fit(name: str) -> None:
    images, sizes = bounded(name), [Size(1000, 900), Size(300, 200)]
    budget = largest_budget(images, sizes, 500)
    assert budget

    def tokens(most: int) -> int:
        smaller = bounded(name)
        PixelBudget(most=most).set_in(smaller)
        return sum(pixels(smaller, (size.width, size.height)) for size in sizes) // 28**2

    assert tokens(budget) <= 500 < tokens(budget + 1)
    assert largest_budget(images, sizes, 1) is None
    assert largest_budget(images_of("Siglip"), sizes, 500) is None
