"""What goes with what: the table from which CEL rules, operator, runtime, docs page and tests are made.

`CHOICES` has a row for each method, tuner, row format, quantizer, strategy and engine: whether this version has it, and
which values of other fields it cannot go with. `LIMITS` follow from it, with the fields that are not a choice. A refusal
has two parts, the message and the hint. A field that is absent matches no row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator
from tunesmith_api.refusal import Refusal
from tunesmith_api.training import (
    HEAD_METHODS,
    LEARNING_RATES,
    PREFERENCE_METHODS,
    RATED_METHODS,
    SAMPLING_METHODS,
    BaseQuantization,
    LossOn,
    Method,
    Optimizer,
    QuantizationMethod,
    Strategy,
    Truncation,
    Tuner,
    Weights,
)

NOT_AVAILABLE = "not available in this version"


@dataclass(frozen=True)
class Choice:
    """A value of a field, and the values of other fields that it cannot go with."""

    field: str
    """Path below spec, as in `Limit.field`."""
    value: str | bool
    is_available: bool = True
    excludes: Mapping[str, tuple[str | bool, ...]] = dataclasses.field(default_factory=dict)
    """Path below spec -> the values there that `value` cannot go with."""
    reason: str = ""
    """Why it cannot go with the excluded values."""
    hint: str = ""
    """What to write instead of the combination."""

    @property
    def refusal(self) -> Refusal:
        """The refusal of this value together with the excluded ones."""
        others = " and ".join(
            f"{path.split('.')[-1]} {' or '.join(map(_shown, values))}" for path, values in self.excludes.items()
        )
        return Refusal(f"{self.field} {_shown(self.value)} with {others}: {self.reason}", self.hint)

    def matches(self, spec: Mapping[str, Any]) -> bool:
        """Whether `spec` has this value together with excluded ones."""
        combination = {self.field: (self.value,), **self.excludes}
        return bool(self.excludes) and all(
            any(value in values for value in values_at(spec, path)) for path, values in combination.items()
        )


def _shown(value: str | bool) -> str:
    """Return a value as it is written in YAML."""
    return str(value).lower() if isinstance(value, bool) else value


RATED: dict[str, tuple[str | bool, ...]] = {"method": (*RATED_METHODS, *HEAD_METHODS, *SAMPLING_METHODS, Method.GKD)}
DEVICES_ONLY = {"resources.accelerator": (Accelerator.CPU.value,)}
NO_ASCEND = {"resources.accelerator": (Accelerator.ASCEND.value,)}

METHODS = (Method.SFT, Method.PRETRAIN, *RATED_METHODS, *HEAD_METHODS, *SAMPLING_METHODS, Method.GKD)
"""The methods that this version has."""

SHARDED = (Strategy.FSDP, Strategy.ZERO1, Strategy.ZERO2, Strategy.ZERO3)
"""Strategies that divide weights, gradients or the optimizer's state among devices."""
ZERO_METHODS = (Method.SFT, Method.PRETRAIN)
SHARDED_METHODS = (*ZERO_METHODS, *RATED_METHODS)
"""The methods that train a model that ZeRO, or FSDP, divides."""
WHOLE_TUNERS = tuple(tuner for tuner in Tuner if tuner not in (Tuner.LORA, Tuner.FULL))
WHOLE_METHODS = {
    strategy: tuple(
        method for method in METHODS if method not in (SHARDED_METHODS if strategy is Strategy.FSDP else ZERO_METHODS)
    )
    for strategy in SHARDED
}
WHOLE_OPTIMIZERS = tuple(optimizer for optimizer in Optimizer if optimizer is not Optimizer.ADAMW)
"""What needs whole weights on each device."""

HEADLESS_TUNERS = (Tuner.QLORA, Tuner.ADALORA)
"""Tuners that train no head."""

UNLEARNED = (
    RowFormat.CLASSIFICATION, RowFormat.EMBEDDING,
    RowFormat.VQA, RowFormat.CAPTION,
)  # fmt: skip
"""Formats whose records no method of this version learns from."""

