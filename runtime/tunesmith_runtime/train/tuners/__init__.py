"""Tuners: each module defines one `Tuner`, and TUNERS finds it by its name in the API."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.train.tuners.adalora import ADALORA
from tunesmith_runtime.train.tuners.base import Tuner
from tunesmith_runtime.train.tuners.dora import DORA
from tunesmith_runtime.train.tuners.full import FULL
from tunesmith_runtime.train.tuners.ia3 import IA3
from tunesmith_runtime.train.tuners.loha import LOHA
from tunesmith_runtime.train.tuners.lokr import LOKR
from tunesmith_runtime.train.tuners.lora import LORA
from tunesmith_runtime.train.tuners.miss import MISS
from tunesmith_runtime.train.tuners.oft import OFT
from tunesmith_runtime.train.tuners.prompt import PROMPT
from tunesmith_runtime.train.tuners.qlora import QLORA
from tunesmith_runtime.train.tuners.vera import VERA

__all__ = ["TUNERS", "Tuner"]

TUNERS: Mapping[TunerName, Tuner] = {
    tuner.name: tuner for tuner in (LORA, FULL, QLORA, DORA, LOHA, LOKR, VERA, ADALORA, OFT, IA3, MISS, PROMPT)
}
