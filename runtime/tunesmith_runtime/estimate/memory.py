"""Memory of each device in training, by part: a sum over the tensors that autograd, the optimizer and the loss keep.

Sizes follow from what `torch.autograd` saves in each operation of transformers' decoder layers with the attention `sdpa`,
from train/loss.py and trl.kernels (logits), and from AdamW (Loshchilov and Hutter, 2019). `make bench-estimate` compares the
sums with measured peaks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith_api.training import Strategy, Tuner
from tunesmith_runtime.estimate.architecture import Architecture, Linear, Place

FLOAT32 = 4
GIB = 1 << 30
MIB = 1 << 20
NF4_BYTES = 0.5 + FLOAT32 / 64
"""Bytes of a number in NF4: 4 bits, and a scale for each 64 numbers (Dettmers et al., 2023)."""
NF4_DOUBLE_BYTES = 0.5 + (1 + FLOAT32 / 256) / 64
"""The same with double quantization: the scales have 8 bits, and a scale for each 256 of them."""
LOGITS_COPIES = 12
"""Bytes of each logit at the start of the backward pass: log-softmax, its gradient and the gradient of the loss, in float32."""
DRAWN_COPIES = 28
"""Bytes of each logit from which a token is drawn: in float32, and with its probabilities and their sums in float64."""
LOGITS_LIMIT = 1 << 30
"""Bytes of the logits in float32 above which the loss is computed in chunks (train/loss.py)."""
CHUNK_BYTES = 256 * MIB
"""Buffers of the loss in chunks (trl.kernels.chunked_logprob)."""
DISTILLED_COPIES = 3
"""Logits of the student, their gradient and those of the teacher, in the number format of the computation."""
DISTILLED_CHUNK_BYTES = 8 * 64 * MIB
"""Buffers of a chunk of logits whose divergence is computed (train/distillation.py): log-probabilities, probabilities, their
mixture and gradients, in float32."""
BUCKET_BYTES = 25 * MIB
"""Size of a bucket of DistributedDataParallel."""
ZERO_BUCKET_BYTES = 80 * MIB
"""Size of a bucket of ZeRO (train/strategies/zero.py)."""
SHARDS_WEIGHTS = frozenset({Strategy.ZERO3, Strategy.FSDP})
SHARDS_GRADIENTS = SHARDS_WEIGHTS | {Strategy.ZERO2}
SHARDS_OPTIMIZER = SHARDS_GRADIENTS | {Strategy.ZERO1}
"""Strategies that divide weights, gradients or the optimizer's state among the devices."""
GATHERED_LAYERS = 2
"""Decoder layers whose weights ZeRO-3 and FSDP hold at a time: the one that computes, and the next."""
RUNTIME_BYTES = {"cpu": 0.9 * GIB, "nvidia": 0.9 * GIB, "ascend": 1.0 * GIB, "amd": 1.0 * GIB}
"""Memory of a process before it loads a model: Python and the libraries, or the context of the device with the workspaces of
its libraries. On a CPU, trainings without a model to speak of had 872 to 889 MiB."""


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
    """Tokens on which the loss is taken."""

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

    @property
    def is_padded(self) -> bool:
        """Whether a row is shorter than another, so that attention needs a mask."""
        return min(self.lengths) < self.length


@dataclass(frozen=True)
class Setup:
    """Everything that the memory of a device follows from."""

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
    accumulates: bool = False
    """Whether a step has several micro batches, so that gradients are there in the next forward pass."""
    strategy: Strategy = Strategy.DDP
    devices: int = 1
    offloads: bool = False
    """Whether the optimizer's state is in the memory of the CPU (a formula; this version has no such setting)."""
    logits_limit: int = LOGITS_LIMIT
    has_reference: bool = False
    """Whether the model is compared with itself before the training: with its base, or with tuner full with a frozen copy."""
    teacher: Architecture | None = None
    """The model whose probabilities are learned, which is held beside the trained one."""
    chunks_logits: bool = True
    """Whether the loss computes large logits in chunks."""
    sampled_rows: int = 0
    """Completions that are sampled at a time; 0 for a method that samples none."""
    has_value_head: bool = False
    """Whether a linear function of the last hidden states is trained beside the model."""
    has_head: bool = False
    """Whether a head of a few labels is in the place of the output layer, so that there are no logits of the vocabulary."""
    converts: bool = False
    """Whether the weights are loaded in another number format than that of the files."""

    @property
    def adapted(self) -> list[Linear]:
        """The layers that an adapter is added to; none with tuner full."""
        if self.tuner is Tuner.FULL:
            return []
        linears = self.architecture.linears
        return [
            each
            for each in linears
            if self.targets is None or each.name in {name.rsplit(".", 1)[-1] for name in self.targets}
        ]

    @property
    def trained(self) -> int:
        """Trained parameters."""
        head = self.architecture.hidden + 1 if self.has_value_head else 0
        if self.tuner is Tuner.FULL:
            return self.architecture.parameters + head
        return head + self.architecture.layers * sum(adapter_size(self.tuner, self.rank, each) for each in self.adapted)


