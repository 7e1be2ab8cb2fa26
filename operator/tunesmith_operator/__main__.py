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
"""Objects: what a few looks make. By default memory is searched for cycles after 700, which is a twentieth of the CPU."""


def main() -> None:
    """Run until stopped; leave without waiting for anything that might still want to write.

    Nor is the event loop closed: it would close kopf's streams, one within the other, all at once, which fails.
    """
    log.configure()
    config = load_config()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)
    try:
        code = asyncio.Runner(loop_factory=uvloop.new_event_loop).run(run(config))
    except BaseException:
        logging.getLogger(__name__).critical("the operator ended", exc_info=True)
        code = 1
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
