"""The engine transformers answers by multimodal models as transformers itself does, on text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from tests import tinyvision
from tests.unit.runtime.serve.test_loop import Asked
from tunesmith_runtime.serve.generation.loop import Loop
from tunesmith_runtime.serve.generation.model import load
from tunesmith_runtime.train.models.files import load_model

QUICK = ("qwen3_vl", "gemma3")


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
