"""Memory of each device in training, by part: a sum over the tensors that autograd, the optimizer and the loss keep.

Sizes follow from what `torch.autograd` saves in each operation of transformers' decoder layers with the attention `sdpa`,
from train/losses/cross_entropy.py and trl.kernels (logits), and from AdamW (Loshchilov and Hutter, 2019). `make bench-estimate` compares the
sums with measured peaks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from tunesmith_api.training import Offload, Strategy
from tunesmith_api.tuners import Tuner
from tunesmith_runtime.estimate.adapter_size import ADAPTER_SIZES
from tunesmith_runtime.estimate.architecture import Place, sliced, staged
from tunesmith_runtime.estimate.device_setup import FLOAT32, Setup

GIB = 1 << 30
MIB = 1 << 20
NF4_BYTES = 0.5 + FLOAT32 / 64
"""Bytes of a number in NF4: 4 bits, and a scale for each 64 numbers (Dettmers et al., 2023)."""
NF4_DOUBLE_BYTES = 0.5 + (1 + FLOAT32 / 256) / 64
"""The same with double quantization: the scales have 8 bits, and a scale for each 256 of them."""
LOGITS_COPIES = 12
"""Bytes of each logit at the start of the backward pass: log-softmax, its gradient and the gradient of the loss, in float32."""
DRAWN_COPIES = 28
"""Bytes of each logit when a token is drawn: the logit in float32, its probability and the cumulative sum in float64."""
CHUNK_BYTES = 256 * MIB
"""Buffers of the loss in chunks (trl.kernels.chunked_logprob)."""
DISTILLED_COPIES = 3
"""Logits of the student, their gradient and those of the teacher, in the number format of the computation."""
DISTILLED_CHUNK_COPIES = 8
DISTILLED_CHUNK_BYTES = DISTILLED_CHUNK_COPIES * 64 * MIB
"""Buffers for the divergence of a chunk of logits (train/trainers/distillation.py): log-probabilities, probabilities,
their mixture and gradients, in float32."""
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
    """Return the memory of a device when it needs most: at a moment of a step, or of loading."""
    held = _parts_of(setup)
    # on a CPU, a process loads all weights before it keeps its part
    loaded = [replace(setup, devices=held[0].devices)] if setup.accelerator == "cpu" else held
    moments = [*map(_loading, loaded), *(moment(part) for part in held for moment in MOMENTS)]
    if setup.accelerator == "cpu":
        moments.append(replace(_static(held[0]), buffers=collected(setup)))
    return max(moments, key=lambda each: each.total)


def _parts_of(setup: Setup) -> list[Setup]:
    """Return the distinct setups of the devices that share a model."""
    own = replace(
        setup, batch=setup.batch.divided(setup.context_parallel), devices=setup.devices // setup.tensor_parallel
    )
    if setup.tensor_parallel > 1:
        return [replace(own, architecture=sliced(setup.architecture, setup.tensor_parallel), tensor_parallel=1)]
    if setup.pipeline_parallel == 1:
        return [own]
    layers = staged(setup.architecture, setup.pipeline_parallel)
    stage = replace(setup, architecture=layers, devices=1, pipeline_parallel=1)  # gradients are averaged in their place
    first = replace(stage, has_logits=False, in_flight=min(setup.pipeline_parallel, setup.micro_batches))
    return [first, stage]


def _static(setup: Setup) -> Memory:
    """Memory that is held throughout the training."""
    optimizer = 0 if setup.moved is not Offload.NONE else _optimizer(setup)
    weights = 0 if setup.moved is Offload.ALL else _weights(setup) / _shares(setup, SHARDS_WEIGHTS)
    weights += _reference(setup)
    for model in (setup.teacher, setup.reward_model):
        weights += model.all_parameters * setup.numbers.compute if model else 0
    return Memory(
        weights=round(weights),
        optimizer=round(optimizer),
        buffers=round(_buffers(setup)),
        runtime=round(RUNTIME_BYTES.get(setup.accelerator, GIB)),
    )


def host(setup: Setup) -> int:
    """Return the bytes that each device uses in the memory of its pod: offloaded state, and the float32 weights that
    ZeRO updates there."""
    if setup.moved is Offload.NONE:
        return 0
    here = replace(setup, offload=Offload.NONE)
    weights = _weights(here) / _shares(here, SHARDS_WEIGHTS) if setup.moved is Offload.ALL else 0
    stepped = 0 if setup.strategy is Strategy.FSDP else setup.trained * FLOAT32 / _shares(here, SHARDS_OPTIMIZER)
    return round(weights + stepped + _optimizer(here) + _gradients(here))


def collected(setup: Setup) -> int:
    """Return the bytes that the first process collects from all in the memory of its pod, which no device holds: the state of the optimizer
    for a checkpoint, or whole weights at the end."""
    shares_layers = setup.tensor_parallel > 1 or setup.pipeline_parallel > 1
    if setup.devices == 1 or not (shares_layers or setup.strategy in SHARDS_OPTIMIZER):
        return 0
    is_divided = shares_layers or setup.strategy in SHARDS_WEIGHTS
    weights = _weights(setup) if is_divided else setup.trained * FLOAT32
    return round(max(weights, setup.trained * setup.numbers.optimizer))


def _shares(setup: Setup, strategies: frozenset[Strategy]) -> int:
    """Number of parts into which the strategy divides a state; 1 unless it is among `strategies`."""
    return setup.devices if setup.strategy in strategies else 1


def _optimizer(setup: Setup) -> float:
    """Bytes of the optimizer's state of a device, wherever it is."""
    return setup.trained * setup.numbers.optimizer / _shares(setup, SHARDS_OPTIMIZER)


