"""Imports the libraries of a training, in the fork server whose children are the processes that train."""

from __future__ import annotations

from tunesmith_runtime.train.heap import return_freed_tensors
from tunesmith_runtime.train.imports import hidden

return_freed_tensors()  # before the imports, as in the verb train
with hidden():
    import tunesmith_runtime.train.course  # noqa: F401
