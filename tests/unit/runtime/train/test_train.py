"""The verb train on the tiny model: learning, reports, and failures with their cause."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.methods.texts import labelled, pairs
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome, ProgressReport, RunReport
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.storage.directory import read_manifest
from tunesmith_runtime.train.losses.cross_entropy import answer_loss
from tunesmith_runtime.train.training_result import read_result
from tunesmith_runtime.workdir import DataFile, Fetched

HELD_OUT = tinymodel.rows(32, seed=2)


def accuracy(base: Path, adapter: Path | None = None) -> float:
    """Return the accuracy of a saved model, with an adapter if given, on held-out rows."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter))
    return tinymodel.accuracy(model, AutoTokenizer.from_pretrained(base), HELD_OUT)


def test_lora_learns_the_task(lora: tuple[Run, RunReport], tiny: Path) -> None:
    run, _ = lora
    assert accuracy(tiny) <= 0.1
    assert accuracy(tiny, run.work.run / "adapter") >= 0.9


def test_full_tuning_learns_the_task(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, tinymodel.rows(256, seed=1), {"epochs": 2}, tuner="full")
    report = run.do(train.run)
    assert [artifact.name for artifact in report.artifacts or []] == ["model"]
    assert accuracy(run.work.run / "model") >= 0.9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_fully_tuned_model_is_stored_in_the_number_format_of_its_base(
    tmp_path: Path, tiny: Path, dtype: torch.dtype
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype).save_pretrained(model)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(model)
    run = make_run(tmp_path / "run", model, tinymodel.rows(16, seed=1), {"epochs": 1}, tuner="full")
    run.do(train.run)
    tuned = run.work.run / "model"
    assert {tensor.dtype for tensor in load_file(tuned / "model.safetensors").values()} == {dtype}
    assert json.loads((tuned / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


def test_the_report_has_rows_and_metrics(lora: tuple[Run, RunReport]) -> None:
    run, report = lora
    assert report.outcome is Outcome.SUCCEEDED
    assert report.rows
    assert (report.rows.kept, report.rows.validation) == (230, 26)
    assert report.metrics
    assert report.metrics.steps == 4 * 15
    assert report.metrics.train_loss == run.log_history()[-1]["loss"] < 0.6 * run.log_history()[0]["loss"]
    assert report.metrics.eval_loss
    assert report.metrics.tokens


def test_the_artifact_is_safetensors_with_tokenizer_and_template(
    lora: tuple[Run, RunReport],
) -> None:
    run, report = lora
    assert report.artifacts
    manifest = read_manifest(run.directory.storage, report.artifacts[0].uri)
    assert manifest
    assert {file.path for file in manifest.files} == {
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    config = json.loads((run.work.run / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "s3://models/tiny"


def test_metrics_are_in_the_run_folder_as_tensorboard_events(lora: tuple[Run, RunReport]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = lora
    logs = Path(run.directory.uri.removeprefix("file://")) / "logs"
    curves = EventAccumulator(str(logs))
    curves.Reload()
    assert {"train/loss", "train/learning_rate", "train/grad_norm", "eval/loss"} <= set(curves.Tags()["scalars"])
    assert [point.step for point in curves.Scalars("train/loss")] == list(range(1, 61))


def test_a_trained_run_is_not_trained_again(lora: tuple[Run, RunReport]) -> None:
    run, report = lora
    again = run.do(train.run)
    assert again == report


def test_an_adopted_run_does_not_import_torch(lora: tuple[Run, RunReport], tmp_path: Path) -> None:
    run, _ = lora
    adopted = Run(run.spec, type(run.work)(tmp_path))
    adopted.work.write_fetched(Fetched(run_id="x", run_uri="file:///x", adopted=True, record={}))
    process = adopted.start("train", PYTHONPROFILEIMPORTTIME="1")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert '"outcome":"Adopted"' in printed
    assert "| torch" not in printed


def test_progress_has_step_loss_pace_and_remaining_time(tmp_path: Path, tiny: Path) -> None:
    class Recorded(ProgressPusher):
        reports: list[ProgressReport] = []  # noqa: RUF012

        def push(self, report: ProgressReport) -> None:
            self.reports.append(report)

    run = make_run(tmp_path, tiny, tinymodel.rows(32, seed=1), {"epochs": 1}, validation={"fraction": 0.1})
    train.run(run.spec, run.work, Recorded(None, None))
    first, last = Recorded.reports[0], Recorded.reports[-1]
    assert (first.step, first.total_steps, first.stage) == (1, 2, "train")
    assert first.loss
    assert first.tokens_per_second
    assert first.rows
    assert (last.step, last.eta_seconds) == (2, 0)
    assert last.eval_loss


def test_each_validation_set_has_its_loss_beside_that_of_all_rows(tmp_path: Path, tiny: Path) -> None:
    short, long = tinymodel.rows(2, seed=2), tinymodel.rows(6, seed=3)
    sets = {f"{index}.jsonl": rows for index, rows in enumerate((short, long, short), start=1)}
    run = make_run(
        tmp_path, tiny, tinymodel.rows(8, seed=1), {"maxSteps": 1, "globalBatchSize": 2},
        validation={"datasets": [{"uri": f"s3://data/{name}"} for name in sets]},
    )  # fmt: skip
    files = run.work.data_files()
    for index, (name, rows) in enumerate(sets.items()):
        tinymodel.write_rows(run.work.data / name, rows)
        files.append(DataFile(path=name, uri=f"s3://data/{name}", validation=index))
    run.work.write_data_files(files)
    metrics = run.do(train.run).metrics
    assert metrics is not None
    assert metrics.eval_losses is not None
    first, second, third = metrics.eval_losses
    assert first == third != second
    assert min(first, second) < metrics.eval_loss < max(first, second)
    assert run.log_history("eval_loss")[-1]["eval_loss_1"] == second


@pytest.mark.parametrize(
    ("method", "rows"), [("dpo", preferences(16)), ("classify", labelled(16)), ("embed", pairs(16))]
)
def test_each_validation_set_of_rows_with_several_texts_or_labels_has_its_loss(
    method: str, rows: list[dict[str, Any]], tmp_path: Path, tiny: Path
) -> None:
    names = ("1.jsonl", "2.jsonl")
    run = make_run(
        tmp_path, tiny, rows[:8], {"maxSteps": 1, "globalBatchSize": 4}, method=method,
        validation={"datasets": [{"uri": f"s3://data/{name}"} for name in names]},
    )  # fmt: skip
    files = run.work.data_files()
    for index, name in enumerate(names):
        tinymodel.write_rows(run.work.data / name, rows[8 + 4 * index :][:4])
        files.append(DataFile(path=name, uri=f"s3://data/{name}", validation=index))
    run.work.write_data_files(files)
    metrics = run.do(train.run).metrics
    assert metrics is not None
    assert metrics.eval_losses is not None
    assert metrics.eval_loss == pytest.approx(sum(metrics.eval_losses) / 2)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"maxSteps": 2, "epochs": 4}, 2),
        ({"maxSteps": 40, "epochs": 2}, 8),
        ({"maxSteps": 10, "epochs": None}, 10),
        ({"maxSteps": None, "epochs": None}, 4),
    ],
)
def test_epochs_and_max_steps_both_bound_the_training(
    tmp_path: Path, tiny: Path, bounds: dict[str, Any], expected: int
) -> None:
    """64 rows in batches of 16: an epoch has 4 steps."""
    run = make_run(tmp_path, tiny, tinymodel.rows(64, seed=1), bounds)
    report = run.do(train.run)
    assert report.metrics
    assert report.metrics.steps == expected


def with_different_lengths(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Repeat answers 1 to 6 times, so that the mean over tokens differs from the mean over micro batches or rows."""
    for index, row in enumerate(rows):
        answer = row["messages"][-1]
        answer["content"] = " ".join([answer["content"]] * (1 + index % 6))
    return rows


def test_gradients_are_accumulated_to_the_global_batch(tmp_path: Path, tiny: Path) -> None:
    """The loss of a step is the mean over its tokens, for any micro batch."""
    rows = with_different_lengths(tinymodel.rows(32, seed=1))
    losses = []
    for micro in (16, 4):
        run = make_run(tmp_path / str(micro), tiny, rows, {"epochs": 1, "microBatchSize": micro})
        run.do(train.run)
        losses.append([entry["loss"] for entry in run.log_history()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def without(model: Path, folder: Path, *files: str) -> Path:
    """A model's folder without some of its files."""
    folder.mkdir(parents=True)
    for path in model.iterdir():
        if path.name not in files:
            (folder / path.name).symlink_to(path)
    return folder


def refused(
    tmp_path: Path, model: Path, rows: list[Any], training: dict[str, Any] | None = None, **spec: Any
) -> RunFailure:
    """Return the failure of a run that leaves no result in the store."""
    run = make_run(tmp_path, model, rows, training, **spec)
    with pytest.raises(RunFailure) as failure:
        run.do(train.run)
    assert read_result(run.directory) is None
    return failure.value


def test_a_nan_loss_ends_the_run(tmp_path: Path, tiny: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny / "model.safetensors")
    weights["model.norm.weight"][:] = 3e38  # finite, and its products are not
    model = without(tiny, tmp_path / "model", "model.safetensors")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    failure = refused(tmp_path, model, tinymodel.rows(16))
    assert failure.failure is FailureClass.DIVERGED
    assert failure.message == "the loss became nan in step 1"


def test_a_lack_of_device_memory_shows_before_the_first_step(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_runtime.train.losses import cross_entropy

    def run_out_of_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(cross_entropy, "answer_loss", run_out_of_memory)
    failure = refused(tmp_path, tiny, tinymodel.rows(16))
    assert failure.failure is FailureClass.DEVICE_OUT_OF_MEMORY
    assert "Tried to allocate 2.00 GiB" in failure.message


def test_the_dry_pass_uses_the_longest_rows_and_changes_nothing(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_runtime.train.losses import cross_entropy
    from tunesmith_runtime.train.trainers.base import RunMixin

    seen = []

    def recorded(model: Any, head: Any, inputs: Any, tokens: Any = None) -> torch.Tensor:
        seen.append((inputs["input_ids"].shape[1], torch.is_grad_enabled()))
        return answer_loss(model, head, inputs, tokens)

    rows = [*tinymodel.rows(31, seed=1), *tinymodel.rows(1, seed=123456)]
    plain = make_run(tmp_path / "plain", tiny, rows, {"epochs": 1, "maxLength": 64}, lora={"dropout": 0.1})
    with monkeypatch.context() as patched:
        patched.setattr(cross_entropy, "answer_loss", recorded)
        plain.do(train.run)
    assert seen[0] == (max(length for length, _ in seen), True)
    without_it = make_run(tmp_path / "without", tiny, rows, {"epochs": 1, "maxLength": 64}, lora={"dropout": 0.1})
    monkeypatch.setattr(RunMixin, "dry_pass", lambda *_: None)
    without_it.do(train.run)
    assert [entry["loss"] for entry in plain.log_history()] == [entry["loss"] for entry in without_it.log_history()]


def dropped(run: Run) -> list[dict[str, Any]]:
    """The rows of dropped.jsonl in the run's folder."""
    content = run.directory.storage.read_bytes(f"{run.directory.uri}/dropped.jsonl")
    return [] if content is None else [json.loads(line) for line in content.splitlines()]


def test_the_first_dropped_rows_are_in_the_run_folder(tmp_path: Path, tiny: Path) -> None:
    turns = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": " "}]
    rows = [*tinymodel.rows(32, seed=1), {"messages": turns}, {"messages": 2}]
    run = make_run(tmp_path, tiny, rows, {"epochs": 1}, onBadRow="Drop")
    report = run.do(train.run)
    assert report.rows
    assert report.rows.to_dict()["dropped"] == [{"reason": "BadRow", "count": 1}, {"reason": "EmptyAnswer", "count": 1}]
    assert [(row["reason"], row["place"]) for row in dropped(run)] == [
        ("EmptyAnswer", "line 33"),
        ("BadRow", "line 34"),
    ]


def test_the_first_dropped_rows_are_in_the_run_folder_of_a_failed_run(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, [*tinymodel.rows(2, seed=1), {"prompt": 2}], onBadRow="Drop")
    with pytest.raises(RunFailure, match=r"1 of 3 rows of s3://data/train\.jsonl are bad"):
        run.do(train.run)
    assert [row["place"] for row in dropped(run)] == ["line 3"]


def test_a_model_without_chat_template_is_refused_before_weights_are_read(tmp_path: Path, tiny: Path) -> None:
    model = without(tiny, tmp_path / "model", "chat_template.jinja", "model.safetensors")
    failure = refused(tmp_path, model, tinymodel.rows(8))
    assert failure.failure is FailureClass.CHAT_TEMPLATE_MISSING


@pytest.mark.parametrize(
    ("training", "spec", "sentence"),
    [
        ({"globalBatchSize": 16, "microBatchSize": 5}, {}, "globalBatchSize 16 is not a multiple"),
        ({}, {"lora": {"targetModules": ["wqkv"]}}, "lora.targetModules: .*wqkv"),
        ({}, {"lora": {"targetModules": ["lm_head"]}}, "lora.targetModules: .lm_head. names the output head"),
        ({}, {"resources": {"accelerator": "nvidia"}}, "resources.accelerator is nvidia"),
    ],
)
def test_a_spec_that_does_not_fit_the_model_or_the_pod_is_refused(
    tmp_path: Path, tiny: Path, training: dict[str, Any], spec: dict[str, Any], sentence: str
) -> None:
    failure = refused(tmp_path, tiny, tinymodel.rows(8), training, **spec)
    assert failure.failure is FailureClass.BAD_SPEC
    assert failure.hint
    assert re.search(sentence, failure.message)


def test_unreadable_weights_are_named(tmp_path: Path, tiny: Path) -> None:
    model = without(tiny, tmp_path / "model", "model.safetensors")
    assert refused(tmp_path, model, tinymodel.rows(8)).failure is FailureClass.MODEL_NOT_FOUND