CHOICES: tuple[Choice, ...] = (
    *(Choice("method", method, is_available=method in METHODS) for method in Method),
    *(
        Choice("method", method, excludes={field: others}, reason=reason, hint=hint)
        for method in HEAD_METHODS
        for field, others, reason, hint in (
            (
                "tuner",
                HEADLESS_TUNERS,
                "a head beside such an adapter is not trained in this version",
                "use tuner lora or full",
            ),
            ("training.optimizer", (Optimizer.MUON,), "Muon would train the head as a matrix", "use optimizer adamw"),
        )
    ),
    *(Choice("tuner", tuner, is_available=tuner in LEARNING_RATES) for tuner in Tuner if tuner is not Tuner.QLORA),
    Choice(
        "tuner",
        Tuner.QLORA,
        excludes=NO_ASCEND,
        reason="bitsandbytes has no Ascend kernels",
        hint="use tuner lora",
    ),
    *(
        Choice("training.optimizer", each, is_available=each not in (Optimizer.GALORE, Optimizer.APOLLO))
        for each in Optimizer
    ),
    Choice(
        "export.weights",
        Weights.BEST,
        excludes={"tuner": (Tuner.ADALORA,)},
        reason="the ranks are those of lora.rank at the end of the training only",
        hint="remove export.weights, or use tuner lora",
    ),
    *(Choice("qlora.quantization", each, is_available=each is not BaseQuantization.HQQ) for each in BaseQuantization),
    *(Choice("datasets[].format", form, is_available=form not in UNLEARNED) for form in RowFormat),
    *(Choice("export.quantize.method", method, is_available=False) for method in QuantizationMethod),
    *(Choice("parallelism.strategy", strategy) for strategy in Strategy),
    *(
        Choice(
            "parallelism.strategy", strategy, excludes={field: others}, reason=reason, hint=f"{hint}, or strategy ddp"
        )
        for strategy in SHARDED
        for field, others, reason, hint in (
            (
                "tuner",
                WHOLE_TUNERS,
                "its weights are not divided among devices in this version",
                "use tuner lora or full",
            ),
            (
                "method",
                WHOLE_METHODS[strategy],
                "its model is not divided among devices in this version",
                "use one device",
            ),
            (
                "training.optimizer",
                WHOLE_OPTIMIZERS,
                "only the state of adamw is divided among devices",
                "use optimizer adamw",
            ),
        )
    ),
    Choice(
        "training.optimizer",
        Optimizer.MUON,
        excludes={"method": (Method.PPO,)},
        reason="it trains no value head in this version",
        hint="use optimizer adamw",
    ),
    Choice(
        "resources.accelerator",
        Accelerator.ASCEND,
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
        True,
        excludes={"tuner": (Tuner.LOHA, Tuner.LOKR, Tuner.VERA, Tuner.ADALORA, Tuner.OFT, Tuner.IA3, Tuner.MISS)},
        reason="only LoRA scales by its rank",
        hint="remove lora.useRslora",
    ),
    Choice(
        "training.packing",
        True,
        excludes=RATED,
        reason="answers are compared as sequences of their own",
        hint="remove training.packing",
    ),
    Choice(
        "training.streaming",
        True,
        excludes=RATED,
        reason="these rows are read before the training",
        hint="remove training.streaming",
    ),
    Choice(
        "training.truncation",
        Truncation.LEFT,
        excludes={"method": (*PREFERENCE_METHODS, Method.REWARD)},
        reason="both answers of a pair would be compared after different prompts",
        hint="use truncation drop or truncate",
    ),
    Choice(
        "training.lossOn",
        LossOn.ALL,
        excludes=RATED,
        reason="nothing is learned from prompts",
        hint="remove training.lossOn",
    ),
)
"""Values of a FineTuneJob."""

ENGINES: tuple[Choice, ...] = (
    Choice(
        "engine", Engine.LMDEPLOY, excludes={"resources.accelerator": (Accelerator.CPU.value, Accelerator.AMD.value)}
    ),
    Choice("engine", Engine.VLLM, excludes=DEVICES_ONLY),
    Choice("engine", Engine.SGLANG, excludes=DEVICES_ONLY),
    Choice("engine", Engine.TRANSFORMERS),
)
"""Engines in the order in which `auto` prefers them. The last runs everywhere, and every runtime image has it.

The operator refuses an engine, as the alternative depends on the images that are installed.
"""


@dataclass(frozen=True)
class Limit:
    """The values of a field that this version has."""

    kind: str
    field: str
    """Dotted camelCase path below spec; `[]` after a list stands for each of its items."""
    hint: str
    """What to write instead."""
    allowed: tuple[str | int | bool, ...] = ()
    """The values that it may have. Empty, and no refused_schemes: it may not be set."""
    refused_schemes: tuple[str, ...] = ()
    """For a URI: the schemes that it may not have."""
    at_apply: bool = True
    """Whether the API server refuses it. Otherwise the operator does, by the condition Stalled."""

    def allows(self, value: Any) -> bool:
        """Whether the field may have `value`."""
        if self.refused_schemes:
            return str(value).partition("://")[0] not in self.refused_schemes
        return value in self.allowed

    def refusal(self, value: Any = None) -> Refusal:
        """The refusal of `value`, or of the field as such."""
        text = str(value).lower() if isinstance(value, bool) else value
        shown = f" {text}" if value is not None and (self.allowed or self.refused_schemes) else ""
        return Refusal(f"{self.field}{shown}: {NOT_AVAILABLE}", self.hint)


