"""Stop tokens from a model's folder, and what is saved in one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import GenerationConfig

from tests import tinymodel
from tunesmith_api.failures import FailureClass
from tunesmith_api.training import Training
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.generation.model import end_tokens
from tunesmith_runtime.train.models.files import check_whole, stop_ids

NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
REFUSES = "{{ raise_exception('roles must alternate') }}"


@pytest.mark.parametrize("template", [tinymodel.CHAT_TEMPLATE, NO_END, None])
@pytest.mark.parametrize("configured", [None, 7, [7, 8]])
def test_training_and_serving_use_the_same_stop_tokens(
    tmp_path: Path, template: str | None, configured: int | list[int] | None
) -> None:
    tokenizer = tinymodel.make_tokenizer()
    tokenizer.eos_token, tokenizer.chat_template = "<|endoftext|>", template
    generation = GenerationConfig(eos_token_id=configured)
    generation.save_pretrained(tmp_path)
    assert stop_ids(tmp_path, tokenizer) == end_tokens(SimpleNamespace(generation_config=generation), tokenizer)


def test_nothing_is_learned_after_the_end_of_turn(tmp_path: Path) -> None:
    """For the tokenizer of a base model, whose EOS differs from the end of turn in its chat template."""
    tokenizer = tinymodel.make_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    encoder = Encoder.of(tokenizer, stop_ids(tmp_path, tokenizer), Training())
    row = [{"role": "user", "content": "What is a kiwi?"}, {"role": "assistant", "content": "fruit"}]
    made = encoder.encode(Conversation(row))
    assert isinstance(made, list)
    example: Example = made[0]
    learned = [label for label in example.labels if label != IGNORED]
    assert tokenizer.decode(learned) == "fruit<|im_end|>"


def test_a_template_that_refuses_a_plain_turn_adds_no_stop_token(tmp_path: Path) -> None:
    tokenizer = tinymodel.make_tokenizer()
    tokenizer.chat_template = REFUSES
    assert stop_ids(tmp_path, tokenizer) == {tokenizer.eos_token_id}


def test_an_empty_tensor_is_not_published(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a.weight": torch.ones(2, 3), "b.weight": torch.ones(0)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(
        RunFailure, match=r"adapter_model\.safetensors: the tensor b\.weight has no elements"
    ) as refused:
        check_whole(tmp_path)
    assert refused.value.failure is FailureClass.PROCESS_ERROR
