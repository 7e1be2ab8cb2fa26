"""The value head of an actor-critic: the expected return of a completion, from the hidden states of the policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers import TrainingArguments

WEIGHTS, MOMENTS = "value_head.safetensors", "value_head_optimizer.pt"
"""Files of a checkpoint."""


class ValueHead(nn.Module):
    """A linear function of the last hidden state. It begins with values of 0."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(hidden_size)), nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the value of each hidden state (tokens, hidden_size), (tokens,), in float32 also under autocast."""
        return (hidden.float() * self.weight).sum(dim=-1) + self.bias


class Critic:
    """A value head with AdamW. It stands beside the policy, and is whole in each process, however a strategy divides the policy."""

    def __init__(self, hidden_size: int, arguments: TrainingArguments) -> None:
        self.head = ValueHead(hidden_size).to(arguments.device)
        betas = (arguments.adam_beta1, arguments.adam_beta2)
        self._optimizer = torch.optim.AdamW(
            self.head.parameters(), betas=betas, eps=arguments.adam_epsilon, weight_decay=0.0
        )

    def step(self, rate: float, averaged: Callable[[Tensor], Tensor]) -> None:
        """Make a step with the learning rate `rate`. `averaged` returns the mean of a gradient over all processes."""
        for weight in self.head.parameters():
            assert weight.grad is not None
            weight.grad = averaged(weight.grad)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()

    def save(self, folder: Path) -> None:
        """Write weights and moments into the folder of a checkpoint."""
        save_model(self.head, str(folder / WEIGHTS))
        torch.save(self._optimizer.state_dict(), folder / MOMENTS)

    def load(self, folder: Path) -> None:
        """Read the weights and moments of a checkpoint."""
        load_model(self.head, folder / WEIGHTS)
        self._optimizer.load_state_dict(torch.load(folder / MOMENTS, map_location="cpu", weights_only=True))


@contextmanager
def last_hidden_states(head: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block, collect the hidden states that the output layer `head` receives, each (rows, length, hidden_size)."""
    found: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        yield found
    finally:
        hook.remove()
