"""Checks that a training can continue from the adapter of `lora.from`: the same tuner, settings and base. Reads only its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith_api.compatibility import conflicts
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import ModelRole, ResolvedModel, RunSpec
from tunesmith_api.tuners import Lora, Tuner
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.models import Model
from tunesmith_runtime.modelcheck.adapters import ADAPTER_CONFIG, changes_base
from tunesmith_runtime.modelcheck.files import parse_json
from tunesmith_runtime.storage import Storage, join

SETTINGS = {"r": "rank", "oft_block_size": "rank", "lora_alpha": "alpha", "alpha": "alpha", "use_rslora": "useRslora"}
"""PEFT's name of a setting -> its name in the block lora."""
PARTS = {"modules_to_save": "modulesToSave", "trainable_token_indices": "trainableTokens"}
"""The same for the parts that an adapter trains beside its layers."""
REMEDIES = {"parallelism.strategy": "set spec.parallelism.strategy: ddp", "tuner": "remove spec.lora.from"}
"""Field that excludes a part of an adapter -> what to do; by default, the field is removed."""


def check_initial(storage: Storage, spec: RunSpec, base: Model, further: Mapping[ModelRole, Model]) -> None:
    """Refuse an adapter from which the training cannot continue. Raises RunFailure (BadSpec, BadModel, ModelNotFound)."""
    initial = further.get(ModelRole.INITIAL)
    if initial is None or initial.uri is None:
        return
    content = storage.read_bytes(join(initial.uri, ADAPTER_CONFIG))
    if content is None:
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"lora.from: {initial.source} has no {ADAPTER_CONFIG}")
    config = parse_json(f"lora.from: {initial.source}", ADAPTER_CONFIG, content)
    trained_on = spec.models[ModelRole.INITIAL].base
    faults = [*_other_base(trained_on, base), *_differences(spec.fine_tune_job(), config)]
    if faults:
        sentences, changes = zip(*faults, strict=True)
        message = f"the adapter of lora.from, {initial.source}, {' and '.join(sentences)}"
        raise RunFailure(FailureClass.BAD_SPEC, message, "; ".join(changes))


def _other_base(trained_on: ResolvedModel | None, base: Model) -> Iterator[tuple[str, str]]:
    """Yield the fault, with its remedy, if the adapter is known to be of another base."""
    if trained_on is None:
        return  # an adapter that is named by its URI: its shapes are compared with the base after the download
    has_digests = trained_on.digest and base.digest
    if (trained_on.digest != base.digest) if has_digests else (trained_on.uri != (base.uri or base.source)):
        yield f"was trained on {trained_on.uri}, not on {base.source}", f"set spec.model: {{uri: {trained_on.uri!r}}}"


def _differences(job: FineTuneJobSpec, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each setting of the adapter that differs from that of the job, with its remedy."""
    if start := changes_base(config):
        yield (
            f"changes its base (init_lora_weights: {start})",
            "merge it into its base, and set spec.model to the result",
        )
        return
    tuner = tuner_of(config)
    if tuner == Tuner.PROMPT:
        yield "is of tuner prompt, from which no training continues in this version", "remove spec.lora.from"
        return
    if tuner != (Tuner.LORA if job.tuner is Tuner.QLORA else job.tuner):
        yield f"is of tuner {tuner}, not {job.tuner}", f"set spec.tuner: {tuner}, or remove spec.lora.from"
        return
    lora = job.lora or Lora()
    wanted = lora.to_dict()
    for key, name in SETTINGS.items():
        if key in config and config[key] != wanted[name] and not (key == "r" and tuner == Tuner.OFT):
            value = str(config[key]).lower()
            yield f"has {name} {value}, not {str(wanted[name]).lower()}", f"set spec.lora.{name}: {value}"
    targets = config.get("target_modules")
    if lora.target_modules is not None and (not isinstance(targets, list) or {*targets} != {*lora.target_modules}):
        yield f"adapts {targets}, not {lora.target_modules}", "remove spec.lora.targetModules"
    yield from _conflicts(job, config)


def _conflicts(job: FineTuneJobSpec, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield why the job cannot train a part that the adapter has beside its layers, by the table of compatibility, with the remedy."""
    spec = job.to_dict()
    for key, name in PARTS.items():
        if config.get(key):
            with_part = {**spec, "lora": {**spec["lora"], name: config[key]}}
            for row in conflicts():
                if row.field == f"lora.{name}" and row.matches(with_part):
                    (field,) = row.excludes
                    yield (
                        f"has {name}, which does not go with {field}: {row.reason}",
                        REMEDIES.get(field, f"remove spec.{field}"),
                    )


def tuner_of(config: Mapping[str, Any]) -> str:
    """Return the tuner that makes adapters with this configuration, or PEFT's name of another kind."""
    kind = str(config.get("peft_type")).lower()
    return Tuner.DORA if config.get("use_dora") else {"prompt_tuning": Tuner.PROMPT}.get(kind, kind)
