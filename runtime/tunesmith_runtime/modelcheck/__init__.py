"""Consistency checks of a model folder before it is trained on, published, imported or served.

Weights are not loaded as a model: headers are read, and the architecture of config.json is built on torch's meta device.
torch is imported only in `check_model`. A model that has passed is known by the digest of its manifest.
"""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path

from tunesmith_runtime.modelcheck.config import check_task, quantization, read_config, refuse_quantized
from tunesmith_runtime.modelcheck.files import check_files
from tunesmith_runtime.modelcheck.tokenizer_files import check_tokenizer_files
from tunesmith_runtime.tasks import LANGUAGE, Task

log = logging.getLogger(__name__)

VERSION = 1
"""Version of the checks. Increase it with every new check, so that models that passed before are checked again."""


def check_model(uri: str, directory: Path, trusted: bool, is_lenient: bool, task: Task = LANGUAGE) -> bool:
    """Check files, config, weights and tokenizer of a model folder for a task; return whether every check was made.

    `is_lenient`: the model is for an engine with its own loaders, so quantized weights and architectures that transformers
    does not have are left to that engine. A model with its own code (`trusted`) is checked where it is loaded, because the
    code runs only there.

    Raises RunFailure (BadModel, ModelNotFound) with the name of the file.
    """
    started = time.monotonic()
    config = read_config(uri, directory)
    check_task(uri, config, task)
    if not is_lenient:
        refuse_quantized(uri, config)
    check_files(uri, directory)
    check_tokenizer_files(uri, directory)
    if quantization(config) or (trusted and "auto_map" in config):
        log.info("%s: weights and tokenizer are checked where they are loaded", uri)
        return False
    from tunesmith_runtime.multimodal.processor import PACKAGES
    from tunesmith_runtime.train.imports import hidden

    with hidden(PACKAGES):
        from tunesmith_runtime.modelcheck.tokenizer import check_tokenizer
        from tunesmith_runtime.modelcheck.weights import UnknownArchitecture, check_weights

        try:
            rows = check_weights(uri, directory, task)
        except UnknownArchitecture as error:
            if not is_lenient:
                raise error.failure from error
            log.warning("%s: left to the engine: %s", uri, error.failure.message)
            return False
        check_tokenizer(uri, directory, rows)
    log.info("checked %s in %.1f s", uri, time.monotonic() - started)
    return True


def check_fit(name: str, adapter: Path, base: Path, is_mixed: bool = True) -> bool:
    """Check an adapter against its checked base; return True. `is_mixed`: the engine transformers serves it.

    Raises RunFailure: BadModel for an adapter that does not fit, BadSpec for one whose rows cannot be mixed with others.
    """
    from tunesmith_runtime.multimodal.processor import PACKAGES
    from tunesmith_runtime.train.imports import hidden

    with hidden(PACKAGES):
        from tunesmith_runtime.modelcheck.adapter_batching import check_mixable
        from tunesmith_runtime.modelcheck.loading import META, load_weights, with_adapter
        from tunesmith_runtime.modelcheck.weights import check_numbers

        check_numbers(f"adapter {name}", adapter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about values that the meta device ignores
            model = with_adapter(load_weights(f"the base of adapter {name}", base, **META), name, adapter)
        if is_mixed:
            check_mixable(name, model)
    return True
