"""Restores a quantized checkpoint as floating point numbers, file by file, in the number format that its config.json names.

The weight of a linear layer is stored as numbers q of few bits. With the scales s and the zero points z of groups of inputs, or
of blocks, it is s (q - z). The layouts are those of AutoGPTQ, AutoAWQ (GEMM), of transformers' `fp8`, and of compressed-tensors,
which llm-compressor writes. `modelcheck.restorable` refuses all others. Activations are not quantized in the restored model.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tunesmith_runtime.modelcheck.config import CONFIG, QUANTIZATIONS, SIDE_FILES, read_config
from tunesmith_runtime.modelcheck.failure import bad_model, detail
from tunesmith_runtime.modelcheck.restorable import SETTINGS

log = logging.getLogger(__name__)

Restore = Callable[[str, Mapping[str, Tensor]], Tensor]
"""Returns the weight (outputs, inputs) of the module of that name from its stored tensors, which have the names in PARTS."""

INDEX = "model.safetensors.index.json"
ROOTS = ("qweight", "weight_packed", "weight")
"""Tensors that hold the numbers of a quantized weight."""
SCALES = ("scales", "weight_scale", "weight_scale_inv")
"""Tensors that only a quantized module has."""
PARTS = frozenset(
    {*ROOTS, *SCALES, "qzeros", "g_idx", "weight_zero_point", "weight_shape", "weight_g_idx", "weight_global_scale"}
)
"""Tensors that a quantized weight is restored from."""
OF_ACTIVATIONS = frozenset(
    {"input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point", "activation_scale"}
    | {"k_scale", "v_scale", "q_scale", "k_zero_point", "v_zero_point"}
)
"""Tensors that quantize activations and the cache. The restored model does not use them."""
FILE_BYTES = 256 << 20
"""Size at which a file of restored weights is closed and the next begun."""
BLOCK = 1 << 22
"""Numbers of a weight that are restored at a time, which take several times as much memory meanwhile."""
UPLOAD = "upload the model again, or name the unquantized model"


def dequantize(uri: str, source: Path, target: Path) -> None:
    """Write the quantized model in `source` to `target`, with restored weights. Raises RunFailure (BadModel) that names `uri`."""
    config = read_config(uri, source)
    settings = config[SETTINGS]
    plain = {key: value for key, value in config.items() if key not in QUANTIZATIONS}
    restore = FORMATS[settings["quant_method"]](settings)
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), torch.bfloat16)
    places: dict[str, str] = {}
    size = 0
    with ExitStack() as stack:
        files = {path.name: stack.enter_context(safe_open(path, "pt")) for path in sorted(source.glob("*.safetensors"))}
        stored = {name: file for file in files.values() for name in file.keys()}  # noqa: SIM118  # not a mapping
        count = sum(name.rpartition(".")[-1] in SCALES for name in stored)
        if not count:
            sentence = f"the model is quantized ({settings['quant_method']}), but no weight in its files has a scale"
            raise bad_model(uri, CONFIG, sentence, "name the unquantized model, or upload this model again")
        restored = chain.from_iterable(
            _restored(uri, name, file, stored, restore, dtype) for name, file in files.items()
        )
        for number, tensors in enumerate(_grouped(restored), start=1):
            name = f"model-{number:05d}.safetensors"
            save_file(tensors, target / name, metadata={"format": "pt"})
            places |= dict.fromkeys(tensors, name)
            size += sum(tensor.nbytes for tensor in tensors.values())
    for path in source.iterdir():
        if path.is_file() and path.name not in (*files, INDEX, CONFIG, *SIDE_FILES):
            shutil.copyfile(path, target / path.name)
    (target / CONFIG).write_text(json.dumps(plain, indent=2) + "\n")
    (target / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=1))
    log.info("%s: restored %d quantized weights as %s", uri, count, str(dtype).removeprefix("torch."))


def _grouped(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors in groups of about FILE_BYTES, which are in memory one after the other."""
    group: dict[str, Tensor] = {}
    for name, tensor in tensors:
        group[name] = tensor
        if sum(each.nbytes for each in group.values()) >= FILE_BYTES:
            yield group
            group = {}
    if group:
        yield group


