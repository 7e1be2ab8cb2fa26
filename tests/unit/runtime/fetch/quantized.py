"""Quantized copies of a model, in the layouts of different tools, with the weights that they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.unit.runtime.modelcheck.families import edit_json

GROUP, BLOCK = 32, 64
Parts = dict[str, Tensor]


def pack(numbers: Tensor, bits: int) -> Tensor:
    """Numbers (rows, columns) in int32 words, the first one in the lowest bits."""
    rows, per_word = numbers.shape[0], 32 // bits
    columns = numbers.numpy().astype(numpy.uint32).reshape(rows, -1, per_word)
    words = numpy.zeros(columns.shape[:2], numpy.uint32)
    for place in range(per_word):
        words |= columns[:, :, place] << numpy.uint32(bits * place)
    return torch.from_numpy(words.view(numpy.int32))


def rounded(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scales and zero points (outputs, groups), numbers (outputs, inputs), and the weight that they stand for."""
    groups = weight.unflatten(1, (-1, GROUP))
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    scales = ((high - low) / (2**bits - 1)).half()
    zeros = (-low / scales).round().clamp(1, 2**bits - 1)
    numbers = (groups / scales[..., None] + zeros[..., None]).round().clamp(0, 2**bits - 1)
    restored = (numbers - zeros[..., None]) * scales[..., None].float()
    return scales, zeros.long(), numbers.flatten(1).long(), restored.flatten(1)


def gptq(bits: int, offset: int, by_activation: bool = False) -> Callable[[Tensor], tuple[Parts, Tensor]]:
    def quantize(weight: Tensor) -> tuple[Parts, Tensor]:
        order = torch.randperm(weight.shape[1]) if by_activation else torch.arange(weight.shape[1])
        scales, zeros, numbers, restored = rounded(weight[:, order], bits)
        back = order.argsort()
        return {
            "qweight": pack(numbers[:, back], bits).T.contiguous(),
            "qzeros": pack(zeros.T - offset, bits),
            "scales": scales.T.contiguous(),
            "g_idx": (back // GROUP).int(),
        }, restored[:, back]

    return quantize


def awq(weight: Tensor) -> tuple[Parts, Tensor]:
    scales, zeros, numbers, restored = rounded(weight, 4)

    def packed(columns: Tensor) -> Tensor:
        return pack(columns.unflatten(1, (-1, 8))[..., [0, 2, 4, 6, 1, 3, 5, 7]].flatten(1), 4)

    return {"qweight": packed(numbers.T), "qzeros": packed(zeros.T), "scales": scales.T.contiguous()}, restored


def fp8(weight: Tensor) -> tuple[Parts, Tensor]:
    rows, columns = (-(-size // BLOCK) for size in weight.shape)
    small, scales, restored = (
        torch.empty_like(weight).to(torch.float8_e4m3fn),
        torch.empty(rows, columns),
        weight.clone(),
    )
    for row in range(rows):
        for column in range(columns):
            block = slice(row * BLOCK, (row + 1) * BLOCK), slice(column * BLOCK, (column + 1) * BLOCK)
            scales[row, column] = weight[block].abs().max() / 448
            small[block] = (weight[block] / scales[row, column]).to(torch.float8_e4m3fn)
            restored[block] = small[block].float() * scales[row, column]
    return {"weight": small, "weight_scale_inv": scales}, restored


def fp8_tensor(weight: Tensor) -> tuple[Parts, Tensor]:
    scale = weight.abs().max() / 448
    small = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": small, "weight_scale_inv": scale, "activation_scale": torch.ones(())}, small.float() * scale


def compressed(form: str, **weights: Any) -> tuple[dict[str, Any], Callable[[Tensor], tuple[Parts, Tensor]]]:
    """Settings and quantization by the compressor of compressed-tensors, which rounds to the nearest number."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    args = QuantizationArgs(**weights)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=form)

    def quantize(weight: Tensor) -> tuple[Parts, Tensor]:
        groups = weight.unflatten(1, (-1, args.group_size or weight.shape[1]))
        scale, zero = calculate_qparams(groups.amin(2), groups.amax(2), args)
        given = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
        stored = BaseCompressor.get_value_from_registry(form).compress(given, scheme)
        return dict(stored), fake_quantize(weight, scale, zero, args)

    settings = {"format": form, "config_groups": {"group_0": scheme.model_dump(mode="json")}, "ignore": ["lm_head"]}
    return settings, quantize


FORMATS: dict[str, Callable[[], tuple[dict[str, Any], Callable[[Tensor], tuple[Parts, Tensor]]]]] = {
    "gptq": lambda: ({"quant_method": "gptq", "bits": 4, "group_size": GROUP}, gptq(4, 1)),
    "gptq in the order of activations": lambda: (
        {"quant_method": "gptq", "bits": 8, "group_size": GROUP, "desc_act": True},
        gptq(8, 1, by_activation=True),
    ),
    "gptq_v2": lambda: ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"}, gptq(4, 0)),
    "awq": lambda: (
        {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "GEMM", "zero_point": True},
        awq,
    ),
    "fp8 by blocks": lambda: ({"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}, fp8),
    "fp8 by tensors": lambda: ({"quant_method": "fp8", "weight_block_size": None}, fp8_tensor),
    "W4A16": lambda: compressed(
        "pack-quantized", num_bits=4, type="int", symmetric=False, strategy="group", group_size=GROUP
    ),
    "W8A8": lambda: compressed("int-quantized", num_bits=8, type="int", symmetric=True, strategy="channel"),
    "FP8_DYNAMIC": lambda: compressed("float-quantized", num_bits=8, type="float", symmetric=True, strategy="channel"),
}


def quantize(model: Path, folder: Path, form: str) -> dict[str, Tensor]:
    """Write a copy of `model` with quantized linear layers to `folder`; return all weights that it stands for."""
    settings, quantized = FORMATS[form]()
    copytree(model, folder)
    stored, expected = {}, {}
    for name, weight in load_file(model / "model.safetensors").items():
        module = name.removesuffix(".weight")
        stored[name] = expected[name] = weight
        if module.endswith("_proj"):
            del stored[name]
            parts, expected[name] = quantized(weight)
            stored |= {f"{module}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    whole = {"quant_method": "compressed-tensors", **settings}
    edit_json(folder / "config.json", lambda config: config.update(quantization_config=whole))
    return expected


def files(folder: Path) -> dict[str, bytes]:
    """The files of a folder, as an upload."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors in a folder."""
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def config_of(folder: Path) -> dict[str, Any]:
    """config.json."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found