def available(field: str) -> tuple[str, ...]:
    """The values of a choice that this version has."""
    values = (str(choice.value) for choice in CHOICES if choice.field == field and choice.is_available)
    return tuple(dict.fromkeys(values))


def _choice(field: str, hint: str, *, choice: str | None = None, at_apply: bool = True) -> Limit:
    """The limit of a field by the rows of `choice` (default: `field`) in CHOICES; `hint` has {} for the available values."""
    values = available(choice or field)
    *most, last = values
    shown = f"{', '.join(most)} or {last}" if most else last
    return Limit("FineTuneJob", field, hint.format(shown), values, at_apply=at_apply)


MODEL_URIS: tuple[tuple[str, str], ...] = (
    ("FineTuneJob", "model.uri"),
    ("FineTuneJob", "gkd.teacher.uri"),
    ("FineTuneJob", "lora.from.uri"),
    ("EvalJob", "model.uri"),
    ("EvalJob", "baseline.uri"),
    ("InferenceService", "model.uri"),
    ("InferenceService", "adapters[].uri"),
)
DATA_URIS: tuple[tuple[str, str], ...] = (
    ("FineTuneJob", "datasets[].uri"),
    ("FineTuneJob", "validation.uri"),
    ("FineTuneJob", "validation.datasets[].uri"),
    ("FineTuneJob", "decontaminate[].uri"),
    ("EvalJob", "benchmarks[].dataset.uri"),
)
DATA_NAMES: tuple[tuple[str, str], ...] = (
    ("FineTuneJob", "datasets[].name"),
    ("FineTuneJob", "validation.datasets[].name"),
    ("FineTuneJob", "decontaminate[].name"),
    ("EvalJob", "benchmarks[].dataset.name"),
)
"""Kind and path of every field of a spec that is the name of a data set of the catalogue."""
OUTPUT_URIS: tuple[tuple[str, str], ...] = (("FineTuneJob", "output.uri"), ("EvalJob", "output.uri"))
URI_FIELDS: tuple[tuple[str, str], ...] = (*MODEL_URIS, *DATA_URIS, *OUTPUT_URIS)
"""Kind and path of every field of a spec that is a URI of a model, of data or of results."""

LIMITS: tuple[Limit, ...] = (
    _choice("method", "use {}, and remove the block of the other method"),
    _choice("tuner", "use {} (with full, remove the block lora)"),
    _choice("qlora.quantization", "use {}"),
    _choice("training.optimizer", "use {}"),
    _choice("datasets[].format", "use {}"),
    _choice("validation.datasets[].format", "use {}", choice="datasets[].format"),
    Limit("FineTuneJob", "export.quantize", "remove the block"),
    Limit("FineTuneJob", "parallelism.tensorParallel", "remove it", (1,), at_apply=False),
    _choice("parallelism.strategy", "use strategy: {}", at_apply=False),
    *(Limit(kind, path, "use s3://", refused_schemes=("pvc",)) for kind, path in OUTPUT_URIS),
)


def conflicts() -> list[Choice]:
    """The rows that exclude values of other fields."""
    return [choice for choice in CHOICES if choice.excludes]


def refusals(kind: str, spec: Mapping[str, Any]) -> list[Refusal]:
    """Return why this version refuses `spec` (camelCase data with defaults); empty if it accepts it.

    An object that the API server has admitted can still meet rows that are not `at_apply`, or rows of an older version.
    """
    refused = [
        row.refusal(value)
        for row in LIMITS
        if row.kind == kind
        for value in values_at(spec, row.field)
        if not row.allows(value)
    ]
    if kind == "FineTuneJob":
        refused += [choice.refusal for choice in CHOICES if choice.matches(spec)]
    return refused


def values_at(value: Any, path: str) -> Iterator[Any]:
    """Yield the values at a path as in `Limit.field`: nothing if it is absent, or a value for each item of the lists on the path."""
    if not path:
        yield value
        return
    part, _, rest = path.partition(".")
    if not isinstance(value, Mapping) or value.get(part.removesuffix("[]")) is None:
        return
    below = value[part.removesuffix("[]")]
    for item in below if part.endswith("[]") else [below]:
        yield from values_at(item, rest)
