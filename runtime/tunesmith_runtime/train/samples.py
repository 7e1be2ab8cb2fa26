"""Answers of the model to fixed prompts while it trains: samples/step-N.json in the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import METHOD_FACTS
from tunesmith_api.training import Samples
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.sample_files import write_samples
from tunesmith_runtime.train.rollouts.sampler import Sampling, sample

log = logging.getLogger(__name__)


class AnswerPrompts(TrainerCallback):  # type: ignore[misc]
    """Answers before the first step and every `samples.everySteps`. Decoding is greedy and uses no random state, so
    that the training does not change."""

    def __init__(
        self,
        run: RunDirectory,
        samples: Samples,
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: list[int],
        is_chat: bool,
    ) -> None:
        """`is_chat`: whether the prompts are questions of a user, and not the beginning of a text."""
        self._is_chat = is_chat
        self._run, self._samples, self._tokenizer = run, samples, tokenizer
        self._sampling = Sampling(samples.max_tokens, stop_ids, tokenizer.pad_token_id, temperature=0.0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any, **_: Any
    ) -> None:
        """Answer before the first step."""
        if state.global_step == 0:
            self.answer(model, args, 0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any, **_: Any
    ) -> None:
        """Answer if it is due."""
        if self._samples.every_steps and state.global_step % self._samples.every_steps == 0:
            self.answer(model, args, state.global_step)

    def answer(self, model: Any, args: TrainingArguments, step: int) -> None:
        """Answer all prompts with the weights of `step`, and upload the answers."""
        prompts = [encode_prompt(self._tokenizer, prompt, self._is_chat) for prompt in self._samples.prompts]
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
            completions = sample(getattr(model, "module", model), prompts, self._sampling, seed=0)
        texts = self._tokenizer.batch_decode(completions, skip_special_tokens=True)
        uri = write_samples(self._run, step, self._samples.prompts, texts)
        log.info("answers of step %d: %s", step, uri)


def answers_of(
    job: FineTuneJobSpec, run: RunDirectory, tokenizer: PreTrainedTokenizerBase, stop_ids: Collection[int]
) -> AnswerPrompts | None:
    """Return the callback that answers the prompts of `samples`, if the job has some."""
    if job.samples is None:
        return None
    is_chat = not METHOD_FACTS[job.method].is_plain_text and tokenizer.chat_template is not None
    return AnswerPrompts(run, job.samples, tokenizer, sorted(stop_ids), is_chat)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, is_chat: bool) -> list[int]:
    """Return the tokens of a user's question, as the chat template renders it; or of a plain text."""
    if not is_chat:
        return list(tokenizer(prompt)["input_ids"])
    messages = [{"role": "user", "content": prompt}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])
