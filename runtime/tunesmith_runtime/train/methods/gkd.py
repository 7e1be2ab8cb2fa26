"""Generalized knowledge distillation (Agarwal et al., 2024, https://arxiv.org/abs/2306.13649): a student learns the probabilities that
its teacher gives to each next token, in answers of the data and in answers that the student samples itself.

With the probabilities t of the teacher and s of the student, both at `temperature`, and m = beta t + (1 - beta) s, the loss of a token is
beta KL(t, m) + (1 - beta) KL(s, m): the generalized Jensen-Shannon divergence (equation 1). At the ends of beta, where it vanishes,
stand the divergences that it approaches up to a factor: KL(t, s) for 0, and KL(s, t) for 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunesmith_api.method_facts import Method as MethodName
from tunesmith_api.run import ModelRole
from tunesmith_runtime.data.records import Continuation, Conversation
from tunesmith_runtime.train.methods.base import Method, Setup

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_runtime.train.trainers.base import RunMixin


def loss(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """Return the divergence at each token, (tokens,), from log-probabilities, (tokens, vocabulary)."""
    if beta == 0:
        return divergence(teacher, student)
    if beta == 1:
        return divergence(student, teacher)
    mixture = (teacher + math.log(beta)).logaddexp(student + math.log1p(-beta))
    return beta * divergence(teacher, mixture) + (1 - beta) * divergence(student, mixture)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return KL(first, second) at each token, from log-probabilities."""
    return (first.exp() * (first - second)).sum(dim=1)


def build_trainer(setup: Setup) -> RunMixin:
    """Return the trainer, with the teacher in the number format of the computation.

    Raises RunFailure: BadSpec for a teacher with other tokens, BadModel for one that cannot be loaded.
    """
    import torch

    from tunesmith_runtime.modelcheck.vocabularies import check_equal
    from tunesmith_runtime.train.models.files import load_model, load_tokenizer
    from tunesmith_runtime.train.trainers import distillation

    gkd, folder = setup.job.gkd, setup.work.model(ModelRole.TEACHER)
    assert gkd is not None, "a rule of FineTuneJobSpec"
    tokens, others = setup.tokenizer.get_vocab(), load_tokenizer(folder).get_vocab()
    check_equal("the model", tokens, "of spec.gkd", others)
    teacher = load_model(folder, dtype=torch.bfloat16 if setup.arguments["bf16"] else torch.float32)
    objective = distillation.Objective(
        loss=lambda mine, theirs: loss(mine, theirs, gkd.beta),
        teacher=teacher.requires_grad_(False).eval(),
        sampled_share=gkd.lambda_,
    )
    return distillation.build_trainer(setup, objective, gkd.temperature, gkd.max_completion_length)


GKD = Method(MethodName.GKD, learns_from=frozenset({Conversation, Continuation}), build_trainer=build_trainer)
