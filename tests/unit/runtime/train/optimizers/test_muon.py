"""Muon: matrices take orthogonal steps, and all other weights those of AdamW."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from tunesmith_runtime.train.optimizers.combined import CombinedOptimizer
from tunesmith_runtime.train.optimizers.muon import create

ARGUMENTS: Any = SimpleNamespace(
    learning_rate=0.1, weight_decay=0.5, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8
)


class Model(nn.Module):
    """An embedding, a matrix with a bias, and an output head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.linear, self.head = nn.Embedding(8, 4), nn.Linear(4, 6), nn.Linear(6, 8, bias=False)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.linear(self.table(tokens)))
        return logits


def step(model: Model, optimizer: CombinedOptimizer) -> None:
    tokens = torch.arange(8)
    nn.functional.cross_entropy(model(tokens), tokens.flip(0)).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_matrix_takes_an_orthogonal_step_and_other_weights_that_of_adamw() -> None:
    model = Model()
    reference = copy.deepcopy(model)
    names = {"table.weight", "linear.weight", "head.weight"}
    step(model, create(model, names, ARGUMENTS))
    others = [reference.table.weight, reference.head.weight]
    adamw = torch.optim.AdamW(
        [{"params": [reference.linear.bias], "weight_decay": 0.0}, {"params": others, "weight_decay": 0.5}], lr=0.1
    )
    before = reference.linear.weight.clone()
    step(reference, adamw)  # type: ignore[arg-type]
    for name in ("table.weight", "head.weight", "linear.bias"):
        torch.testing.assert_close(model.get_parameter(name), reference.get_parameter(name))
    update = model.linear.weight - before * (1 - 0.1 * 0.5)
    sizes = torch.linalg.svdvals(update / (0.1 * 0.2 * 6**0.5))  # one singular value of each direction, about 1
    assert 0.6 < float(sizes.min()) <= float(sizes.max()) < 1.3


def test_a_schedule_sets_the_rate_of_both_parts_also_after_loading() -> None:
    model = Model()
    optimizer = create(model, set(), ARGUMENTS)
    step(model, optimizer)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    LambdaLR(optimizer, lambda _: 0.0)
    before = copy.deepcopy(model.state_dict())
    step(model, optimizer)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
