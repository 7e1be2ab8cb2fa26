"""NVIDIA GPUs, by the NVIDIA device plugin for Kubernetes."""

from __future__ import annotations


def devices(count: int) -> dict[str, str]:
    """Whole GPUs."""
    return {"nvidia.com/gpu": str(count)}


def env(computes: bool) -> dict[str, str]:
    """Where it computes: less memory lost to fragments. Where not: no GPU at all.

    On nodes whose default container runtime is NVIDIA's, an image that says NVIDIA_VISIBLE_DEVICES=all would see every
    GPU of the node without having asked for one.
    """
    return {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"} if computes else {"NVIDIA_VISIBLE_DEVICES": "void"}


def groups() -> list[int]:
    """None: the device files are open to all."""
    return []
