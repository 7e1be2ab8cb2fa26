"""The tasks of a process that has imported the libraries (preload.py), so that a case takes seconds."""

from __future__ import annotations

import re
from pathlib import Path

from tests.bench.estimate.cases import Case
from tests.unit.runtime.train.support import Run
from tunesmith_runtime.train import run as train
from tunesmith_runtime.train.imports import hidden

FAMILIES = {"llama": "Llama", "qwen3": "Qwen3"}


def write_model(case: Case, folder: Path) -> None:
    """Write random weights, config and tokenizer of a case to `folder`."""
    import torch
    import transformers

    from tests import tinymodel

    with hidden():  # transformers imports classes when they are used
        tokenizer = tinymodel.make_tokenizer()
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        name = FAMILIES[case.family]
        config = getattr(transformers, f"{name}Config")(**case.config, **ends)
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForCausalLM")(config).to(getattr(torch, case.stored))
        model.generation_config = transformers.GenerationConfig(**ends)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def peak_of_training(run: Run) -> int:
    """Train, and return the bytes of resident memory that this process had at most (proc_pid_status(5), VmHWM)."""
    run.do(train)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10
