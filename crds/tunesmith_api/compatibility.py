"""What goes with what: the table from which CEL rules, operator, runtime, docs page and tests are made.

`CHOICES` has a row for each method, tuner, row format, quantizer, strategy and engine: whether this version has it, and
which values of other fields it cannot go with. `LIMITS` follow from it, with the fields that are not a choice. A refusal
has two parts, the message and the hint. A field that is absent matches no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith_api.base import listed
from tunesmith_api.choices import ANY, SEVERAL, Choice, Limit, Values
from tunesmith_api.datasets import RowFormat
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.method_facts import (
    GROUP_METHODS,
    HEAD_METHODS,
    JOINED_METHODS,
    METHOD_FACTS,
    NEW_HEAD_METHODS,
    OTHER_LOSS_METHODS,
    PAIRWISE_METHODS,
    SAMPLING_METHODS,
    Method,
)
from tunesmith_api.methods import RolloutEngine
from tunesmith_api.pods import Accelerator
from tunesmith_api.refusal import Refusal
from tunesmith_api.spec_fields import OUTPUT_URIS, values_at
from tunesmith_api.training import (
    Kernels,
    LossOn,
    Offload,
    Optimizer,
    QuantizationMethod,
    Strategy,
    Truncation,
    Weights,
)
from tunesmith_api.tuners import TUNER_FACTS, BaseQuantization, LoraInit, Tuner, tuners_where

OTHER_LOSS: dict[str, Values] = {"method": OTHER_LOSS_METHODS}
DEVICES_ONLY = {"resources.accelerator": (Accelerator.CPU.value,)}
NO_ASCEND = {"resources.accelerator": (Accelerator.ASCEND.value,)}

SHARDED = (Strategy.FSDP, Strategy.ZERO1, Strategy.ZERO2, Strategy.ZERO3)
"""Strategies that divide weights, gradients or the optimizer's state among devices."""
WHOLE_TUNERS = tuners_where(lambda facts: not facts.is_divided)
WHOLE_OPTIMIZERS = tuple(optimizer for optimizer in Optimizer if optimizer is not Optimizer.ADAMW)
"""What needs whole weights on each device."""
NOT_SHARDED = (
    ("tuner", WHOLE_TUNERS, "its weights are not divided among devices in this version", "use tuner lora or full"),
    ("training.optimizer", WHOLE_OPTIMIZERS, "only the state of adamw is divided among devices", "use optimizer adamw"),
)
"""Field, the values with which no model is divided, why, and what to write instead."""
NOT_PIPELINED: tuple[tuple[str, Values, str, str], ...] = (
    *NOT_SHARDED,
    (
        "method",
        OTHER_LOSS_METHODS,
        "only sft and pretrain compute their loss in stages in this version",
        "use method sft or pretrain",
    ),
    ("parallelism.strategy", SHARDED, "stages are not divided once more in this version", "use strategy ddp"),
    (
        "parallelism.tensorParallel",
        (SEVERAL,),
        "stages are not divided once more in this version",
        "set parallelism.tensorParallel: 1",
    ),
)
"""The same with layers that are divided among devices."""
NOT_CONTEXT_PARALLEL: tuple[tuple[str, Values, str], ...] = (
    ("method", OTHER_LOSS_METHODS, "use method sft or pretrain"),
    ("parallelism.strategy", SHARDED, "use strategy ddp"),
    ("parallelism.tensorParallel", (SEVERAL,), "set parallelism.tensorParallel: 1"),
    ("parallelism.pipelineParallel", (SEVERAL,), "set parallelism.pipelineParallel: 1"),
    ("training.compile", (True,), "remove training.compile"),
    ("tuner", (Tuner.PROMPT,), "use tuner lora"),
    ("lora.init", (LoraInit.EVA,), "remove lora.init"),
)
"""Field, the values with which no row is divided, and what to write instead."""
SHARED_LAYERS = ("parallelism.tensorParallel", "parallelism.pipelineParallel")
"""Fields by which a device has a part of the layers."""
DIVISIONS: tuple[tuple[str, Values], ...] = (
    ("parallelism.strategy", SHARDED),
    *((field, (SEVERAL,)) for field in SHARED_LAYERS),
)
"""Field, and the values with which a model is divided among devices."""

