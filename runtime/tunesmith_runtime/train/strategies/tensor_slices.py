"""Slices of a model's weights, so that several processes compute its layers together, and the sums that they exchange.

A linear layer is divided by its outputs or by its inputs (Shoeybi et al., 2019, https://arxiv.org/abs/1909.08053). A process holds a
slice as an ordinary tensor, so that the optimizer steps it as any weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup as Group
from torch.distributed import all_gather, all_reduce, get_rank
from torch.nn.utils import clip_grads_with_norm_
from transformers.distributed.tensor_parallel import replace_layer_number_by_wildcard

from tunesmith_runtime.modelcheck.slices import check_sizes, not_sliced

BY_OUTPUTS, BY_INPUTS, PARTIAL = "colwise", "rowwise", "replicated_with_grad_allreduce"
"""Styles of a plan that this version has. The last one is for norms inside the divided layers."""
WHOLE = frozenset({"colwise_gather_output", "colwise_rep", "rowwise_split_input", "rowwise_rep", "embedding_rowwise"})
"""Styles of layers whose inputs and outputs are whole, so that they can stay whole too."""
SIZES = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
"""Settings of config.json that the processes divide."""
DIMENSION = "tensor_parallel_dimension"
"""Attribute of a sliced weight: the dimension that is divided."""


def divide(model: Any, group: Group) -> list[Any]:
    """Replace the weights of the layers that the plan of `model` divides by slices; return the handles of the hooks
    that exchange sums.

    Raises RunFailure (BadSpec) for a model without a plan, a plan with other styles, or a size that the group does not divide.
    """
    check_plan(model, group.size())
    hooks: list[Any] = []
    for module, style in list(planned(model)):
        if style == PARTIAL:
            hooks += [sum_gradient(weight, group) for weight in module.parameters() if weight.requires_grad]
        else:
            hooks += divide_linear(module, style == BY_OUTPUTS, group)
    return hooks


def planned(model: Any) -> Iterator[tuple[nn.Module, str]]:
    """Yield each module that the plan of a model divides, with its style."""
    for name, module in model.named_modules():
        style = (model.tp_plan or {}).get(replace_layer_number_by_wildcard(name))
        if style is not None and style not in WHOLE:
            yield module, style


def check_plan(model: Any, size: int) -> None:
    """Raise RunFailure (BadSpec) unless `size` processes can share the layers of a model."""
    name, styles = type(model).__name__, set((model.tp_plan or {}).values())
    if unknown := sorted(styles - WHOLE - {BY_OUTPUTS, BY_INPUTS, PARTIAL}):
        raise not_sliced(f"layers of {name} are divided as {unknown[0]}, which this version does not have")
    if not any(style != PARTIAL for _, style in planned(model)):
        raise not_sliced(f"transformers has no plan by which the layers of {name} are divided")
    config = model.config.get_text_config()
    check_sizes({key: getattr(config, key, None) for key in SIZES}, size)


def divide_linear(module: Any, by_outputs: bool, group: Group) -> list[Any]:
    """Replace the weights of a linear layer, or of LoRA around one, by slices; return the handles of its hooks.

    If the outputs are divided, each process computes a slice of them from whole inputs, and the gradients of the inputs
    are summed. If the inputs are divided, each process computes a part of the outputs, which are summed. LoRA's matrix
    at the divided side is divided with the layer. The other matrix is whole, and each process computes a part of its
    gradient.
    """
    linear = getattr(module, "base_layer", module)
    inward, outward = (list(getattr(module, name, {}).values()) for name in ("lora_A", "lora_B"))
    dimension, sliced, shared = (0, outward, inward) if by_outputs else (1, inward, outward)
    for each in (linear, *sliced):
        keep_slice(each.weight, dimension, group)
        if each.bias is not None and by_outputs:
            keep_slice(each.bias, dimension, group)
    hooks = [sum_gradient(each.weight, group) for each in shared if each.weight.requires_grad]
    if by_outputs:
        hook = module.register_forward_pre_hook(lambda _, inputs: (SumOfGradients.apply(inputs[0], group), *inputs[1:]))
    else:
        hook = module.register_forward_hook(lambda _, __, output: summed_outputs(output, linear.bias, group))
    return [*hooks, hook]


def keep_slice(weight: Any, dimension: int, group: Group) -> None:
    """Replace the values of a weight by the slice of this process. The weight stays the same object."""
    weight.data = weight.data.chunk(group.size(), dimension)[get_rank(group)].clone()
    setattr(weight, DIMENSION, dimension)


def dimension_of(weight: Any) -> int | None:
    """Return the divided dimension of a weight; None if it is whole."""
    return getattr(weight, DIMENSION, None)


def part_for(value: Any, weight: Any, group: Group) -> Any:
    """Return the slice of an optimizer's value, which is whole, for the slice `weight`; a count as it is."""
    dimension = dimension_of(weight)
    if dimension is None or not is_of(value, weight):
        return value
    return value.chunk(group.size(), dimension)[get_rank(group)].contiguous()


