"""Wait until CustomResourceDefinitions are served."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

OPTIONS = ("wait", "--for=condition=Established", "--timeout=60s")
SECONDS = 60.0


def until_established(kubectl: Callable[..., object], *definitions: str) -> None:
    """Wait for definitions, given as arguments of `kubectl wait`. `kubectl` raises AssertionError or CalledProcessError.

    kubectl fails at once on a definition that the API server has not given conditions yet; then it is asked again.
    """
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            kubectl(*OPTIONS, *definitions)
            return
        except (AssertionError, subprocess.CalledProcessError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
