"""The loss equals TRL's in value and gradient, and computes logits at labelled positions only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.losses.cross_entropy import answer_loss, fits, plain_loss


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Three rows of different lengths with labels at their ends."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 512, (3, 20), generator=generator)
    mask = torch.arange(20) < torch.tensor([[20], [13], [9]])
    answers = torch.arange(20) >= torch.tensor([[15], [10], [1]])
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": torch.where(mask & answers, ids, IGNORED)}


@pytest.fixture
def model(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny)


def gradients(model: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_loss_and_gradients_equal_those_over_all_logits(model: Any) -> None:
    inputs = batch()
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    whole = cross_entropy(logits[:, :-1].reshape(-1, 512), inputs["labels"][:, 1:].reshape(-1), ignore_index=IGNORED)
    expected = gradients(model, whole)
    lean = answer_loss(model, model.get_output_embeddings(), inputs)
    torch.testing.assert_close(lean, whole)
    torch.testing.assert_close(gradients(model, lean), expected)


def test_loss_and_gradients_equal_those_of_trl(model: Any) -> None:
    from trl.trainer.utils import add_fused_lm_head

    inputs = batch()
    lean = answer_loss(model, model.get_output_embeddings(), inputs, tokens=40)
    expected = gradients(model, lean)
    add_fused_lm_head(model)
    theirs = model(**inputs, fused_lm_head=True, num_items_in_batch=40).loss
    torch.testing.assert_close(lean, theirs)
    torch.testing.assert_close(gradients(model, theirs), expected)


def test_the_head_receives_labelled_positions_only(model: Any) -> None:
    shapes = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, logits: shapes.append(tuple(logits.shape)))
    inputs = batch()
    answer_loss(model, model.get_output_embeddings(), inputs)
    assert shapes == [(int((inputs["labels"][:, 1:] != IGNORED).sum()), 512)]


def test_rows_without_labels_have_no_loss_and_no_gradient(model: Any) -> None:
    inputs = batch()
    inputs["labels"][:] = IGNORED
    loss = answer_loss(model, model.get_output_embeddings(), inputs)
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in gradients(model, loss))


def test_trl_computes_the_loss_if_logits_are_too_large() -> None:
    labels = torch.zeros(8, 2048, dtype=torch.long)
    assert not fits(labels, 150_000)
    assert fits(labels[:, :100], 150_000)


WEIGHTED = {
    "answer": lambda model, inputs: answer_loss(model, model.get_output_embeddings(), inputs),
    "plain": plain_loss,
}


@pytest.mark.parametrize("loss", WEIGHTED.values(), ids=WEIGHTED)
def test_loss_and_gradients_of_weighted_tokens_equal_the_sum_written_out(model: Any, loss: Any) -> None:
    inputs = batch()
    weights = torch.tensor([[0.25], [1.0], [3.0]]).expand(3, 20)
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    total, count = torch.zeros(()), 0
    for row in range(3):
        for at in range(1, 20):
            if (label := int(inputs["labels"][row, at])) != IGNORED:
                total = total - float(weights[row, at]) * logits[row, at - 1].log_softmax(-1)[label]
                count += 1
    expected = gradients(model, total / count)
    found = loss(model, inputs={**inputs, "weights": weights})
    torch.testing.assert_close(found, total / count)
    torch.testing.assert_close(gradients(model, found), expected)


@pytest.mark.parametrize("loss", WEIGHTED.values(), ids=WEIGHTED)
def test_weights_of_one_change_nothing(model: Any, loss: Any) -> None:
    inputs = batch()
    expected = gradients(model, loss(model, inputs=inputs))
    torch.testing.assert_close(
        gradients(model, loss(model, inputs={**inputs, "weights": torch.ones(3, 20)})), expected, atol=1e-7, rtol=1e-5
    )