LOW_RANK = (Optimizer.GALORE, Optimizer.APOLLO)
BY_MATRIX = (Optimizer.MUON, *LOW_RANK)
"""Optimizers that treat matrices apart from other weights."""

ADAPTER_TUNERS = tuple(tuner for tuner in TUNER_FACTS if tuner is not Tuner.FULL)
NOT_LORA = tuners_where(lambda facts: facts.adapts_layers and not facts.is_lora)
"""Tuners of adapters that begin with values of their own."""
STARTS = tuple(start for start in LoraInit if start is not LoraInit.DEFAULT)
BASE_STARTS = tuple(start for start in LoraInit if start.changes_base)
"""Starts that are subtracted from the base."""

FORMATS = ("datasets[].format", "validation.datasets[].format")
WITH_MEDIA = (RowFormat.VQA, RowFormat.CAPTION, RowFormat.TRANSCRIPTION)
"""Formats of rows with images or sounds and one answer."""
NOT_WITH_MEDIA: tuple[tuple[str, Values, str, str], ...] = (
    (
        "method",
        tuple(method for method in METHOD_FACTS if method is not Method.SFT),
        "such rows have one answer, which only method sft learns",
        "use method sft",
    ),
    ("training.packing", (True,), "rows with media are not packed in this version", "remove training.packing"),
    ("training.streaming", (True,), "rows with media are not streamed in this version", "remove training.streaming"),
    ("parallelism.pipelineParallel", (SEVERAL,), "stages take tokens alone", "set parallelism.pipelineParallel: 1"),
    (
        "parallelism.contextParallel",
        (SEVERAL,),
        "rows with media are not divided",
        "set parallelism.contextParallel: 1",
    ),
)
"""Field, the values that such rows do not go with, why, and what to write instead."""

