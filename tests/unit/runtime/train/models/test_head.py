"""The head of a model: it reads the last token of a row, whatever pads it, and so does plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests import tinymodel
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.tasks import REWARD
from tunesmith_runtime.train.models.files import load_model
from tunesmith_runtime.train.models.head import config_with_head, find_head, head_logits, set_padding
from tunesmith_runtime.train.rewards import Completion
from tunesmith_runtime.train.rewards.reward_model import load_reward_model

END = "<|im_end|>"
SHORT = [{"role": "user", "content": "A metal?"}, {"role": "assistant", "content": "iron"}]
LONG = [
    {"role": "user", "content": "What is a kiwi? (17)"}, {"role": "assistant", "content": "fruit"},
    {"role": "user", "content": "What is a saw? (18)"}, {"role": "assistant", "content": "tool"},
]  # fmt: skip
OTHER = [*LONG[:-1], {"role": "assistant", "content": "metal"}]
"""As LONG but for the last answer."""
TEMPLATES = {
    "that ends with a line break": tinymodel.CHAT_TEMPLATE,
    "that ends with the end token": tinymodel.CHAT_TEMPLATE.replace("<|im_end|>\n", "<|im_end|>"),
}


@pytest.fixture(params=TEMPLATES.values(), ids=TEMPLATES)
def scorer(request: pytest.FixtureRequest, tiny: Path, tmp_path: Path) -> Path:
    """A reward model with a random head, of a base that pads with its end token, which its template writes after every turn."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.pad_token, tokenizer.chat_template = END, request.param
    set_padding(tokenizer, {tokenizer.eos_token_id})
    torch.manual_seed(0)
    config = config_with_head(tiny, tokenizer, {"num_labels": 1})
    model = load_model(tiny, task=REWARD, config=config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "scorer")
    tokenizer.save_pretrained(tmp_path / "scorer")
    return tmp_path / "scorer"


def ids_of(tokenizer: Any, chat: list[dict[str, str]]) -> list[int]:
    return list(tokenizer(tokenizer.apply_chat_template(chat, tokenize=False))["input_ids"])


def batch(rows: list[list[int]], side: str, token: int) -> dict[str, Tensor]:
    """Rows padded on a side with a token."""
    longest = max(map(len, rows))
    padding = [[token] * (longest - len(row)) for row in rows]
    mask = [
        [0] * len(pad) + [1] * len(row) if side == "left" else [1] * len(row) + [0] * len(pad)
        for row, pad in zip(rows, padding, strict=True)
    ]
    ids = [pad + row if side == "left" else row + pad for row, pad in zip(rows, padding, strict=True)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pads_with_end", [True, False])
def test_a_chat_has_the_same_score_alone_and_padded(scorer: Path, side: str, pads_with_end: bool) -> None:
    model = load_model(scorer, task=REWARD, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(scorer)
    rows = [ids_of(tokenizer, chat) for chat in (SHORT, LONG, OTHER)]
    token = tokenizer.eos_token_id if pads_with_end else tokenizer.pad_token_id
    head = find_head(model, REWARD)
    with torch.no_grad():
        together = head_logits(model, head, batch(rows, side, token))
        alone = torch.cat([head_logits(model, head, batch([row], side, token)) for row in rows])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert abs(float(alone[1] - alone[2])) > 1e-3


def test_plain_transformers_reads_the_same_token(scorer: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(scorer).eval()
    tokenizer = AutoTokenizer.from_pretrained(scorer)
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in (SHORT, LONG, OTHER)]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    found = load_reward_model(scorer).score(rows)
    with torch.no_grad():
        plain = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
    torch.testing.assert_close(plain, found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_completion_is_read_as_the_template_of_the_reward_model_writes_it(scorer: Path, is_finished: bool) -> None:
    """Whatever the tokens of the policy; what was cut off has no end."""
    scorers = load_reward_model(scorer)
    completion = Completion("tool", 9, 9, Prompt(LONG[:-1]), is_finished)
    whole = ids_of(scorers.tokenizer, LONG)
    end = scorers.tokenizer.eos_token_id
    cut = whole[: len(whole) - whole[::-1].index(end) - 1]
    assert scorers.tokens_of(completion) == (whole if is_finished else cut)
    assert scorers.rate([completion]) == pytest.approx(
        scorers.score([whole if is_finished else cut]).tolist(), abs=1e-6
    )


def test_plain_text_is_read_without_a_template(scorer: Path) -> None:
    scorers = load_reward_model(scorer)
    ids = scorers.tokenizer("A metal? iron")["input_ids"]
    cut, ended = (Completion(" iron", 2, 9, Prompt("A metal?"), is_finished) for is_finished in (False, True))
    assert scorers.tokens_of(cut) == ids
    assert scorers.tokens_of(ended) == [*ids, scorers.tokenizer.eos_token_id]


def test_a_conversation_that_the_reward_model_cannot_read_is_refused(scorer: Path) -> None:
    scorers = load_reward_model(scorer, "taste")
    completion = Completion("tool", 9, 9, Prompt(LONG[:-1]))
    refusals = {
        "{{ raise_exception('no tools') }}": "a conversation is refused by the chat template of the reward model: .*no tools",
        None: "its tokenizer has no chat template, and the prompts are messages",
    }
    for template, message in refusals.items():
        scorers.tokenizer.chat_template = template
        with pytest.raises(RunFailure, match=message) as failure:
            scorers.rate([completion])
        assert failure.value.failure is FailureClass.BAD_SPEC


def test_a_conversation_beyond_the_positions_of_the_reward_model_is_refused(scorer: Path) -> None:
    completion = Completion("tool " * 600, 9, 9, Prompt(LONG[:-1]))
    with pytest.raises(RunFailure, match=r"has [0-9]+ tokens, and the model 512 positions"):
        load_reward_model(scorer).rate([completion])


def test_scores_come_in_the_order_of_the_completions(scorer: Path) -> None:
    scorers = load_reward_model(scorer)
    rows = [ids_of(scorers.tokenizer, chat) for chat in (LONG, SHORT, OTHER)]
    alone = torch.cat([scorers.score([row]) for row in rows])
    torch.testing.assert_close(scorers.score(rows, batch_size=2), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("pad", "expected"), [("<|endoftext|>", "<|endoftext|>"), (END, "<|endoftext|>"), (None, "<|endoftext|>")]
)
def test_a_row_is_never_padded_with_a_token_that_ends_answers(pad: str | None, expected: str, tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.pad_token = pad
    set_padding(tokenizer, {tokenizer.eos_token_id})
    assert (tokenizer.pad_token, tokenizer.padding_side) == (expected, "right")


def test_a_vocabulary_whose_special_tokens_all_end_answers_pads_with_its_last_token(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    set_padding(tokenizer, {tokenizer.convert_tokens_to_ids(each) for each in tinymodel.SPECIAL_TOKENS})
    assert tokenizer.pad_token_id == len(tokenizer) - 1
