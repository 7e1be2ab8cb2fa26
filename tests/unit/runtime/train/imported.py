"""Imports what a training imports. The server of `worlds` does it once."""

from tunesmith_runtime.train.imports import hidden

with hidden({"deepspeed"}):
    import trl  # noqa: F401

    from tunesmith_runtime.train import course  # noqa: F401
