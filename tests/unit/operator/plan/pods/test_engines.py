"""Engines of an installation."""

from __future__ import annotations

from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator
from tunesmith_operator.plan.config import Images
from tunesmith_operator.plan.pods.engines import image, installed, refusals

IMAGES = Images.model_validate({"runtime": "runtime:1", "engines": {"vllm": "vllm:1"}})


def test_an_engine_is_installed_if_it_has_an_image() -> None:
    assert installed(IMAGES) == [Engine.VLLM, Engine.TRANSFORMERS]
    assert (image(Engine.TRANSFORMERS, IMAGES), image(Engine.VLLM, IMAGES)) == ("runtime:1", "vllm:1")
    assert image(Engine.SGLANG, IMAGES) is None


def test_a_refusal_names_the_engines_that_can_be_used_instead() -> None:
    assert refusals(Engine.VLLM, Accelerator.NVIDIA, IMAGES) == []
    [wrong_accelerator] = refusals(Engine.VLLM, Accelerator.CPU, IMAGES)
    assert "(engines for cpu here: transformers)" in wrong_accelerator.hint
    [no_image] = refusals(Engine.SGLANG, Accelerator.NVIDIA, IMAGES)
    assert "set images.engines.sglang in the chart's values" in no_image.hint
    assert "(engines for nvidia here: vllm, transformers)" in no_image.hint