CHOICES: tuple[Choice, ...] = (
    *(Choice("method", (method,), is_available=method in METHOD_FACTS) for method in Method),
    Choice(
        "method",
        NEW_HEAD_METHODS,
        excludes={"tuner": tuners_where(lambda facts: not facts.trains_head)},
        reason="a head beside such an adapter is not trained in this version",
        hint="use tuner lora or full",
    ),
    Choice(
        "method",
        NEW_HEAD_METHODS,
        excludes={"training.optimizer": BY_MATRIX},
        reason="this optimizer would apply its matrix update to the head",
        hint="use optimizer adamw",
    ),
    *(
        Choice(
            "method",
            JOINED_METHODS,
            excludes={field: values},
            reason="not supported with a model that is divided among devices in this version",
            hint=hint,
        )
        for field, values, hint in (
            ("parallelism.strategy", SHARDED, "use strategy ddp"),
            ("parallelism.tensorParallel", (SEVERAL,), "set parallelism.tensorParallel: 1"),
        )
    ),
    *(Choice("tuner", (tuner,), is_available=tuner in TUNER_FACTS) for tuner in Tuner if tuner is not Tuner.QLORA),
    Choice(
        "tuner",
        (Tuner.QLORA,),
        excludes=NO_ASCEND,
        reason="bitsandbytes has no Ascend kernels",
        hint="use tuner lora",
    ),
    Choice(
        "tuner",
        (Tuner.PROMPT,),
        excludes={"export.merge": (True,)},
        reason="virtual tokens stand before the rows and change no weight of the base",
        hint="set export.merge: false",
    ),
    Choice(
        "tuner",
        (Tuner.PROMPT,),
        excludes={"method": HEAD_METHODS},
        reason="virtual tokens are trained before texts that the model writes",
        hint="use tuner lora",
    ),
    Choice("training.optimizer", tuple(Optimizer)),
    Choice(
        "training.optimizer",
        LOW_RANK,
        excludes={"tuner": ADAPTER_TUNERS},
        reason="the matrices of an adapter have few rows or columns already",
        hint="use optimizer adamw, or tuner full",
    ),
    Choice(
        "export.weights",
        (Weights.BEST,),
        excludes={"tuner": (Tuner.ADALORA,)},
        reason="the ranks are those of lora.rank at the end of the training only",
        hint="remove export.weights, or use tuner lora",
    ),
    *(
        Choice("qlora.quantization", (each,), is_available=each is not BaseQuantization.HQQ)
        for each in BaseQuantization
    ),
    *(Choice(field, tuple(RowFormat)) for field in FORMATS),
    *(
        Choice(field, WITH_MEDIA, excludes={other: values}, reason=reason, hint=hint)
        for field in FORMATS
        for other, values, reason, hint in NOT_WITH_MEDIA
    ),
    Choice("export.quantize.method", tuple(QuantizationMethod), is_available=False),
    Choice("parallelism.strategy", tuple(Strategy)),
    *(
        Choice(
            "parallelism.strategy", SHARDED, excludes={field: others}, reason=reason, hint=f"{hint}, or strategy ddp"
        )
        for field, others, reason, hint in NOT_SHARDED
    ),
    Choice("parallelism.offload", tuple(Offload)),
    Choice(
        "parallelism.offload",
        (Offload.OPTIMIZER,),
        excludes={"parallelism.strategy": (Strategy.AUTO, Strategy.DDP, Strategy.FSDP)},
        reason="only ZeRO keeps the optimizer's state apart from the weights",
        hint="use strategy zero1, zero2 or zero3, or with strategy fsdp offload: all",
    ),
    Choice(
        "parallelism.offload",
        (Offload.ALL,),
        excludes={"parallelism.strategy": (Strategy.AUTO, Strategy.DDP, Strategy.ZERO1, Strategy.ZERO2)},
        reason="weights are whole on each device",
        hint="use strategy fsdp or zero3, or with strategy zero1 or zero2 offload: optimizer",
    ),
    *(
        Choice(
            "parallelism.tensorParallel",
            (SEVERAL,),
            excludes={field: others},
            reason=reason,
            hint=f"{hint}, or remove parallelism.tensorParallel",
        )
        for field, others, reason, hint in (
            *NOT_SHARDED,
            (
                "parallelism.strategy",
                SHARDED,
                "slices of layers are not divided once more in this version",
                "use strategy ddp",
            ),
        )
    ),
    *(
        Choice(
            "parallelism.pipelineParallel",
            (SEVERAL,),
            excludes={field: others},
            reason=reason,
            hint=f"{hint}, or remove parallelism.pipelineParallel",
        )
        for field, others, reason, hint in NOT_PIPELINED
    ),
    *(
        Choice(
            "parallelism.contextParallel",
            (SEVERAL,),
            excludes={field: values},
            reason="not supported with contextParallel in this version",
            hint=f"{hint}, or remove parallelism.contextParallel",
        )
        for field, values, hint in NOT_CONTEXT_PARALLEL
    ),
    Choice(
        "training.neftuneAlpha",
        ANY,
        excludes={"parallelism.contextParallel": (SEVERAL,)},
        reason="the noise depends on the length of a row, of which a device has a part",
        hint="remove training.neftuneAlpha, or parallelism.contextParallel",
    ),
    Choice(
        "resources.accelerator",
        (Accelerator.ASCEND,),
        excludes={
            "training.optimizer": (
                Optimizer.ADAMW_8BIT,
                Optimizer.PAGED_ADAMW_8BIT,
                Optimizer.LION,
                Optimizer.LION_8BIT,
            )
        },
        reason="bitsandbytes has no Ascend kernels",
        hint="use optimizer adamw or adafactor",
    ),
    Choice(
        "lora.useRslora",
        (True,),
        excludes={"tuner": NOT_LORA},
        reason="only LoRA scales by its rank",
        hint="remove lora.useRslora",
    ),
    *(
        Choice("training.compile", (True,), excludes=excludes, reason=reason, hint="remove training.compile")
        for excludes, reason in (
            ({"training.kernels": (Kernels.PLAIN,)}, "compiled layers are a fast path"),
            ({"method": SAMPLING_METHODS}, "a text that grows token by token would compile layers again and again"),
        )
    ),
    *(
        Choice(
            "training.compile",
            (True,),
            excludes={field: values},
            reason="compiled layers are not divided among devices in this version",
            hint="remove training.compile",
        )
        for field, values in DIVISIONS
    ),
    Choice(
        "lora.init",
        STARTS,
        excludes={"tuner": NOT_LORA},
        reason="only LoRA begins with chosen values",
        hint="remove lora.init",
    ),
    Choice(
        "lora.init",
        BASE_STARTS,
        excludes={"tuner": (Tuner.DORA, Tuner.QLORA)},
        reason="the base is changed, which only LoRA undoes",
        hint="remove lora.init",
    ),
    Choice(
        "lora.init",
        (LoraInit.LOFTQ,),
        excludes={"tuner": (Tuner.LORA, Tuner.DORA)},
        reason="only a quantized base has an error to begin with",
        hint="use tuner qlora, or remove lora.init",
    ),
    Choice(
        "lora.init",
        (LoraInit.EVA,),
        excludes={"parallelism.strategy": SHARDED},
        reason="its values come from a pass of rows through the whole model",
        hint="use strategy ddp, or remove lora.init",
    ),
    *(
        Choice(
            field,
            ANY,
            excludes={"tuner": NOT_LORA},
            reason="only LoRA trains parts of the model beside the adapter, and at two rates",
            hint=f"remove {field}, or use tuner lora",
        )
        for field in ("lora.modulesToSave", "lora.trainableTokens", "lora.plusRatio")
    ),
    Choice(
        "lora.plusRatio",
        ANY,
        excludes={"training.optimizer": (Optimizer.MUON,)},
        reason="Muon gives all matrices steps of one size",
        hint="use optimizer adamw, or remove lora.plusRatio",
    ),
    Choice(
        "training.freeze",
        ANY,
        excludes={"tuner": (Tuner.PROMPT,)},
        reason="virtual tokens are trained, and no part of the model",
        hint="remove training.freeze, or use tuner lora",
    ),
    Choice(
        "training.visionLearningRate",
        ANY,
        excludes={"training.optimizer": (Optimizer.MUON,)},
        reason="Muon gives all matrices steps of one size",
        hint="use optimizer adamw, or remove training.visionLearningRate",
    ),
    *(
        Choice(
            field,
            ANY,
            excludes={"parallelism.strategy": SHARDED},
            reason="not supported with a strategy that divides the model in this version",
            hint=f"use strategy ddp, or remove {field}",
        )
        for field in ("lora.trainableTokens", "training.freeze")
    ),
    *(
        Choice(
            field,
            values,
            excludes={sharing: (SEVERAL,)},
            reason="not supported with tensorParallel or pipelineParallel in this version",
            hint=f"remove {sharing}, or {field}",
        )
        for sharing in SHARED_LAYERS
        for field, values in (
            ("lora.init", (*BASE_STARTS, LoraInit.EVA)),
            ("lora.modulesToSave", ANY),
            ("lora.trainableTokens", ANY),
            ("training.freeze", ANY),
        )
    ),
    *(
        Choice(
            "samples",
            ANY,
            excludes={field: values},
            reason="one process answers, which has a part of the model in this version",
            hint="remove samples",
        )
        for field, values in (
            ("parallelism.strategy", (Strategy.FSDP, Strategy.ZERO3)),
            *((field, (SEVERAL,)) for field in SHARED_LAYERS),
        )
    ),
    *(
        Choice(
            f"{method}.engine",
            (RolloutEngine.VLLM,),
            excludes={field: values},
            reason=reason,
            hint=f"{hint}, or set {method}.engine: transformers",
        )
        for method in GROUP_METHODS
        for field, values, reason, hint in (
            (
                "resources.accelerator",
                tuple(each.value for each in Accelerator if each is not Accelerator.NVIDIA),
                "vLLM samples on NVIDIA GPUs only in this version",
                "set resources.accelerator: nvidia",
            ),
            ("resources.count", (SEVERAL,), "vLLM samples on one device in this version", "use one device"),
            ("parallelism.nodes", (SEVERAL,), "vLLM samples on one device in this version", "use one pod"),
            (
                "tuner",
                WHOLE_TUNERS,
                "vLLM samples with weights into which only LoRA is merged",
                "use tuner lora or full",
            ),
            *(
                (field, ANY, "vLLM samples with weights into which only layers are merged", f"remove {field}")
                for field in ("lora.modulesToSave", "lora.trainableTokens")
            ),
        )
    ),
    Choice(
        "training.packing",
        (True,),
        excludes=OTHER_LOSS,
        reason="answers are compared as sequences of their own",
        hint="remove training.packing",
    ),
    Choice(
        "training.packing",
        (True,),
        excludes={"tuner": (Tuner.PROMPT,)},
        reason="virtual tokens stand before a sequence, not before each of its rows",
        hint="remove training.packing",
    ),
    Choice(
        "training.streaming",
        (True,),
        excludes=OTHER_LOSS,
        reason="these rows are read before the training",
        hint="remove training.streaming",
    ),
    Choice(
        "training.truncation",
        (Truncation.LEFT,),
        excludes={"method": PAIRWISE_METHODS},
        reason="both answers of a pair would be compared after different prompts",
        hint="use truncation drop or truncate",
    ),
    Choice(
        "training.truncation",
        (Truncation.LEFT,),
        excludes={"method": JOINED_METHODS},
        reason="the passages of a query would be compared after different parts of it",
        hint="use truncation drop or truncate",
    ),
    Choice(
        "training.lossOn",
        (LossOn.ALL,),
        excludes=OTHER_LOSS,
        reason="nothing is learned from prompts",
        hint="remove training.lossOn",
    ),
)
"""Values of a FineTuneJob."""

