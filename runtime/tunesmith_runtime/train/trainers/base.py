"""The additions of every run to a Trainer: exact resume, batches by length, an end when the loss is not finite, and
agreement between processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from heapq import nlargest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tunesmith_api.failures import FailureClass
from tunesmith_api.kernels import Attention, Loss, Step
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.checkpoint import misses_evaluation
from tunesmith_runtime.train.kernels.choice import Choice
from tunesmith_runtime.train.rows.batches import ByLength
from tunesmith_runtime.train.rows.forms import known, lengths_of
from tunesmith_runtime.train.rows.media_batches import MEDIA
from tunesmith_runtime.train.rows.packing import check_separate_rows, two_rows
from tunesmith_runtime.train.rows.streaming import CountPasses, StreamedRows
from tunesmith_runtime.train.schedule import Schedule, share
from tunesmith_runtime.train.stopwatch import Stopwatch
from tunesmith_runtime.train.validation import ValidationMixin
from tunesmith_runtime.train.world.process_group import ALONE, ProcessGroup


class EndOfTraining(Exception):
    """A resumed training has nothing left to train."""


class RunMixin(ValidationMixin):
    """Combine it with a trainer of TRL: `class DPO(RunMixin, DPOTrainer)`.

    With several processes, the last row of `train_dataset` is a blank row, which fills up batches: the method appends a row
    that contributes nothing to its loss.
    """

    optimizer: Any
    kernels = Choice(Attention.SDPA, Loss.LABELLED, Step.FUSED)
    """The fast paths of the run."""

    def __init__(self, *arguments: Any, group: ProcessGroup = ALONE, **options: Any) -> None:
        self.group = group
        self.own_optimizer: Callable[..., torch.optim.Optimizer] | None = None
        """Creates an optimizer that transformers does not have (`OPTIMIZERS`)."""
        self.rate_share: Callable[[int], float] = lambda _: 1.0
        """The share of the peak learning rate in the step after so many steps."""
        self._random_state: Path | None = None
        self._loading = Stopwatch()
        self._waiting = []
        super().__init__(*arguments, **options)

    def start(self, checkpoint: Path | None) -> None:
        """Train from the beginning, after a dry pass; or resume from a checkpoint."""
        if isinstance(self.train_dataset, StreamedRows):
            passes = CountPasses(self.train_dataset, self.global_batch_size)
            self.callback_handler.callbacks.insert(0, passes)  # before those that report the epoch
        if checkpoint is None:
            self.add_callback(DryPass(self))
            self.train()
        else:
            self.resume(checkpoint)

    def resume(self, folder: Path) -> None:
        """Resume from the checkpoint in `folder`. After the last step, only its state is loaded."""
        state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        if isinstance(self.train_dataset, StreamedRows):
            self.train_dataset.resume(folder, state.global_step * self.global_batch_size)
        if state.global_step >= self.args.max_steps:  # the Trainer would train a further step within an epoch
            self.load_weights(folder)
            self.state = state
            self.is_deepspeed_enabled = (
                False  # nothing is trained, and DeepSpeed would prepare an evaluation for stage 3 alone
            )
        else:
            self.args.eval_on_start = misses_evaluation(state, self.args)
            if isinstance(self.train_dataset, StreamedRows):
                self.args.ignore_data_skip = True  # the stream itself begins behind the rows that are trained on
                self._random_state = folder
            with suppress(EndOfTraining):
                self.train(resume_from_checkpoint=str(folder))

    def load_weights(self, folder: Path) -> None:
        """Load the trained weights of the checkpoint in `folder`."""
        self._load_from_checkpoint(str(folder))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Save weights under the names that they have in the model, by which the Trainer loads them again."""
        with names_of_modules(self.model):
            super()._save(output_dir, state_dict)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Raise RunFailure (StorageCorrupt) where a checkpoint lacks weights of the model: they would be those before the training."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        if missing := sorted({*load_result.missing_keys} - {*tied}):
            raise RunFailure(
                FailureClass.STORAGE_CORRUPT,
                f"the checkpoint lacks {len(missing)} weights of the model, the first of them {missing[0]}",
                "delete the job's folder checkpoints in the store, so that the training begins anew",
            )

    @property
    def global_batch_size(self) -> int:
        """Rows or sequences of a step, over all processes."""
        return int(self.args.train_batch_size * self.args.gradient_accumulation_steps * self.group.replicas)

    def dry_pass(self, model: nn.Module) -> None:
        """Pass the longest rows through forward, backward and evaluation, so that a lack of memory shows at the start.

        Weights, gradients, random states and metrics stay unchanged. Raises RunFailure (BadSpec) where a model mixes packed rows.
        """
        with torch.random.fork_rng():
            if not self.strategy.is_pipelined and (pair := two_rows(self.train_dataset)):
                model.eval()
                with self.compute_loss_context_manager():
                    check_separate_rows(model, *pair, self.args.device)
            model.train()
            self._compute_gradients(model, self._longest_rows(self.train_dataset, self.args.train_batch_size))
            if self.eval_dataset is not None:
                model.eval()
                with torch.no_grad(), self.compute_loss_context_manager():
                    self.measured_loss(model, self._longest_rows(self.eval_dataset, self.args.eval_batch_size))
                model.train()
        for values in getattr(self, "_metrics", {}).values():  # TRL would log their mean with the first step
            values.clear()

    def _compute_gradients(self, model: nn.Module, rows: dict[str, Tensor]) -> None:
        """Compute and drop the gradients of a micro batch, or of as many micro batches as a pipeline holds at a time."""
        if self.strategy.is_pipelined:
            count = min(self.group.pipeline_parallel, self.args.gradient_accumulation_steps)
            self.strategy.take_step(self, model, [rows] * count, None)
        else:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, rows)
            if self.strategy.steps_in_backward:
                return
            self.accelerator.backward(loss)
        model.zero_grad()

    def row_lengths(self, dataset: Any) -> Sequence[int]:
        """Return the number of tokens of each row. Methods with other columns override it."""
        return lengths_of(dataset)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run a forward and a backward pass. Raises RunFailure (Diverged) if the loss is NaN or infinite."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise RunFailure(
                FailureClass.DIVERGED, f"the loss became {loss.item()} in step {self.state.global_step + 1}"
            )
        return loss

    def create_optimizer(self, model: Any = None) -> Any:
        """Create the optimizer: our own, or transformers'."""
        if self.optimizer is None and self.own_optimizer is not None:
            trained = self.model if model is None else model
            self.optimizer = self.own_optimizer(trained, self.get_decay_parameter_names(trained), self.args)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Create the learning rate schedule from `schedule.share`. The arguments hold the fields of a Schedule."""
        steps, schedule = num_training_steps, Schedule(**(self.args.lr_scheduler_kwargs or {}))
        rate = partial(share, steps=steps, warmup=self.args.get_warmup_steps(steps), schedule=schedule)
        self.rate_share = rate
        self.lr_scheduler: LambdaLR = LambdaLR(optimizer or self.optimizer, rate)
        return self.lr_scheduler

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no model card: run.json is the record of a run."""

    def _longest_rows(self, dataset: Any, size: int) -> dict[str, Tensor]:
        """The batch of the `size` longest rows of `dataset`."""
        rows, lengths = known(dataset), self.row_lengths(dataset)
        longest = nlargest(size, range(len(lengths)), key=lengths.__getitem__)
        return self._prepare_inputs(self.data_collator([rows[index] for index in longest]))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        """Batches of rows of similar length, in an order that depends only on the seed and the epoch."""
        lengths = self.row_lengths(self.train_dataset)
        batch = self.global_batch_size
        if self.group.size == 1:
            return ByLength(lengths, batch, self.args.seed)
        return ByLength(lengths[:-1], batch, self.args.seed, blank=len(lengths) - 1)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        """Save the place of a stream with the state of the Trainer."""
        super()._save_checkpoint(*arguments, **options)
        if isinstance(self.train_dataset, StreamedRows) and self.args.should_save:
            folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self.train_dataset.save(folder, self.state.global_step * self.global_batch_size)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Move a batch to the device. Raises the RunFailure that a process of the DataLoader returned."""
        if isinstance(failure := inputs.get(MEDIA), RunFailure):
            raise failure
        return super()._prepare_inputs(inputs)  # type: ignore[no-any-return]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the share of the time since the last log in which the device waited for rows, if processes of their own load these."""
        if self.args.dataloader_num_workers and "loss" in logs:
            logs["loading_share"] = self._loading.share()
        super().log(logs, start_time)

    def get_batch_samples(self, *arguments: Any, **options: Any) -> Any:
        """Load the random states of a resumed stream after the first batch: creating the DataLoader's iterator draws from them."""
        with self._loading.running():
            samples = super().get_batch_samples(*arguments, **options)
        if self._random_state is not None:
            self._load_rng_state(str(self._random_state))
            self._random_state = None
        return samples

    def _run_epoch(self, *, epoch: int, train_dataloader: Any, **rest: Any) -> None:
        """Set the sampler's epoch. In a resumed epoch, the skipped batches hide the sampler of several processes from
        accelerate, which would repeat the order of the first epoch."""
        train_dataloader.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **rest)


@contextmanager
def names_of_modules(model: nn.Module) -> Iterator[None]:
    """Within the block, `save_pretrained` of a model of transformers writes each weight under its name in the model, and not under the
    one that it has in files of its hub, as for several multimodal and mixture-of-experts classes."""
    if not isinstance(model, PreTrainedModel):
        yield
        return
    model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
    try:
        yield
    finally:
        del model.save_pretrained


class DryPass(TrainerCallback):  # type: ignore[misc]
    """Does the trainer's dry pass when the model is prepared, before the first step."""

    def __init__(self, trainer: RunMixin) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: Any, model: nn.Module, **__: Any) -> None:
        """Pass the longest rows through the model."""
        self._trainer.dry_pass(model)
