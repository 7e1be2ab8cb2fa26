"""The engine transformers answers by multimodal models as transformers itself does, on text and on images."""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests import tinyvision
from tests.unit.runtime.serve.conftest import make_adapter
from tests.unit.runtime.serve.test_loop import Asked
from tunesmith_runtime.data.records import Media, MediaKind
from tunesmith_runtime.media.pictures import read_picture
from tunesmith_runtime.serve.generation import loop as loop_module
from tunesmith_runtime.serve.generation.loop import Loop, QueueFull
from tunesmith_runtime.serve.generation.model import LoadedModel, load
from tunesmith_runtime.serve.generation.prompt import Prompt
from tunesmith_runtime.train.models.files import load_model

QUICK = ("qwen3_vl", "gemma3")
SIZES = {"red": (48, 32), "blue": (96, 16), "green": (32, 64), "yellow": (30, 30)}


@pytest.mark.parametrize(
    "family", [pytest.param(each, marks=() if each in QUICK else pytest.mark.deep) for each in tinyvision.FAMILIES]
)
def test_rows_of_a_batch_have_the_answers_of_transformers(tmp_path: Path, family: str) -> None:
    folder, choose = tinyvision.make_model(tmp_path / "model", family), random.Random(7)
    served, plain = load(folder, {}, None, False), load_model(folder)
    prompts = [[choose.randrange(20, 450) for _ in range(choose.randrange(2, 30))] for _ in range(4)]
    asked = [Asked(prompt, 16) for prompt in prompts]
    loop = Loop(served.forward, served.decode, served.eos)
    loop.start()
    loop.submit([each.row for each in asked])
    for prompt, each in zip(prompts, asked, strict=True):
        ids = torch.tensor([prompt])
        expected = plain.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
        )
        assert each.tokens() == expected[0, len(prompt) :].tolist()
    loop.close()


def image(colour: str) -> bytes:
    return tinyvision.picture(colour, *SIZES[colour])


def question(colours: tuple[str, ...], text: str = "what is it?") -> list[dict[str, Any]]:
    """A question about pictures of these colours, which are their own URLs."""
    return [{"role": "user", "content": [*(Media(MediaKind.IMAGE, (each,)) for each in colours), text]}]


PICTURES = {colour: read_picture(image(colour)) for colour in SIZES}
QUESTIONS = [
    question(("red",)),
    question(("blue", "green")),
    question(()),
    question(("yellow", "red", "red"), "and now?"),
]


def prompt_of(served: LoadedModel, messages: list[dict[str, Any]]) -> Prompt:
    return served.encode_chat(messages, PICTURES)


def expected_of(model: Any, processor: Any, messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """The tokens of the prompt and of the answer by transformers' own processor and generate."""
    opened = [
        {"type": "image", "image": Image.open(BytesIO(image(part.sources[0])))}
        if isinstance(part, Media)
        else {"type": "text", "text": part}
        for part in messages[0]["content"]
    ]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": opened}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    made = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    length = inputs["input_ids"].shape[1]
    return made[0, :length].tolist(), made[0, length:].tolist()


@pytest.mark.parametrize(
    "family",
    [pytest.param(each, marks=() if each == "qwen3_vl" else pytest.mark.deep) for each in tinyvision.PROCESSORS],
)
def test_rows_with_images_have_the_answers_of_transformers_alone_and_beside_others(tmp_path: Path, family: str) -> None:
    from transformers import AutoProcessor

    folder = tinyvision.add_processor(tinyvision.make_model(tmp_path / "model", family), family)
    served, plain = load(folder, {}, None, False), load_model(folder)
    processor = AutoProcessor.from_pretrained(folder)
    prompts = [prompt_of(served, messages) for messages in QUESTIONS]
    expected = [expected_of(plain, processor, messages) for messages in QUESTIONS]
    loop = Loop(served.forward, served.decode, served.eos)
    loop.start()
    for prompt, (tokens, answer) in zip(prompts, expected, strict=True):
        assert list(prompt.tokens) == tokens
        alone = Asked(prompt.tokens, 16, inputs=prompt.inputs)
        loop.submit([alone.row])
        assert alone.tokens() == answer
    together = [Asked(prompt.tokens, 16, inputs=prompt.inputs) for prompt in prompts]
    for asked in together:
        loop.submit([asked.row])
    assert [asked.tokens() for asked in together] == [answer for _, answer in expected]
    loop.close()
    assert len({tuple(answer) for _, answer in expected}) > 1


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model and an adapter of all its linear layers, those of the vision tower too."""
    folder = tmp_path_factory.mktemp("adapted")
    model = tinyvision.add_processor(tinyvision.make_model(folder / "model", "qwen2_5_vl"), "qwen2_5_vl")
    adapter = make_adapter(model, folder / "adapter", 0)
    return load(model, {"fr": adapter}, None, False)


def test_an_adapter_of_the_vision_tower_reads_images_beside_its_base(adapted: LoadedModel) -> None:
    from transformers import AutoProcessor

    folder = Path(adapted.tokenizer.name_or_path)
    merged = load_model(folder)
    processor = AutoProcessor.from_pretrained(folder)
    base = expected_of(merged, processor, QUESTIONS[0])[1]
    from peft import PeftModel

    merged = PeftModel.from_pretrained(merged, folder.parent / "adapter").merge_and_unload()
    tuned = expected_of(merged, processor, QUESTIONS[0])[1]
    assert base != tuned
    prompt = prompt_of(adapted, QUESTIONS[0])
    loop = Loop(adapted.forward, adapted.decode, adapted.eos)
    loop.start()
    asked = [Asked(prompt.tokens, 16, adapter, inputs=prompt.inputs) for adapter in ("fr", None, "fr")]
    loop.submit([each.row for each in asked])
    assert [each.tokens() for each in asked] == [tuned, base, tuned]
    loop.close()


def test_features_are_freed_once_the_prompt_is_read(adapted: LoadedModel) -> None:
    prompt = prompt_of(adapted, QUESTIONS[0])
    asked = Asked(prompt.tokens, 1, inputs=prompt.inputs)
    assert asked.row.inputs_bytes > 0
    loop = Loop(adapted.forward, adapted.decode, adapted.eos)
    loop.start()
    loop.submit([asked.row])
    asked.tokens()
    assert asked.row.inputs_bytes == 0
    loop.close()


def test_images_do_not_fill_the_memory_while_they_wait(adapted: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = prompt_of(adapted, QUESTIONS[0])
    waiting, further = (Asked(prompt.tokens, 1, inputs=prompt.inputs) for _ in range(2))
    loop = Loop(adapted.forward, adapted.decode, adapted.eos)
    monkeypatch.setattr(loop_module, "MAX_WAITING_BYTES", waiting.row.inputs_bytes - 1)
    loop.submit([waiting.row])
    with pytest.raises(QueueFull):
        loop.submit([further.row])
    text = Asked([5, 6], 1)
    loop.submit([text.row])
    loop.start()
    assert len(text.tokens()) == len(waiting.tokens()) == 1
    loop.close()