ENGINES: tuple[Choice, ...] = (
    Choice(
        "engine", (Engine.LMDEPLOY,), excludes={"resources.accelerator": (Accelerator.CPU.value, Accelerator.AMD.value)}
    ),
    Choice("engine", (Engine.VLLM,), excludes=DEVICES_ONLY),
    Choice("engine", (Engine.SGLANG,), excludes=DEVICES_ONLY),
    Choice("engine", (Engine.TRANSFORMERS,)),
)
"""Engines in the order in which `auto` prefers them. The last runs everywhere, and every runtime image has it.

The operator refuses an engine, as the alternative depends on the images that are installed.
"""

PARTS_ENGINES = (Engine.TRANSFORMERS,)
"""Engines that serve an adapter with which parts of the base were trained: lora.modulesToSave, lora.trainableTokens."""


def available(field: str) -> tuple[str, ...]:
    """The values of a choice that this version has."""
    rows = (choice for choice in CHOICES if choice.field == field and choice.is_available)
    return tuple(dict.fromkeys(str(value) for row in rows for value in row.values))


QUANTIZATIONS = available("qlora.quantization")

LIMITS: tuple[Limit, ...] = (
    Limit("FineTuneJob", "qlora.quantization", f"use {listed(QUANTIZATIONS)}", QUANTIZATIONS),
    Limit("FineTuneJob", "export.quantize", "remove the block"),
    *(Limit(kind, path, "use s3://", refused_schemes=("pvc",)) for kind, path in OUTPUT_URIS),
)


def conflicts() -> list[Choice]:
    """The rows that exclude values of other fields."""
    return [choice for choice in CHOICES if choice.excludes]


def refusals(kind: str, spec: Mapping[str, Any]) -> list[Refusal]:
    """Return why this version refuses `spec` (camelCase data with defaults); empty if it accepts it.

    An object that the API server has admitted can still meet rows of an older version.
    """
    refused = [
        row.refusal(value)
        for row in LIMITS
        if row.kind == kind
        for value in values_at(spec, row.field)
        if not row.allows(value)
    ]
    if kind == "FineTuneJob":
        refused += [choice.refusal(spec) for choice in CHOICES if choice.matches(spec)]
    return refused
