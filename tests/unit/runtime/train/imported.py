"""Imports what a training imports. The server of `worlds` does it once."""

from tunesmith_runtime.multimodal.processor import PACKAGES
from tunesmith_runtime.train.imports import hidden

with hidden({"deepspeed"} | PACKAGES):
    import trl  # noqa: F401

    from tunesmith_runtime.train import course  # noqa: F401
