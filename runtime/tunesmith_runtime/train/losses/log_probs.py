"""Log-probabilities of answers, from logits of only the answers' tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.losses.cross_entropy import model_inputs, only_where


@dataclass(frozen=True)
class LogProbs:
    """Log-probability of each answer given its prompt."""

    sums: Tensor
    """Sum over the tokens of the answer, (sequences,)."""
    tokens: Tensor
    """Number of these tokens, (sequences,)."""

    @property
    def means(self) -> Tensor:
        """Mean over the tokens, (sequences,); 0 for a sequence without an answer."""
        return self.sums / self.tokens.clamp(min=1)

    def select(self, index: slice) -> LogProbs:
        """Those of some of the sequences."""
        return LogProbs(self.sums[index], self.tokens[index])


def answer_log_probs(model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor]) -> LogProbs:
    """Return the log-probabilities of the labelled tokens of each sequence. The arguments are those of
    `token_log_probs`."""
    of_tokens, wanted = token_log_probs(model, head, inputs)
    return LogProbs(of_tokens.sum(dim=1), wanted.sum(dim=1))


def token_log_probs(
    model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each token that has a label, else 0; and whether it has one. Both (sequences, length - 1).

    `inputs`: input_ids, attention_mask and labels, which are not shifted, all (sequences, length). `head` is the output
    layer of the model. `temperature`: the temperature of sampling.
    """
    targets = inputs["labels"][:, 1:]
    wanted = targets != IGNORED
    logits = answer_logits(model, head, inputs).float()
    if temperature != 1:  # a copy of the logits less where it is
        logits = logits / temperature
    of_tokens = -cross_entropy(logits, targets[wanted], reduction="none")
    # masked_scatter writes in a fixed order on every device, unlike index_add.
    return torch.zeros_like(wanted, dtype=torch.float32).masked_scatter(wanted, of_tokens), wanted


def answer_logits(model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the logits that predict the labelled tokens, in their order, (tokens, vocabulary). The arguments are those
    of `token_log_probs`."""
    labels = inputs["labels"]
    with only_where(head, labels[:, 1:] != IGNORED, labels.shape[1]):
        logits: Tensor = model(**model_inputs(inputs), use_cache=False).logits
    return logits