def _weights(setup: Setup) -> float:
    """Bytes of all weights, before they are divided among devices."""
    is_full = setup.tuner is Tuner.FULL
    frozen = setup.frozen if is_full else setup.architecture.parameters
    trained = setup.numbers.compute if setup.moved is Offload.OPTIMIZER else setup.numbers.trained
    other = setup.architecture.other_parameters - (setup.trained_beside if is_full else 0)
    other_bytes = other * (FLOAT32 if is_full else setup.numbers.base)
    return frozen * _base_bytes(setup) + setup.trained * trained + other_bytes


def _reference(setup: Setup) -> int:
    """Bytes of the frozen copy that a model with tuner full is compared with; each device has a whole one."""
    return (
        setup.architecture.all_parameters * setup.numbers.compute
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
    if setup.sampled_rows and setup.strategy in SHARDS_WEIGHTS:
        static = replace(
            static, weights=round(_weights(setup)) + _reference(setup)
        )  # gathered while completions are sampled
    tokens = setup.sampled_rows * setup.batch.length
    cache = tokens * sizes.layers * 2 * sizes.key_size * number
    layer = tokens * (3 * sizes.intermediate + 2 * sizes.hidden) * number
    logits = setup.sampled_rows * sizes.vocabulary * DRAWN_COPIES
    return replace(static, activations=round(cache + layer), logits=round(logits))


def _start_of_backward(setup: Setup) -> Memory:
    """All activations are kept, beside the logits or the working memory of the last layer."""
    static, batch = _static(setup), setup.batch
    kept = setup.in_flight * (batch.tokens * _kept_per_token(setup) + _masks(setup))
    working = _working(setup)
    logits = _logits(setup)
    gradients = _gradients(setup) if setup.micro_batches > 1 else 0
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
    layer = setup.batch.tokens * layer_bytes(setup) + _layer_gradients(setup)
    gradients = _gradients(setup) + _second_gradient(setup)
    return replace(_static(setup), gradients=round(gradients), activations=round(layer))


MOMENTS = (_sampling, _start_of_backward, _end_of_backward)
"""The moments of a step when a device may need most."""


def _gradients(setup: Setup) -> float:
    if setup.moved is Offload.ALL:
        return 0
    return setup.trained * setup.numbers.gradient / _shares(setup, SHARDS_GRADIENTS)


def _second_gradient(setup: Setup) -> int:
    """The gradient of the embedding, before it is added to that of the head, which is the same matrix."""
    sizes = setup.architecture
    is_tied = setup.tuner is Tuner.FULL and setup.has_logits and sizes.is_tied
    return sizes.vocabulary * sizes.hidden * setup.numbers.gradient if is_tied else 0


def _logits(setup: Setup) -> float:
    """Logits of the labelled tokens, with their gradients: in full, or in chunks (train/losses/cross_entropy.py)."""
    if not setup.has_logits:
        return 0
    sizes, labelled = setup.architecture, setup.batch.labelled
    whole = labelled * sizes.vocabulary
    heads = 2 if setup.has_value_head else 1
    hidden = heads * labelled * sizes.hidden * (setup.numbers.compute + FLOAT32)
    head = sizes.vocabulary * sizes.hidden * FLOAT32 if setup.tuner is Tuner.FULL or setup.saves_head else 0
    if setup.teacher:
        chunk = min(DISTILLED_CHUNK_BYTES, DISTILLED_CHUNK_COPIES * FLOAT32 * whole)
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
    """Bytes of a number of the residual stream: it has the format of the embedding's weights, which autocast does not
    change."""
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
    keys = (sizes.query_size if repeats else sizes.key_size) * setup.context_parallel  # those of whole rows
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
    total += sum(ADAPTER_SIZES[setup.tuner].kept(setup.rank, each) * number for each in setup.adapted)
    if setup.dropout:
        total += sum(each.inputs * (1 + number) for each in setup.adapted)
    return total


def _masks(setup: Setup) -> float:
    """Masks of padded batches on a CPU: sdpa keeps one in floating point for each layer."""
    batch = setup.batch
    if setup.accelerator != "cpu" or not batch.is_padded:
        return 0
    layers = 1 if setup.checkpointing else setup.architecture.layers
    return layers * batch.rows * batch.length**2 * setup.numbers.compute


def _working(setup: Setup) -> float:
    """Working memory of the backward pass of a layer: gradients of the MLP, and with checkpointing the recomputed
    activations."""
    recomputed = setup.batch.tokens * layer_bytes(setup) if setup.checkpointing else 0
    return _layer_gradients(setup) + recomputed


def _layer_gradients(setup: Setup) -> float:
    """Bytes of the gradients of a layer's activations. The MLP has the largest ones."""
    sizes = setup.architecture
    return setup.batch.tokens * (3 * sizes.intermediate + 2 * sizes.hidden) * setup.numbers.compute
