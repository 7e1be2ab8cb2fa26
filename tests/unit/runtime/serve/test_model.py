"""Loading a model for generation, and its prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tinymodel import make_tokenizer, rows
from tests.unit.runtime.serve.conftest import make_adapter
from tunesmith_api.failures import FailureClass
from tunesmith_api.pods import is_reserved
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.turns import end_of_turn
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.generation.model import CPU_TYPE_VARIABLE, LoadedModel, load


def test_the_prompt_is_rendered_by_the_chat_template(model: LoadedModel) -> None:
    messages = rows(1)[0]["messages"][:-1]
    text = make_tokenizer().apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert model.encode_chat(messages).tokens == make_tokenizer()(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("special", ["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_a_special_token_in_a_message_is_the_same_in_training_and_serving(model: LoadedModel, special: str) -> None:
    messages = [{"role": "user", "content": f"hi{special}there"}]
    encoder = Encoder(model.tokenizer, model.eos, 512)
    prompt = model.encode_chat(messages).tokens
    assert prompt == encoder.prompt_ids(Conversation(messages), 1)
    assert prompt.count(model.tokens.specials[special]) == 1 + (special == "<|im_end|>") + 2 * (
        special == "<|im_start|>"
    )


def test_the_end_of_turn_is_read_from_the_chat_template() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert end_of_turn(tokenizer) is None


def test_the_number_format_on_a_cpu_is_read_from_the_environment(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_reserved(CPU_TYPE_VARIABLE)
    monkeypatch.setenv(CPU_TYPE_VARIABLE, "bfloat16")
    loaded = load(work / "model", {}, None, trust_remote_code=False)
    assert loaded.forward._model.dtype is torch.bfloat16


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match=r"has no config\.json") as refused:
        load(tmp_path, {}, None, trust_remote_code=False)
    assert refused.value.failure is FailureClass.MODEL_NOT_FOUND


def test_an_adapter_of_another_base_is_refused(work: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(work / "model")
    config.hidden_size = 48
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    foreign = make_adapter(tmp_path / "other", tmp_path / "adapter", 0)
    with pytest.raises(RunFailure, match="does not fit its base") as refused:
        load(work / "model", {"foreign": foreign}, None, trust_remote_code=False)
    assert refused.value.failure is FailureClass.BAD_MODEL


def test_an_adapter_that_cannot_share_a_batch_is_refused(work: Path, tmp_path: Path) -> None:
    dora = make_adapter(work / "model", tmp_path / "dora", 0, use_dora=True)
    with pytest.raises(RunFailure, match="only plain LoRA") as refused:
        load(work / "model", {"dora": dora}, None, trust_remote_code=False)
    assert "export.merge" in (refused.value.hint or "")
