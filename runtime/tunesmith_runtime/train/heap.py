"""The heap of the C library in a training on a CPU: where memory is short, that of freed tensors returns to the system."""

from __future__ import annotations

import ctypes
import logging
import os

from tunesmith_api.finetunejob_status import Estimate

log = logging.getLogger(__name__)

MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD in glibc's malloc.h."""
MAPPED_BYTES = 64 << 10
"""Minimum size of a block that gets its own memory mapping. Nearly all activations are larger."""
VARIABLE = "MALLOC_MMAP_THRESHOLD_"
"""Environment variable with a user's own threshold (mallopt(3))."""

FRAGMENTED = 1.4
"""Memory of a training whose freed tensors stay on the heap, relative to the sum of the tensors that are kept."""


def is_short(estimate: Estimate | None) -> bool:
    """Whether the pod may have too little memory for the gaps that freed tensors leave on the heap."""
    if estimate is None or not (estimate.memory_bytes and estimate.memory and estimate.device_memory_bytes):
        return False
    runtime = estimate.memory.runtime or 0
    return runtime + FRAGMENTED * (estimate.memory_bytes - runtime) > estimate.device_memory_bytes


def return_freed_tensors() -> None:
    """Map blocks of MAPPED_BYTES or more separately, so that the system gets their memory back when they are freed.

    By default, glibc raises this threshold to up to 32 MiB when blocks are freed. Tensors then share a heap, whose gaps
    remain in memory. Mapping each tensor separately can double the duration of a training. No effect with another C
    library, or if the environment sets the threshold.
    """
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names or VARIABLE in os.environ:
        return
    if not ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, MAPPED_BYTES):
        log.warning("mallopt refused M_MMAP_THRESHOLD: the training needs more memory than estimated")