def adapter_size(tuner: Tuner, rank: int, linear: Linear) -> int:
    """Return the trained parameters that a tuner adds to a linear layer."""
    low_rank = rank * (linear.inputs + linear.outputs)
    if tuner is Tuner.DORA:
        return low_rank + linear.outputs  # a magnitude for each output
    if tuner is Tuner.LOHA:
        return 2 * low_rank
    if tuner is Tuner.LOKR:
        return kronecker_size(rank, linear)
    if tuner is Tuner.VERA:
        return rank + linear.outputs
    if tuner is Tuner.ADALORA:
        return low_rank + rank  # the singular values
    if tuner is Tuner.OFT:
        return linear.inputs * (rank - 1) // 2  # a skew-symmetric matrix for each block of inputs
    if tuner is Tuner.IA3:
        return linear.outputs
    if tuner is Tuner.MISS:
        return rank * linear.outputs
    return low_rank


def kronecker_size(rank: int, linear: Linear) -> int:
    """Return the numbers of both factors of LoKr, as PEFT divides the sizes of a layer (peft.tuners.lokr.layer)."""
    (rows, large_rows), (columns, large_columns) = _near_square(linear.outputs), _near_square(linear.inputs)
    is_low_rank = rank < max(large_rows, large_columns) / 2
    return rows * columns + (rank * (large_rows + large_columns) if is_low_rank else large_rows * large_columns)


def _near_square(size: int) -> tuple[int, int]:
    """Return the two factors of a size that are nearest to each other, the smaller first."""
    smaller = next(each for each in range(math.isqrt(size), 0, -1) if size % each == 0)
    return smaller, size // smaller


