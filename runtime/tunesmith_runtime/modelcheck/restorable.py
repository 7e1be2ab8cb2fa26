"""Which quantized checkpoints can be restored as floating point numbers, by `quantization_config` of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith_runtime.modelcheck.config import CONFIG, quantization, quantized
from tunesmith_runtime.modelcheck.failure import bad_model

SETTINGS = "quantization_config"
RESTORED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "gptq": {"bits": (2, 4, 8), "checkpoint_format": (None, "gptq", "gptq_v2")},
    "awq": {"bits": (4,), "version": (None, "gemm"), "zero_point": (None, True)},
    "fp8": {},
    "compressed-tensors": {
        "format": ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized"),
        "sparsity_config.format": (None, "dense"),
        "transform_config.config_groups": (None, {}),
    },
}
"""Method -> the settings that its layout of tensors depends on -> the values that `fetch.dequantize` reads; None: absent."""


def refuse_unrestorable(uri: str, config: Mapping[str, Any]) -> None:
    """Raise RunFailure (BadModel) for a model whose weights are quantized in a way that cannot be undone."""
    method = quantization(config)
    if method is None:
        return
    settings = config.get(SETTINGS)
    if method not in RESTORED or not isinstance(settings, Mapping):
        raise quantized(uri, method)
    for path, readable in RESTORED[method].items():
        value = _value_at(settings, path)
        if value not in readable:
            expected = ", ".join(str(each) for each in readable if each is not None and each != {}) or "none"
            shown = "missing" if value is None else repr(value)[:80]
            raise bad_model(
                uri,
                CONFIG,
                f"the model is quantized ({method}) and cannot be dequantized: {SETTINGS}.{path} is {shown}; expected {expected}",
                "name the unquantized model, or one that is quantized otherwise",
            )


def _value_at(settings: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, in lower case if it is text; None if it is absent."""
    value: Any = settings
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value.lower() if isinstance(value, str) else value
