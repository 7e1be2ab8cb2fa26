"""The value head of an actor-critic: the expected return of a completion, from the hidden states of the policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """A linear function of the last hidden state. It begins with values of 0."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(hidden_size)), nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the value of each hidden state (tokens, hidden_size), (tokens,), in float32 also under autocast."""
        return (hidden.float() * self.weight).sum(dim=-1) + self.bias


@contextmanager
def last_hidden_states(head: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block, collect the hidden states that the output layer `head` receives, each (rows, length, hidden_size)."""
    found: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        yield found
    finally:
        hook.remove()