def _restored(
    uri: str, file_name: str, file: Any, stored: Mapping[str, Any], restore: Restore, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a file: weights that are restored in `dtype`, and all others as they are."""
    for name in file.keys():  # noqa: SIM118  # not a mapping
        module, _, part = name.rpartition(".")
        is_quantized = any(f"{module}.{scale}" in stored for scale in SCALES)
        if part in OF_ACTIVATIONS or (is_quantized and part in PARTS and part not in ROOTS):
            continue
        if is_quantized and part in ROOTS:
            parts = {each: f"{module}.{each}" for each in sorted(PARTS) if f"{module}.{each}" in stored}
            try:
                tensors = {each: stored[path].get_tensor(path) for each, path in parts.items()}
                weight = restore(module, tensors).to(dtype).contiguous()
            except Exception as error:  # torch raises errors of any type for unexpected shapes
                sentence = f"the quantized weight of {module} cannot be restored: {detail(error)}"
                raise bad_model(uri, file_name, sentence, UPLOAD) from error
            yield f"{module}.weight", weight
            continue
        tensor = file.get_tensor(name)
        if is_quantized and part == "bias" and not tensor.any():
            continue  # AutoGPTQ gives one to layers that have none
        if part in PARTS and (tensor.element_size() == 1 or part != "weight"):
            raise bad_model(uri, file_name, f"{name} belongs to a quantized weight that has no scale", UPLOAD)
        yield name, tensor


def blocks(tensor: Tensor, numbers: int) -> Iterator[slice]:
    """Yield slices of the rows of a tensor, so that each slice makes about BLOCK numbers. A row makes `numbers`."""
    size = max(1, BLOCK // max(1, numbers))
    yield from (slice(start, start + size) for start in range(0, len(tensor), size))


def unpacked(words: Tensor, bits: int) -> Tensor:
    """Return the unsigned numbers of `bits` bits, at most 8, in int32 `words` (rows, words) as bytes, those in the lowest bits first."""
    shifts = torch.arange(0, 32, bits)
    numbers = torch.empty(len(words), words.shape[1] * len(shifts), dtype=torch.uint8)
    for part in blocks(words, numbers.shape[1]):
        numbers[part] = ((words[part][..., None] >> shifts) & ((1 << bits) - 1)).flatten(-2).to(torch.uint8)
    return numbers


def of_groups(numbers: Tensor, zeros: Tensor, scales: Tensor, groups: Tensor | None = None) -> Tensor:
    """Return s (q - z) for numbers (outputs, inputs), zero points and scales (outputs, groups), and the group of each input,
    by default consecutive inputs of equal number."""
    outputs, inputs = numbers.shape
    if scales.shape != zeros.shape or scales.shape[0] != outputs:
        raise ValueError(f"{tuple(scales.shape)} scales and {tuple(zeros.shape)} zero points of {outputs} outputs")
    if groups is None:
        groups = torch.arange(inputs) // -(-inputs // scales.shape[1])
    weight = torch.empty(outputs, inputs)
    for part in blocks(numbers, inputs):
        weight[part] = scales[part].float()[:, groups] * (numbers[part].int() - zeros[part].int()[:, groups])
    return weight


def gptq(settings: Mapping[str, Any]) -> Restore:
    """GPTQ (Frantar et al., 2022) as AutoGPTQ stores it: inputs are packed, and with `gptq` zero points are one too small."""
    bits, offset = settings["bits"], 0 if settings.get("checkpoint_format") == "gptq_v2" else 1

    def restore(module: str, parts: Mapping[str, Tensor]) -> Tensor:
        zeros = (unpacked(parts["qzeros"], bits).int() + offset) & ((1 << bits) - 1)
        groups = parts["g_idx"].long() if "g_idx" in parts else None
        return of_groups(unpacked(parts["qweight"].T, bits), zeros.T, parts["scales"].T, groups)

    return restore


AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where the numbers of 8 successive outputs stand in a word of AutoAWQ's layout GEMM."""


def awq(settings: Mapping[str, Any]) -> Restore:
    """AWQ (Lin et al., 2023) as AutoAWQ stores it for its kernel GEMM: outputs are packed in the order AWQ_ORDER."""

    def outputs_first(words: Tensor) -> Tensor:
        return unpacked(words, settings["bits"]).unflatten(-1, (-1, 8))[..., list(AWQ_ORDER)].flatten(-2).T

    return lambda module, parts: of_groups(
        outputs_first(parts["qweight"]), outputs_first(parts["qzeros"]), parts["scales"].T
    )


def fp8(settings: Mapping[str, Any]) -> Restore:
    """8-bit floats with a scale for each block of weight_block_size, or one scale without it, as transformers stores them."""
    block = settings.get("weight_block_size")

    def restore(module: str, parts: Mapping[str, Tensor]) -> Tensor:
        weight, scale = parts["weight"].float(), parts["weight_scale_inv"].float()
        if block:
            rows, columns = weight.shape
            if scale.shape != (-(-rows // block[0]), -(-columns // block[1])):
                raise ValueError(f"{tuple(scale.shape)} scales of a weight {tuple(weight.shape)}")
            for number, factors in enumerate(scale):
                weight[number * block[0] : (number + 1) * block[0]] *= factors.repeat_interleave(block[1])[:columns]
            return weight
        return weight.mul_(scale)

    return restore


def compressed_tensors(settings: Mapping[str, Any]) -> Restore:
    """compressed-tensors, by the package of that name: a scheme for each group of modules."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.config import CompressionFormat
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
    from compressed_tensors.utils.match import match_name

    known = QuantizationConfig.model_fields.keys()
    config = QuantizationConfig.model_validate({key: value for key, value in settings.items() if key in known})
    schemes: list[QuantizationScheme] = list(config.config_groups.values())

    def restore(module: str, parts: Mapping[str, Tensor]) -> Tensor:
        if "weight_g_idx" in parts:
            raise ValueError("its groups are in the order of activations (weight_g_idx)")
        named = (each for each in schemes if any(match_name(module, target) for target in each.targets))
        by_class = (each for each in schemes if "Linear" in each.targets)
        scheme = next(named, None) or next(by_class)
        layout = CompressionFormat(scheme.format or infer_module_format(torch.nn.Linear, scheme))
        compressor = BaseCompressor.get_value_from_registry(layout.value)
        weight: Tensor = compressor.decompress(dict(parts), scheme)["weight"]
        return weight

    return restore


FORMATS: Mapping[str, Callable[[Mapping[str, Any]], Restore]] = {
    "gptq": gptq,
    "awq": awq,
    "fp8": fp8,
    "compressed-tensors": compressed_tensors,
}
"""`quant_method` -> from quantization_config to the function that restores a weight. The names are those of RESTORED."""
