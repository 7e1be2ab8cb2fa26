"""`python -m tunesmith_operator`: run the operator in this process."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys

import uvloop

from tunesmith_operator import log
from tunesmith_operator.app import run
from tunesmith_operator.configuration import load_config

COLLECT_EVERY = 20_000
"""Allocated objects between garbage collections, about a few reconciles. The default of 700 takes a twentieth of the CPU."""


def main() -> None:
    """Run until stopped, and exit without waiting for tasks that might still write.

    The event loop is not closed: closing it fails, as it closes kopf's nested streams all at once.
    """
    log.configure()
    config = load_config()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)
    try:
        code = asyncio.Runner(loop_factory=uvloop.new_event_loop).run(run(config))
    except BaseException:
        logging.getLogger(__name__).critical("the operator crashed", exc_info=True)
        code = 1
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
