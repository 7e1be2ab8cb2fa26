"""The description of a training method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.training import Method as MethodName
from tunesmith_runtime.data.records import Record
from tunesmith_runtime.train.process_group import ProcessGroup
from tunesmith_runtime.workdir import Work

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from tunesmith_runtime.train.rows import TrainingRows
    from tunesmith_runtime.train.trainer import RunMixin


@dataclass(frozen=True)
class Setup:
    """Everything that a method builds its trainer from."""

    job: FineTuneJobSpec
    """Holds the options of the method's own block, such as `dpo.beta`."""
    work: Work
    """Holds the models of further roles."""
    model: Any
    """The model to train, with its tuner applied."""
    tokenizer: PreTrainedTokenizerBase
    train_dataset: TrainingRows
    eval_dataset: Dataset | None
    arguments: Mapping[str, Any]
    """Keyword arguments of transformers.TrainingArguments that all methods share."""
    callbacks: Sequence[TrainerCallback]
    group: ProcessGroup


@dataclass(frozen=True)
class Method:
    """How a model learns. Importing a method imports neither torch nor TRL; building its trainer does."""

    name: MethodName
    learns_from: frozenset[type[Record]]
    """Types of the records that it reads; rows of other types are refused."""
    build_trainer: Callable[[Setup], RunMixin]
    needs: frozenset[str] = frozenset()
    """Optional packages that it imports; all others stay hidden (`train.imports`)."""