@dataclass(frozen=True)
class Memory:
    """Bytes of each part at the peak of a device's memory. The parts add up to the peak."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    buffers: int = 0
    """Of the communication between devices, and of files that are being read."""
    runtime: int = 0

    @property
    def total(self) -> int:
        """The peak."""
        return sum(vars(self).values())

    @property
    def beyond_runtime(self) -> int:
        """The peak beyond that of a process without a model."""
        return self.total - self.runtime


def peak(setup: Setup) -> Memory:
    """Return the memory at the moment of a step, or of loading, in which a device needs most."""
    return max(
        (moment(setup) for moment in (_loading, _sampling, _start_of_backward, _end_of_backward)),
        key=lambda each: each.total,
    )


def _static(setup: Setup) -> Memory:
    """What is there throughout the training."""
    optimizer: float = setup.trained * setup.numbers.optimizer
    if setup.strategy in SHARDS_OPTIMIZER:
        optimizer /= setup.devices
    weights = _weights(setup) / (setup.devices if setup.strategy in SHARDS_WEIGHTS else 1) + _reference(setup)
    if setup.teacher:
        weights += setup.teacher.parameters * setup.numbers.compute
    return Memory(
        weights=round(weights),
        optimizer=0 if setup.offloads else round(optimizer),
        buffers=round(_buffers(setup)),
        runtime=round(RUNTIME_BYTES.get(setup.accelerator, GIB)),
    )


def _weights(setup: Setup) -> float:
    """Bytes of all weights, before they are divided among devices."""
    frozen = 0 if setup.tuner is Tuner.FULL else setup.architecture.parameters
    return frozen * _base_bytes(setup) + setup.trained * setup.numbers.trained


def _reference(setup: Setup) -> int:
    """Bytes of the frozen copy that a model with tuner full is compared with; each device has a whole one."""
    return (
        setup.architecture.parameters * setup.numbers.compute
        if setup.has_reference and setup.tuner is Tuner.FULL
        else 0
    )


def _base_bytes(setup: Setup) -> float:
    """Bytes of a frozen weight, on average: embeddings and head are not quantized."""
    sizes, numbers = setup.architecture, setup.numbers
    if not numbers.quantized:
        return numbers.base
    quantized = sizes.layers * sum(each.parameters for each in sizes.linears)
    share = min(1.0, quantized / max(1, sizes.parameters))
    return share * numbers.quantized + (1 - share) * numbers.base


def _buffers(setup: Setup) -> float:
    """Buffers of the communication: buckets of DDP, or the gathered layers of ZeRO-3 and FSDP."""
    if setup.devices == 1:
        return 0
    gradients = setup.trained * setup.numbers.gradient
    if setup.strategy in SHARDS_WEIGHTS:
        number = setup.numbers.trained if setup.tuner is Tuner.FULL else setup.numbers.base
        return GATHERED_LAYERS * setup.architecture.largest_layer * number + BUCKET_BYTES
    if setup.strategy in (Strategy.ZERO1, Strategy.ZERO2):
        return min(gradients, 2 * ZERO_BUCKET_BYTES)
    return gradients  # the reducer of DDP keeps a copy in its buckets


def _loading(setup: Setup) -> Memory:
    """The files are mapped into memory while weights are converted."""
    static = replace(_static(setup), optimizer=0)
    if setup.strategy is Strategy.ZERO3 or (setup.strategy is Strategy.FSDP and setup.accelerator == "cpu"):
        static = replace(static, weights=round(_weights(setup)) + _reference(setup))  # they are divided afterwards
    if setup.accelerator != "cpu" or not setup.converts:
        return static
    return replace(static, buffers=static.buffers + setup.architecture.stored_bytes)


def _sampling(setup: Setup) -> Memory:
    """The keys and values of all tokens are cached, beside the activations of a layer and the logits of the last tokens."""
    static, sizes, number = _static(setup), setup.architecture, setup.numbers.compute
    tokens = setup.sampled_rows * setup.batch.length
    cache = tokens * sizes.layers * 2 * sizes.key_size * number
    layer = tokens * (3 * sizes.intermediate + 2 * sizes.hidden) * number
    logits = setup.sampled_rows * sizes.vocabulary * DRAWN_COPIES
    return replace(static, activations=round(cache + layer), logits=round(logits))


def _start_of_backward(setup: Setup) -> Memory:
    """All activations are kept, beside the logits or what the last layer computes with."""
    static, batch = _static(setup), setup.batch
    kept = batch.tokens * _kept_per_token(setup) + _masks(setup)
    working = _working(setup)
    logits = _logits(setup)
    gradients = _gradients(setup) if setup.accumulates else 0
    casts = setup.trained * setup.numbers.cast
    return replace(
        static,
        weights=round(static.weights + casts),
        gradients=round(gradients),
        activations=round(kept + max(0.0, working - logits)),
        logits=round(logits),
    )


def _end_of_backward(setup: Setup) -> Memory:
    """All gradients are there; the first layer is the last to compute."""
    layer = setup.batch.tokens * layer_bytes(setup) + _working(setup)
    return replace(_static(setup), gradients=round(_gradients(setup)), activations=round(layer))


def _gradients(setup: Setup) -> float:
    size = setup.trained * setup.numbers.gradient
    return size / setup.devices if setup.strategy in SHARDS_GRADIENTS else size


def _logits(setup: Setup) -> float:
    """Logits with their gradients, of the labelled tokens alone: in full, or in chunks (train/loss.py)."""
    if setup.has_head:
        return 0
    sizes, labelled = setup.architecture, setup.batch.labelled
    whole = labelled * sizes.vocabulary
    heads = 2 if setup.has_value_head else 1
    hidden = heads * labelled * sizes.hidden * (setup.numbers.compute + FLOAT32)
    head = sizes.vocabulary * sizes.hidden * FLOAT32 if setup.tuner is Tuner.FULL else 0
    if setup.teacher:
        chunk = min(DISTILLED_CHUNK_BYTES, LOGITS_COPIES * whole)
        return DISTILLED_COPIES * setup.numbers.compute * whole + chunk + hidden
    chunked = min(CHUNK_BYTES, LOGITS_COPIES * whole) + hidden + head
    if setup.chunks_logits and (setup.accelerator == "nvidia" or whole * FLOAT32 > setup.logits_limit):
        return chunked
    return LOGITS_COPIES * whole + hidden


def _kept_per_token(setup: Setup) -> float:
    """Bytes that are kept of each token until the backward pass: of all layers, and of the last norm."""
    sizes = setup.architecture
    stream = _stream_bytes(setup)
    ends = sizes.hidden * (FLOAT32 + stream) + 2 * sizes.head_size * setup.numbers.compute
    if setup.checkpointing:
        return sizes.layers * sizes.hidden * stream + ends
    return sizes.layers * layer_bytes(setup) + ends


def _stream_bytes(setup: Setup) -> int:
    """Bytes of a number of the residual stream: that of the embedding's weights, beside which autocast has no effect."""
    return round(setup.numbers.trained if setup.tuner is Tuner.FULL else setup.numbers.base)


