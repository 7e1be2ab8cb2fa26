"""Checks the tuner of a FineTuneJob whose base is quantized."""

from __future__ import annotations

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunSpec
from tunesmith_api.tuners import Tuner
from tunesmith_runtime.errors import RunFailure

UNFIT_TUNERS = {
    Tuner.FULL: "would train all weights from rounded ones",
    Tuner.QLORA: "would quantize its rounded weights again",
}
"""Tuners that do not support a quantized base -> the reason."""


def check_quantized(spec: RunSpec, uri: str, method: str) -> None:
    """Refuse a tuner that does not support a quantized base. Raises RunFailure (BadSpec)."""
    tuner = spec.fine_tune_job().tuner if spec.kind == "FineTuneJob" else None
    if tuner in UNFIT_TUNERS:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"the base {uri} is quantized ({method}), and tuner {tuner} {UNFIT_TUNERS[tuner]}",
            f"set spec.tuner: {Tuner.LORA}, or name the unquantized model in spec.model",
        )
