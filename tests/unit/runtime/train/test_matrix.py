"""Each method with each tuner that the table admits: it trains, resumes to the bit, and reloads as it was trained.

docs/reference/compatibility.md has the matrix, generated from the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import feedback, preferences
from tests.unit.runtime.train.methods.texts import labelled
from tests.unit.runtime.train.methods.texts import pairs as text_pairs
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.compatibility import available, refusals
from tunesmith_api.method_facts import Method
from tunesmith_api.run import ModelRole, Outcome
from tunesmith_runtime import export, train

pytestmark = pytest.mark.deep

PROMPTS = [{"prompt": row["messages"][:1]} for row in tinymodel.rows(16)]
TEXTS = [{"text": "one two three four five six seven"}] * 16
ROWS: Mapping[Method, list[dict[str, Any]]] = {
    Method.PRETRAIN: TEXTS,
    Method.KTO: feedback(16),
    **dict.fromkeys((Method.GRPO, Method.RLOO, Method.PPO), PROMPTS),
    **dict.fromkeys((Method.DPO, Method.ORPO, Method.SIMPO, Method.CPO, Method.REWARD), preferences(16)),
    Method.CLASSIFY: labelled(16),
    Method.EMBED: text_pairs(16),
    Method.RERANK: text_pairs(16, negatives=True),
}
"""Rows by method; others learn from conversations."""
GROUPS = {"numGenerations": 4, "maxCompletionLength": 4}
VOWEL = {"name": "vowel", "type": "format", "pattern": "e"}
BLOCKS: Mapping[Method, dict[str, Any]] = {
    Method.GRPO: {"grpo": GROUPS, "rewards": [VOWEL]},
    Method.RLOO: {"rloo": GROUPS, "rewards": [VOWEL]},
    Method.PPO: {"ppo": {"maxCompletionLength": 4}, "rewards": [VOWEL]},
    Method.GKD: {"gkd": {"teacher": {"uri": "s3://models/teacher"}, "maxCompletionLength": 4}},
}
"""Blocks that a method needs."""
TRAINING = {
    "maxSteps": 4,
    "epochs": 10,
    "globalBatchSize": 8,
    "maxLength": 64,
    "learningRate": 1e-3,
    "precision": "fp32",
}


def pairs() -> list[tuple[str, str]]:
    """Return the methods and tuners that go together."""
    return [
        (method, tuner)
        for method in available("method")
        for tuner in available("tuner")
        if not refusals("FineTuneJob", {"method": method, "tuner": tuner})
    ]


OPTIONS: Mapping[str, dict[str, Any]] = {
    "pissa": {"lora": {"init": "pissa"}},
    "olora": {"lora": {"init": "olora"}},
    "eva": {"lora": {"init": "eva"}},
    "loftq": {"tuner": "qlora", "lora": {"init": "loftq"}},
    "modulesToSave": {"lora": {"modulesToSave": ["embed_tokens", "norm"]}},
    "trainableTokens": {"lora": {"trainableTokens": ["<|im_end|>"]}},
    "plusRatio": {"lora": {"plusRatio": 4}},
    "targetPattern": {"lora": {"targetPattern": r".*layers\.1\..*"}},
    "freeze": {"tuner": "full", "training": {"freeze": ["layers:0"]}},
}
"""Options of tuners that change what is trained."""


OF_TUNERS: Mapping[str, dict[str, Any]] = {
    "adalora": {"adalora": {"initialRank": 6}},
    "prompt": {"prompt": {"tokens": 4}, "export": {"merge": False}},
}
"""Settings that a tuner needs."""


def matrix_run(folder: Path, model: Path, method: str, tuner: str, option: str | None = None) -> Run:
    chosen = OPTIONS[option] if option else {}
    options: dict[str, Any] = dict(OF_TUNERS.get(tuner, {}))
    if tuner not in ("full", "prompt"):
        options["lora"] = {"rank": 4, **chosen.get("lora", {})}
    training = TRAINING | chosen.get("training", {})
    rows = ROWS.get(Method(method), tinymodel.rows(16))
    run = make_run(
        folder, model, rows, training, method=method, tuner=tuner, **BLOCKS.get(Method(method), {}), **options
    )
    return with_teacher(run, model)


def options() -> list[tuple[str, str]]:
    """Return the methods and options that go together."""
    return [
        (method, option)
        for method in available("method")
        for option, chosen in OPTIONS.items()
        if not refusals("FineTuneJob", {"method": method, "tuner": "lora", **chosen})
    ]


def with_teacher(run: Run, model: Path) -> Run:
    if run.spec.fine_tune_job().method is Method.GKD:
        run.work.model(ModelRole.TEACHER).symlink_to(model)
    return run


@pytest.mark.parametrize(("method", "tuner"), pairs())
def test_a_stopped_run_ends_as_an_undisturbed_one(
    method: str, tuner: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_resume(method, tuner, None, tmp_path, tiny, monkeypatch)


@pytest.mark.parametrize(("method", "option"), options())
def test_a_stopped_run_with_an_option_of_its_tuner_does_so_too(
    method: str, option: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_resume(method, OPTIONS[option].get("tuner", "lora"), option, tmp_path, tiny, monkeypatch)


def check_resume(
    method: str, tuner: str, option: str | None, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = matrix_run(tmp_path / "whole", tiny, method, tuner, option)
    expected = whole.do(train.run)
    assert expected.outcome is Outcome.SUCCEEDED
    run = matrix_run(tmp_path / "stopped", tiny, method, tuner, option)
    rows = ROWS.get(Method(method), tinymodel.rows(16))
    resumed, report = stop_and_resume(run, tiny, rows, 1, monkeypatch, lambda pod: with_teacher(pod, tiny))
    assert report.resumed_from_step
    assert [entry["loss"] for entry in resumed.log_history()] == [entry["loss"] for entry in whole.log_history()]
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
    assert resumed.do(export.run).outcome is Outcome.SUCCEEDED  # its weights reload as they were trained
