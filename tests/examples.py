"""How many examples a property is tested with."""

from __future__ import annotations

import os


def examples(quick: int) -> int:
    """Return the number of examples: `quick` in `make test`, and TUNESMITH_EXAMPLES where it is set, as in `make test-deep`."""
    return int(os.environ.get("TUNESMITH_EXAMPLES", quick))
