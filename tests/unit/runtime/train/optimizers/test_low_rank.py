"""GaLore and APOLLO: their first steps by the formulas of the papers, and what they do with small and tall matrices."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunesmith_runtime.train.optimizers import apollo, galore, low_rank
from tunesmith_runtime.train.optimizers.combined import CombinedOptimizer

RATE, DECAY = 0.1, 0.5
ARGUMENTS: Any = SimpleNamespace(
    learning_rate=RATE, weight_decay=DECAY, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-12
)
CREATE = {"galore": galore.create, "apollo": apollo.create}


class Model(nn.Module):
    """A wide, a tall and a small matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.tall, self.small = (
            nn.Linear(40, 20),
            nn.Linear(20, 48, bias=False),
            nn.Linear(48, 4, bias=False),
        )

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.small(torch.tanh(self.tall(self.wide(values)))).square().mean()
        return result


def gradients(model: Model) -> dict[str, Tensor]:
    """Compute the gradients of a batch, and return copies."""
    torch.manual_seed(1)
    model.zero_grad()
    model(torch.randn(64, 40)).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def steps(model: Model, optimizer: CombinedOptimizer, count: int) -> None:
    for _ in range(count):
        gradients(model)
        optimizer.step()


def change(model: Model, before: dict[str, Tensor], name: str, decays: bool = True) -> Tensor:
    """The last step of a weight, for a learning rate of 1, without its decay."""
    return (before[name] * (1 - RATE * DECAY * decays) - model.get_parameter(name).detach()) / RATE


@pytest.mark.parametrize(("name", "is_tall"), [("wide.weight", False), ("tall.weight", True)])
def test_the_first_step_of_galore_has_the_signs_of_the_gradient_in_its_largest_directions(
    name: str, is_tall: bool
) -> None:
    model = Model()
    before = copy.deepcopy(model.state_dict())
    gradient = gradients(model)[name]
    galore.create(model, {"wide.weight", "tall.weight"}, ARGUMENTS).step()
    turned = gradient.mT if is_tall else gradient
    largest = torch.linalg.svd(turned).U[:, :5]  # a quarter of 20 rows
    expected = 0.25 * largest @ torch.sign(largest.mT @ turned)
    made = change(model, before, name)
    torch.testing.assert_close(made.mT if is_tall else made, expected, rtol=1e-3, atol=1e-5)


def test_the_first_step_of_apollo_is_the_gradient_with_columns_as_long_as_adams() -> None:
    model = Model()
    before = copy.deepcopy(model.state_dict())
    gradient = gradients(model)["wide.weight"]
    apollo.create(model, {"wide.weight"}, ARGUMENTS).step()
    made = change(model, before, "wide.weight")
    along = nn.functional.cosine_similarity(made, gradient, dim=0)
    torch.testing.assert_close(along, torch.ones(40), rtol=0, atol=1e-5)
    lengths = made.norm(dim=0) / 20**0.5  # Adam's first step has 20 numbers of size 1 in each column
    assert 0.8 < float(lengths.mean()) < 1.6
    assert float(lengths.min()) > 0.2
    assert float(lengths.max()) < 6


def test_a_step_of_apollo_is_hardly_longer_than_the_one_before() -> None:
    model = Model()
    optimizer = apollo.create(model, set(), ARGUMENTS)
    steps(model, optimizer, 1)
    before, state = copy.deepcopy(model.state_dict()), optimizer.state[model.wide.weight]
    state["length"] /= 100
    allowed = 1.01 * float(state["length"])
    steps(model, optimizer, 1)
    assert float(state["length"]) == pytest.approx(allowed, rel=1e-4)
    assert float(change(model, before, "wide.weight", decays=False).norm()) == pytest.approx(allowed, rel=1e-2)


def test_a_step_of_apollo_is_not_made_longer() -> None:
    lengths = []
    for factor in (1, 100):
        model = Model()
        optimizer = apollo.create(model, set(), ARGUMENTS)
        steps(model, optimizer, 1)
        optimizer.state[model.wide.weight]["length"] *= factor
        steps(model, optimizer, 1)
        lengths.append(float(optimizer.state[model.wide.weight]["length"]))
    assert lengths[0] == pytest.approx(lengths[1], rel=0.02)


@pytest.mark.parametrize("create", CREATE.values(), ids=CREATE)
def test_a_small_matrix_and_a_bias_are_trained_by_adamw(create: Any) -> None:
    model = Model()
    reference = copy.deepcopy(model)
    gradients(model), gradients(reference)
    create(model, {"small.weight"}, ARGUMENTS).step()
    decaying = {"params": [reference.small.weight], "weight_decay": DECAY}
    torch.optim.AdamW([{"params": [reference.wide.bias], "weight_decay": 0.0}, decaying], lr=RATE, eps=1e-12).step()
    for name in ("small.weight", "wide.bias"):
        torch.testing.assert_close(model.get_parameter(name), reference.get_parameter(name))


@pytest.mark.parametrize("create", CREATE.values(), ids=CREATE)
def test_a_new_projection_is_chosen_after_so_many_steps_and_again_after_loading(
    create: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_rank, "GAP", 3)
    model = Model()
    optimizer = create(model, set(), ARGUMENTS)
    steps(model, optimizer, 3)
    first = optimizer.state[model.wide.weight]["projection"].clone()
    other = copy.deepcopy(model)
    loaded = create(other, set(), ARGUMENTS)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, 2)
    steps(other, loaded, 2)
    assert not torch.allclose(optimizer.state[model.wide.weight]["projection"], first)
    assert all(torch.equal(weight, model.get_parameter(name)) for name, weight in other.named_parameters())


@pytest.mark.parametrize("create", CREATE.values(), ids=CREATE)
def test_the_state_of_a_matrix_is_a_fraction_of_adams(create: Any) -> None:
    model = Model()
    optimizer = create(model, set(), ARGUMENTS)
    steps(model, optimizer, 1)
    state = optimizer.state[model.tall.weight]
    numbers = sum(each.numel() for each in state.values() if isinstance(each, Tensor))
    assert numbers < 0.75 * model.tall.weight.numel()  # Adam keeps 2 for each weight
