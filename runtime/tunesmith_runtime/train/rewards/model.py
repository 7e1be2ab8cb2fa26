"""Reward of another model: the score that a reward model gives to the conversation, by its own tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunesmith_api.failures import FailureClass
from tunesmith_api.rewards import Reward, RewardType
from tunesmith_api.run import ModelRole
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.data.row_error import row_errors
from tunesmith_runtime.data.tokenizer_file import TokenizerFile
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rewards.base import Rate, Scorer
from tunesmith_runtime.workdir import Work

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup

REFUSED = "is refused by the chat template of the reward model"


def no_template(name: str) -> RunFailure:
    """Return the failure of a reward model that cannot read conversations."""
    return RunFailure(
        FailureClass.BAD_SPEC,
        f"rewards[].model of {name}: its tokenizer has no chat template, and the prompts are messages",
        f"name a model whose tokenizer has a chat template in model of {name} in spec.rewards, such as one that method reward has trained "
        "of a chat model; or write the prompts as plain text",
    )


def open_model(reward: Reward, setup: Setup) -> Rate:
    """Load the model in the role reward, in the number format of the training. Raises RunFailure (BadModel)."""
    import torch

    from tunesmith_runtime.train.rewards.reward_model import load_reward_model

    dtype = torch.bfloat16 if setup.arguments["bf16"] else torch.float32
    model = load_reward_model(setup.work.model(ModelRole.REWARD), reward.name, dtype)
    return lambda completions: model.to(setup.model.device).rate(completions)


def check(reward: Reward, work: Work) -> Callable[[Prompt], None]:
    """Return a check of a prompt, which raises RowError if the reward model's template refuses it, and RunFailure
    (BadSpec) for messages if there is no template.

    Without a readable tokenizer nothing is checked.
    """
    try:
        tokenizer = TokenizerFile(work.model(ModelRole.REWARD))
    except ValueError:  # not here, or of a kind that the training alone reads
        return lambda _: None

    def check_prompt(prompt: Prompt) -> None:
        if isinstance(prompt.prompt, str):
            return
        if not tokenizer.chat_template:
            raise no_template(reward.name)
        with row_errors(REFUSED):
            tokenizer.apply_chat_template(prompt.prompt, tools=prompt.tools, add_generation_prompt=True)

    return check_prompt


MODEL = Scorer(RewardType.MODEL, open_model, check)