def layer_bytes(setup: Setup) -> float:
    """Bytes that autograd keeps of one token in one decoder layer."""
    sizes, number = setup.architecture, setup.numbers.compute
    stream = _stream_bytes(setup)
    is_full, is_cast = setup.tuner is Tuner.FULL, number != FLOAT32
    inputs = Counter(each.place for each in (sizes.linears if is_full else setup.adapted))
    # Norms keep their input in float32, and a trained norm keeps the normalized values.
    norm = sizes.hidden * (FLOAT32 + (stream if is_full else 0))
    total = 2.0 * norm
    # Linear layers keep their input where a weight is trained: one tensor for all that share it, or a cast copy each.
    shared = (inputs[Place.ATTENTION], inputs[Place.MLP])
    total += sizes.hidden * number * (sum(shared) if is_cast else sum(min(count, 1) for count in shared))
    # Queries, keys and values as attention receives them, its output, and one sum of exponentials per head.
    repeats = setup.batch.is_padded or setup.accelerator == "cpu"
    keys = sizes.query_size if repeats else sizes.key_size
    total += number * (2 * sizes.query_size + 2 * keys) + FLOAT32 * sizes.heads
    if sizes.has_qk_norm:
        total += (sizes.query_size + sizes.key_size) * (FLOAT32 + (number if is_full else 0))
    if inputs[Place.OUTPUT] and is_cast and not is_full:
        total += sizes.query_size * number  # an adapter casts its input
    # The MLP: the gate before and after its activation, up, and their product.
    width = sizes.intermediate * number
    total += width * (3 if sizes.has_gate else 1)
    if inputs[Place.DOWN] or is_full:
        total += width
    total += sum(_kept_by_adapter(setup, each) * number for each in setup.adapted)
    if setup.dropout:
        total += sum(each.inputs * (1 + number) for each in setup.adapted)
    return total


def _kept_by_adapter(setup: Setup, linear: Linear) -> int:
    """Numbers that an adapter keeps of a token beside the inputs of its layer."""
    return {Tuner.IA3: linear.outputs, Tuner.OFT: linear.inputs}.get(setup.tuner, setup.rank)


def _masks(setup: Setup) -> float:
    """Masks of padded batches on a CPU: sdpa keeps one in floating point for each layer."""
    batch = setup.batch
    if setup.accelerator != "cpu" or not batch.is_padded:
        return 0
    layers = 1 if setup.checkpointing else setup.architecture.layers
    return layers * batch.rows * batch.length**2 * setup.numbers.compute


def _working(setup: Setup) -> float:
    """Bytes that the backward pass of a layer computes with: gradients of the MLP, and with checkpointing its activations."""
    sizes, batch = setup.architecture, setup.batch
    gradients = batch.tokens * (3 * sizes.intermediate + 2 * sizes.hidden) * setup.numbers.compute
    recomputed = batch.tokens * layer_bytes(setup) if setup.checkpointing else 0
    return gradients + recomputed
