"""The heap of the C library in a training on a CPU: the memory of freed tensors returns to the system."""

from __future__ import annotations

import ctypes
import logging
import os

log = logging.getLogger(__name__)

MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD in glibc's malloc.h."""
MAPPED_BYTES = 64 << 10
"""Size from which a block is a memory mapping of its own. Nearly all activations are larger."""
VARIABLE = "MALLOC_MMAP_THRESHOLD_"
"""Environment variable by which users set the threshold themselves (mallopt(3))."""


def return_freed_tensors() -> None:
    """Map blocks of MAPPED_BYTES or more separately, so that the system gets their memory back when they are freed.

    By default, glibc raises this threshold to up to 32 MiB when blocks are freed. Tensors then share a heap, whose gaps
    remain in memory. No effect with another C library, or if the environment sets the threshold.
    """
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names or VARIABLE in os.environ:
        return
    if not ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, MAPPED_BYTES):
        log.warning("mallopt refused M_MMAP_THRESHOLD: the training needs more memory than estimated")
