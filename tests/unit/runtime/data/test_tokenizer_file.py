"""The tokenizer without transformers gives the tokens and texts that transformers' gives."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests import tinymodel
from tunesmith_runtime.data.tokenizer_file import TokenizerFile

MESSAGES = [{"role": "user", "content": "What is tin?"}, {"role": "assistant", "content": "metal"}]


@cache
def folder() -> Path:
    import tempfile

    made = Path(tempfile.mkdtemp(prefix="tokenizer-"))
    tinymodel.make_tokenizer().save_pretrained(made)
    return made


@cache
def both() -> tuple[Any, TokenizerFile]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder()), TokenizerFile(folder())


@given(text=some.text(max_size=200))
def test_texts_have_the_same_tokens(text: str) -> None:
    theirs, ours = both()
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    assert ours(text, add_special_tokens=False)["input_ids"] == ids
    assert ours.decode(ids) == theirs.decode(ids)


def test_conversations_are_written_alike() -> None:
    theirs, ours = both()
    for count, prompt in ((1, True), (2, False)):
        rendered = theirs.apply_chat_template(MESSAGES[:count], tokenize=False, add_generation_prompt=prompt)
        assert ours.apply_chat_template(MESSAGES[:count], add_generation_prompt=prompt) == rendered


def test_special_tokens_are_the_same() -> None:
    theirs, ours = both()
    assert ours.eos_token_id == theirs.eos_token_id
    assert ours.bos_token_id == theirs.bos_token_id
    assert set(ours.all_special_ids) >= set(theirs.all_special_ids)
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    assert ours.convert_ids_to_tokens(300) == theirs.convert_ids_to_tokens(300)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m | tojson }}{% endfor %}",
        "{{ bos_token or '' }}{{ eos_token }}{{ messages[0]['content'] | trim }}",
        "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}x",
    ],
)
def test_templates_with_what_transformers_adds_to_jinja_are_written_alike(tmp_path: Path, template: str) -> None:
    theirs, _ = both()
    shutil.copytree(folder(), tmp_path / "t")
    (tmp_path / "t" / "chat_template.jinja").write_text(template)
    tools = [{"type": "function", "function": {"name": "f<>", "parameters": {}}}]
    rendered = theirs.apply_chat_template(MESSAGES, chat_template=template, tools=tools, tokenize=False)
    assert TokenizerFile(tmp_path / "t").apply_chat_template(MESSAGES, tools=tools) == rendered


def test_of_several_templates_in_the_config_the_default_is_used(tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "t")
    (tmp_path / "t" / "chat_template.jinja").unlink()
    named = [{"name": "rag", "template": "b"}, {"name": "default", "template": "a"}]
    (tmp_path / "t" / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert TokenizerFile(tmp_path / "t").chat_template == "a"


def test_a_folder_without_tokenizer_json_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json is missing"):
        TokenizerFile(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: "):
        TokenizerFile(tmp_path)