def whole_of(value: Any, weight: Any, group: Group) -> Any:
    """Return the whole value of an optimizer's state, from the parts for slices such as `weight`; a count is returned
    as it is."""
    return whole(value, dimension_of(weight) if is_of(value, weight) else None, group)


def is_of(value: Any, weight: Any) -> bool:
    """Return whether a value of the optimizer has a number for each number of a weight. Its count of steps has no dimension."""
    return isinstance(value, Tensor) and value.dim() == weight.dim()


def whole(value: Any, dimension: int | None, group: Group) -> Any:
    """Return the whole tensor on the CPU, from the slices of a group's processes; with dimension None, `value`."""
    if not isinstance(value, Tensor) or dimension is None:
        return value.detach().cpu() if isinstance(value, Tensor) else value
    slices = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(group.size())]
    all_gather(slices, value.detach().contiguous(), group=group)
    return torch.cat(slices, dimension).cpu()


def summed(value: Tensor, group: Group) -> Tensor:
    """Return the sum of the tensors of a group."""
    total = value.clone(memory_format=torch.contiguous_format)
    all_reduce(total, group=group)
    return total


def sum_gradient(weight: Any, group: Group) -> Any:
    """Sum the parts of a whole weight's gradient that the processes compute; return the handle of the hook."""
    return weight.register_hook(lambda gradient: summed(gradient, group))


def summed_outputs(output: Tensor, bias: Tensor | None, group: Group) -> Tensor:
    """Return the sum of the outputs of a group, all of which have the same bias."""
    if bias is None:
        return SumOfOutputs.apply(output, group)  # type: ignore[no-any-return]
    return SumOfOutputs.apply(output - bias, group) + bias  # type: ignore[no-any-return]


class SumOfGradients(torch.autograd.Function):
    """The function f of Shoeybi et al. (figure 3): a sum over the group in the backward pass."""

    @staticmethod
    def forward(context: Any, value: Tensor, group: Group) -> Tensor:
        """Return the value."""
        context.group = group
        return value.view_as(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return the sum of the gradients."""
        return summed(gradient, context.group), None


class SumOfOutputs(torch.autograd.Function):
    """The function g of Shoeybi et al.: a sum over the group in the forward pass."""

    @staticmethod
    def forward(context: Any, value: Tensor, group: Group) -> Tensor:
        """Return the sum of the values."""
        return summed(value, group)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return the gradient unchanged: it is the gradient of each value."""
        return gradient, None


def clip_gradients(parameters: Iterable[Any], max_norm: float, norm_type: float = 2.0, *, group: Group) -> Tensor:
    """Scale the gradients so that their norm is at most `max_norm`, and return the norm before: over the slices of a whole group."""
    trained = [weight for weight in parameters if weight.grad is not None]
    squares = torch.zeros(2, device=trained[0].device)
    for weight in trained:
        squares[int(dimension_of(weight) is None)] += weight.grad.float().square().sum()
    norm = (summed(squares[0], group) + squares[1]).sqrt()
    clip_grads_with_norm_(trained, max_norm, norm)
    return norm
