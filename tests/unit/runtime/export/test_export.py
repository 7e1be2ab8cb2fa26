"""The verb export: the merged model computes what base and adapter do, and run.json comes last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tinymodel
from tests.unit.runtime.train.support import Run, again, make_run, without_small_numbers
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome, RunReport
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.export import merge
from tunesmith_runtime.storage.directory import download_directory
from tunesmith_runtime.workdir import DataFile, Fetched, Work


@pytest.fixture(scope="module")
def exported(lora: tuple[Run, RunReport]) -> tuple[Run, RunReport]:
    """The shared LoRA run, merged and finished."""
    run, _ = lora
    return run, run.do(export.run)


def quick(folder: Path, tiny: Path, steps: int = 1, **spec: Any) -> Run:
    """A run that is trained for a step or so."""
    run = make_run(folder, tiny, tinymodel.rows(16, seed=1), {"maxSteps": steps}, **spec)
    run.do(train.run)
    return run


def test_the_merged_model_answers_as_well_as_the_adapter(exported: tuple[Run, RunReport], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, report = exported
    assert report.artifacts
    artifact = next(artifact for artifact in report.artifacts if artifact.name == "merged")
    download_directory(run.directory.storage, artifact.uri, tmp_path / "merged")
    model, tokenizer = (loader.from_pretrained(tmp_path / "merged") for loader in (AutoModelForCausalLM, AutoTokenizer))
    assert tinymodel.accuracy(model, tokenizer, tinymodel.rows(32, seed=2)) >= 0.9


def test_the_merged_model_has_all_files_of_a_model(exported: tuple[Run, RunReport]) -> None:
    run, _ = exported
    names = {path.name for path in (run.work.run / "merged").iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
    } <= names
    assert not {name for name in names if name.endswith((".bin", ".pt"))}


def test_merged_and_unmerged_logits_are_equal(exported: tuple[Run, RunReport], tiny: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run, _ = exported
    ids = [torch.randint(3, 512, (1, 40), generator=torch.Generator().manual_seed(0))]
    base = AutoModelForCausalLM.from_pretrained(tiny)
    untuned = merge.logits(base, ids)
    tuned = merge.logits(PeftModel.from_pretrained(base, str(run.work.run / "adapter")), ids)
    merged = merge.logits(AutoModelForCausalLM.from_pretrained(run.work.run / "merged"), ids)
    torch.testing.assert_close(merged, tuned, rtol=1e-4, atol=1e-4)
    assert float((untuned[0] - tuned[0]).abs().max()) > 1.0


def test_prompts_from_data_are_bounded_in_length(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.write_data_files([DataFile(path="00.jsonl", uri="s3://data/train.jsonl", dataset=0)])
    (work.data / "00.jsonl").write_text(json.dumps({"text": "a"}) + "\n\n" + json.dumps({"text": "b" * (1 << 20)}))
    prompts = export._prompts(work)
    assert [len(prompt) for prompt in prompts] == [13, export.PROMPT_CHARACTERS]


def test_run_json_records_results_versions_and_inputs(exported: tuple[Run, RunReport]) -> None:
    run, report = exported
    record = run.directory.finished()
    assert record
    assert [artifact.name for artifact in record.artifacts] == ["adapter", "merged"]
    assert record.artifacts == report.artifacts
    assert record.metrics
    assert record.rows
    assert record.seeds == {"training": 42}
    assert record.template_hash
    assert {"torch", "transformers", "trl", "peft"} <= set(record.versions)
    assert run.directory.checkpoints() == []


def test_run_json_is_written_last(tmp_path: Path, tiny: Path) -> None:
    run = quick(tmp_path, tiny)
    folder = Path(run.directory.uri.removeprefix("file://"))
    run.do(export.run)
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    assert files[-1].name == "run.json"


def test_a_merge_with_other_logits_fails_the_run_and_publishes_nothing(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    run = quick(tmp_path, tiny, steps=4)
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self, **_: self.unload(), raising=False)
    with pytest.raises(RunFailure, match="logits of the merged model differ") as failure:
        run.do(export.run)
    assert failure.value.failure is FailureClass.MERGE_MISMATCH
    assert run.directory.finished() is None
    assert not [entry for entry in run.directory.storage.list(run.directory.uri) if entry.path.startswith("merged")]


def test_a_merge_that_equals_the_base_fails_as_nothing_learned(tmp_path: Path, tiny: Path) -> None:
    """The adapter has an effect in float32, and 16 bits round it away; following the hint keeps it."""
    base = without_small_numbers(tiny, tmp_path / "model", torch.bfloat16)
    training = {"maxSteps": 1, "learningRate": 1e-6}
    run = make_run(tmp_path / "merge", base, tinymodel.rows(16, seed=1), training)
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    with pytest.raises(RunFailure, match="would equal the base") as failure:
        run.do(export.run)
    assert failure.value.failure is FailureClass.NOTHING_LEARNED
    assert "export.merge: false" in str(failure.value.hint)
    assert run.directory.finished() is None
    kept = make_run(tmp_path / "keep", base, tinymodel.rows(16, seed=1), training, export={"merge": False})
    kept.do(train.run)
    assert kept.do(export.run).outcome is Outcome.SUCCEEDED


def test_nan_logits_are_a_mismatch() -> None:
    with pytest.raises(RunFailure):
        merge.compare_logits("merged", [torch.ones(2, 3)], [torch.full((2, 3), float("nan"))], 1e-4)


def test_a_base_in_bfloat16_is_merged_into_bfloat16(tmp_path: Path, tiny: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).save_pretrained(model)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(model)
    run = quick(tmp_path / "run", model)
    run.do(export.run)
    assert {tensor.dtype for tensor in load_file(run.work.run / "merged" / "model.safetensors").values()} == {
        torch.bfloat16
    }


@pytest.mark.parametrize(
    ("spec", "artifact"), [({"export": {"merge": False}}, "adapter"), ({"tuner": "full"}, "model")]
)
def test_without_a_merge_only_the_trained_weights_are_published(
    tmp_path: Path, tiny: Path, spec: dict[str, Any], artifact: str
) -> None:
    run = quick(tmp_path, tiny, **spec)
    process = run.start("export")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert "reloaded: logits differ" in printed
    record = run.directory.finished()
    assert record
    assert [made.name for made in record.artifacts] == [artifact]


def test_a_new_pod_exports_the_result_of_an_earlier_pod(tmp_path: Path, tiny: Path) -> None:
    rows = tinymodel.rows(16, seed=1)
    run = again(quick(tmp_path, tiny), tiny, rows, attempt=2)
    trained = run.do(train.run)
    assert trained.outcome is Outcome.SUCCEEDED
    report = run.do(export.run)
    assert [artifact.name for artifact in report.artifacts or []] == ["adapter", "merged"]


def test_export_only_reports_an_adopted_run(exported: tuple[Run, RunReport], tmp_path: Path) -> None:
    run, report = exported
    record = run.directory.finished()
    assert record
    adopted = Run(run.spec, type(run.work)(tmp_path))
    adopted.work.write_fetched(Fetched(run_id="x", run_uri=run.directory.uri, adopted=True, record=record.to_dict()))
    process = adopted.start("export", PYTHONPROFILEIMPORTTIME="1")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert "| torch" not in printed
    found = RunReport.model_validate_json(next(line for line in printed.splitlines() if line.startswith('{"verb"')))
    assert found.outcome is Outcome.ADOPTED
    assert found.artifacts == report.artifacts


def test_export_before_train_is_refused(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, tinymodel.rows(4))
    with pytest.raises(RunFailure, match=r"trained\.json is missing"):
        run.do(export.run)
