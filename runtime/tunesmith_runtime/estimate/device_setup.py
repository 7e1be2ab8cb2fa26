"""Setup of a device in a training: the model, its batch, its number formats, and the division among devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith_api.training import ModelPart, Offload, Strategy
from tunesmith_api.tuners import Tuner
from tunesmith_runtime.estimate.adapter_size import ADAPTER_SIZES
from tunesmith_runtime.estimate.architecture import Architecture, Linear

FLOAT32 = 4
LOGITS_LIMIT = 1 << 30
"""Bytes of the logits in float32 above which the loss is computed in chunks (train/losses/cross_entropy.py)."""


@dataclass(frozen=True)
class Numbers:
    """Bytes of a number in each place."""

    base: float
    """Weights that are only read."""
    compute: int
    """Activations: 2 if the device computes in bfloat16, else 4."""
    trained: int = FLOAT32
    gradient: int = FLOAT32
    optimizer: float = 2 * FLOAT32
    """State of the optimizer, by default the two moments of AdamW."""
    quantized: float = 0
    """Weights of linear layers in a base that is quantized; 0: all weights of the base have the same size."""
    cast: int = 0
    """Copy of a trained weight in the number format of the computation, which autocast keeps for the backward pass."""


@dataclass(frozen=True)
class Batch:
    """The micro batch that needs most: its rows are padded to the longest."""

    lengths: tuple[int, ...]
    """Tokens of each row."""
    labelled: int
    """Tokens that contribute to the loss."""

    def behind(self, tokens: int) -> Batch:
        """Return the batch with `tokens` virtual tokens before each row."""
        return replace(self, lengths=tuple(length + tokens for length in self.lengths))

    @property
    def rows(self) -> int:
        """Rows."""
        return len(self.lengths)

    @property
    def length(self) -> int:
        """Tokens of a row with its padding."""
        return max(self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens with padding."""
        return self.rows * self.length

    def divided(self, devices: int) -> Batch:
        """Return the part of one of `devices` that have a part of each row."""
        return Batch(tuple(-(-length // devices) for length in self.lengths), -(-self.labelled // devices))

    @property
    def is_padded(self) -> bool:
        """Whether a row is shorter than another, so that attention needs a mask."""
        return min(self.lengths) < self.length


@dataclass(frozen=True)
class Setup:
    """Everything that determines the memory of a device."""

    architecture: Architecture
    tuner: Tuner
    batch: Batch
    numbers: Numbers
    accelerator: str
    rank: int = 16
    dropout: float = 0.0
    targets: Sequence[str] | None = None
    """Names of the layers that an adapter is added to; None: all linear layers."""
    checkpointing: bool = False
    strategy: Strategy = Strategy.DDP
    devices: int = 1
    tensor_parallel: int = 1
    """Devices that share each layer."""
    pipeline_parallel: int = 1
    """Devices that have some layers each."""
    context_parallel: int = 1
    """Devices that have a part of the tokens of each row."""
    micro_batches: int = 1
    """Micro batches of a step on each device."""
    in_flight: int = 1
    """Micro batches whose activations a device keeps."""
    offload: Offload = Offload.NONE
    """State that is in the memory of the pod instead of the memory of the devices."""
    logits_limit: int = LOGITS_LIMIT
    has_reference: bool = False
    """Whether each step compares the model with itself before the training: with its base, or with tuner full with a frozen copy."""
    reference_passes: float = 0.0
    """Passes of a trained token through that model, on average."""
    teacher: Architecture | None = None
    """The teacher of a distillation, which is held beside the trained model."""
    reward_model: Architecture | None = None
    """The model that scores completions, which is held beside the trained model."""
    chunks_logits: bool = True
    """Whether the loss computes large logits in chunks."""
    sampled_rows: int = 0
    """Completions that are sampled at a time; 0 for a method that does not sample."""
    has_value_head: bool = False
    """Whether a linear function of the last hidden states is trained beside the model."""
    has_logits: bool = True
    """Whether there are logits of the vocabulary, and not a head of a few labels, or the hidden states for another device."""
    saved: int = 0
    """Numbers that are trained beside an adapter: whole modules, and the embeddings of single or virtual tokens."""
    saves_head: bool = False
    """Whether the output head, or the embedding, is among them."""
    learned: frozenset[ModelPart] = frozenset({ModelPart.LANGUAGE})
    """The parts of a multimodal model that are trained."""
    frozen: int = 0
    """Numbers of the decoder that tuner full does not train."""
    converts: bool = False
    """Whether the weights are loaded in another number format than that of the files."""

    @property
    def moved(self) -> Offload:
        """State that is moved out of the device's memory. A CPU's memory is that of the pod, so nothing is moved."""
        return Offload.NONE if self.accelerator == "cpu" else self.offload

    @property
    def idle(self) -> float:
        """Share of a step in which a device of a pipeline waits for the others."""
        return (self.pipeline_parallel - 1) / (self.micro_batches + self.pipeline_parallel - 1)

    @property
    def adapted(self) -> list[Linear]:
        """The layers of each decoder layer that an adapter is added to; none with a tuner that adapts no layers."""
        return self._targets_among(self.architecture.linears) if ModelPart.LANGUAGE in self.learned else []

    def _targets_among(self, linears: Sequence[Linear]) -> list[Linear]:
        if self.tuner not in ADAPTER_SIZES:
            return []
        names = None if self.targets is None else {name.rsplit(".", 1)[-1] for name in self.targets}
        return [each for each in linears if names is None or each.name in names]

    @property
    def trained_beside(self) -> int:
        """Trained parameters of the parts beside the decoder."""
        parts = [each for part, each in self.architecture.beside.items() if part in self.learned]
        if self.tuner is Tuner.FULL:
            return sum(each.parameters for each in parts)
        linears = self._targets_among([linear for each in parts for linear in each.linears])
        return sum(ADAPTER_SIZES[self.tuner].trained(self.rank, each) for each in linears)

    @property
    def trained(self) -> int:
        """Trained parameters."""
        head = self.architecture.hidden + 1 if self.has_value_head else 0
        if self.tuner is Tuner.FULL:
            return self.architecture.parameters - self.frozen + self.trained_beside + head
        in_layer = sum(ADAPTER_SIZES[self.tuner].trained(self.rank, each) for each in self.adapted)
        return head + self.saved + self.architecture.layers * in_layer + self.trained_beside
