"""Tuners: one module each with `ARTIFACT`, `FROZEN_BASE`, `check(model, job)`,
`apply(model, job) -> model` and `changes(model, dtype) -> () -> bool`."""

from __future__ import annotations

from types import ModuleType

from tunesmith_api.finetunejob import Tuner
from tunesmith_runtime.train.tuners import full, lora

TUNERS: dict[Tuner, ModuleType] = {Tuner.LORA: lora, Tuner.FULL: full}
