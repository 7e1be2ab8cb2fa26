"""samples/step-N.json in the run's folder: the answers to the prompts of `samples` after a step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.storage import join

FOLDER = "samples"


def write_samples(run: RunDirectory, step: int, prompts: Sequence[str], answers: Sequence[str]) -> str:
    """Upload the answers of a step, and return the URI of the file; overwrites."""
    path = run.local / FOLDER / f"step-{step:08d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(prompts, answers, strict=True)]
    path.write_text(json.dumps({"step": step, "answers": pairs}, ensure_ascii=False, indent=1), encoding="utf-8")
    run.upload_file(path, f"{FOLDER}/{path.name}")
    return join(run.uri, FOLDER, path.name)


def read_samples(run: RunDirectory) -> list[dict[str, Any]]:
    """Return the rounds of answers in the order of their steps."""
    names = sorted(entry.path for entry in run.storage.list(join(run.uri, FOLDER)) if entry.path.endswith(".json"))
    return [json.loads(content) for name in names if (content := run.read_bytes(f"{FOLDER}/{name}"))]
