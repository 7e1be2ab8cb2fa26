"""The description of a training method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import Method as MethodName
from tunesmith_runtime.data.records import Record
from tunesmith_runtime.data.row_encoder import Learnable
from tunesmith_runtime.train.world.process_group import ProcessGroup
from tunesmith_runtime.workdir import Work

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import Table
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from tunesmith_runtime.data.pairs import Pairs
    from tunesmith_runtime.data.prompts import Prompts
    from tunesmith_runtime.data.text_groups import TextGroups
    from tunesmith_runtime.multimodal.encoder import MediaEncoder
    from tunesmith_runtime.train.rows.forms import TrainingRows
    from tunesmith_runtime.train.trainers.base import RunMixin


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
    eval_dataset: Dataset | Pairs | Prompts | TextGroups | None
    arguments: Mapping[str, Any]
    """Keyword arguments of transformers.TrainingArguments that all methods share."""
    callbacks: Sequence[TrainerCallback]
    group: ProcessGroup
    media: MediaEncoder | None = None
    """Reads the images of the rows; None for models of text alone."""


@dataclass(frozen=True)
class Method:
    """A training method. Importing a method imports neither torch nor TRL; building its trainer does."""

    name: MethodName
    learns_from: frozenset[type[Record]]
    """Types of the records that it reads; rows of other types are refused."""
    build_trainer: Callable[[Setup], RunMixin]
    head: Callable[[FineTuneJobSpec, Table], Mapping[str, Any]] = lambda job, rows: {}
    """Return the settings of config.json for the head of the model, such as num_labels, from the training rows and the
    held-out rows. For methods that do not train a language model."""
    answers: int = 1
    """Examples of a row, one for each answer: 2 for preferences, the chosen and the rejected answer."""
    arrange: Callable[[Dataset, FineTuneJobSpec], Dataset | Pairs | Prompts | TextGroups] = lambda examples, job: (
        examples
    )
    """Make the rows of a batch from the encoded examples."""
    check_rows: Callable[[FineTuneJobSpec, Table], None] = lambda job, rows: None
    """Refuse training rows from which the method cannot learn as a whole. Raises RunFailure."""
    row_check: Callable[[FineTuneJobSpec, Work], Callable[[Record], None]] = lambda _, __: lambda _: None
    """Return a check of a record against the settings of a job and the further models in its work directory. The check raises RowError.
    Raises RunFailure (BadSpec) for settings that no record can satisfy."""
    describe: Callable[[FineTuneJobSpec, Any, Path], None] = lambda job, model, folder: None
    """Write further files of a published model into its folder, such as those that describe how its outputs are pooled."""
    scales: bool = False
    """Whether its loss has the weights of answers as factors. Other methods learn answers of weight 1 alone."""
    needs: frozenset[str] = frozenset()
    """Optional packages that it imports; all others stay hidden (`train.imports`)."""

    def learnable(self, job: FineTuneJobSpec, work: Work) -> Learnable:
        """Return the records that it learns from with the settings of a job. Raises RunFailure (BadSpec)."""
        return Learnable(self.name, self.learns_from, self.row_check(job, work), self.scales)


def in_pairs(examples: Dataset, job: FineTuneJobSpec) -> Pairs:
    """Return the examples of preferences as pairs."""
    from tunesmith_runtime.data.pairs import Pairs

    return Pairs(examples)


def in_texts(examples: Dataset, job: FineTuneJobSpec) -> TextGroups:
    """Return the examples of texts that are compared as rows of several texts."""
    from tunesmith_runtime.data.text_groups import TextGroups

    return TextGroups(examples)


def in_groups(examples: Dataset, job: FineTuneJobSpec) -> Prompts:
    """Return each prompt as a group of rows, one for each completion that is sampled."""
    from tunesmith_runtime.data.prompts import Prompts

    assert job.rollouts is not None
    return Prompts(examples, job.rollouts.num_generations)


def log_sigmoid(value: Tensor) -> Tensor:
    """Return log(1 / (1 + exp(-value))) without overflow."""
    from torch.nn.functional import logsigmoid

    return logsigmoid(value)
