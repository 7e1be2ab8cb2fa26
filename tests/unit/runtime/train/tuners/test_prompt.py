"""Tuner prompt: virtual tokens are trained before each row, published in PEFT's format, and resumed to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tests.unit.runtime.train.tuners.test_targets import job, model_of
from tunesmith_api.compatibility import refusals
from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.run import Outcome
from tunesmith_runtime import train
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.estimate.architecture import from_config
from tunesmith_runtime.estimate.setup import setup_of
from tunesmith_runtime.estimate.workload import assume
from tunesmith_runtime.fetch.row_count import light_encoder
from tunesmith_runtime.modelcheck.adapters import adapter_config, check_kind
from tunesmith_runtime.sample_files import read_samples
from tunesmith_runtime.train.losses.cross_entropy import answer_loss, plain_loss
from tunesmith_runtime.train.losses.log_probs import answer_log_probs
from tunesmith_runtime.train.models.files import load_model
from tunesmith_runtime.train.models.reference import reference_of
from tunesmith_runtime.train.models.trainable import named_tokens
from tunesmith_runtime.train.rollouts.sampler import Sampling, sample
from tunesmith_runtime.train.rows.batches import padded
from tunesmith_runtime.train.tuners.prompt import PROMPT

ROWS = tinymodel.rows(96)
COUNT = 8
SETTINGS: dict[str, Any] = {"epochs": 2, "globalBatchSize": 16, "precision": "fp32", "learningRate": 1e-1}


def prompt_run(folder: Path, model: Path, rows: list[dict[str, Any]] = ROWS, **spec: Any) -> Run:
    settings = SETTINGS | spec.pop("training", {})
    options = {"tuner": "prompt", "prompt": {"tokens": COUNT}, "export": {"merge": False}}
    return make_run(folder, model, rows, settings, **options, **spec)


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


def base(tiny: Path) -> Any:
    return load_model(tiny, dtype=torch.float32).eval()


def adapted(tiny: Path, text: str | None = None, tokens: int = COUNT, seed: int = 0) -> Any:
    settings = job(tuner="prompt", prompt={"tokens": tokens, "text": text})
    torch.manual_seed(seed)
    return PROMPT.apply(base(tiny), settings, None, named_tokens(AutoTokenizer.from_pretrained(tiny), settings))


def virtual(model: Any) -> torch.Tensor:
    return model.prompt_encoder["default"].embedding.weight.detach()


def logits_behind(model: Any, prompt: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Logits (tokens, vocabulary) of the base `model` at the tokens of a row behind the embeddings `prompt`."""
    row = model.get_input_embeddings()(torch.tensor(ids))
    with torch.no_grad():
        return model(inputs_embeds=torch.cat([prompt, row])[None], use_cache=False).logits[0, len(prompt) :]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[Run, Any]:
    run = prompt_run(tmp_path_factory.mktemp("prompt"), tiny, samples={"prompts": ["What is a kiwi?"], "maxTokens": 4})
    return run, run.do(train.run)


def test_the_loss_falls_and_only_the_virtual_tokens_are_published(whole: tuple[Run, Any], tiny: Path) -> None:
    run, report = whole
    assert report.outcome is Outcome.SUCCEEDED
    assert losses(run)[-1] < 0.8 * losses(run)[0]
    assert [artifact.name for artifact in report.artifacts or []] == ["adapter"]
    loaded = PeftModel.from_pretrained(base(tiny), str(run.work.run / "adapter"))
    assert virtual(loaded).shape == (COUNT, base(tiny).config.hidden_size)


def test_a_published_adapter_computes_what_its_embeddings_before_a_row_compute(
    whole: tuple[Run, Any], tiny: Path
) -> None:
    loaded = PeftModel.from_pretrained(base(tiny), str(whole[0].work.run / "adapter")).eval()
    ids = [*range(5, 25)]
    with torch.no_grad():
        found = loaded(input_ids=torch.tensor([ids]), use_cache=False).logits[0, COUNT:]
    expected = logits_behind(base(tiny), virtual(loaded), ids)
    assert torch.allclose(found, expected, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(found, base(tiny)(torch.tensor([ids])).logits[0], atol=1e-1)


def test_a_stopped_run_resumes_exactly(
    whole: tuple[Run, Any], tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed, report = stop_and_resume(prompt_run(tmp_path, tiny, samples=None), tiny, ROWS, 3, monkeypatch)
    assert losses(resumed) == losses(whole[0])
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in whole[1].artifacts or []]


def test_the_loss_is_that_of_the_labelled_tokens_behind_the_virtual_ones(tiny: Path) -> None:
    model = adapted(tiny)
    rows = [[*range(3, 20)], [*range(40, 51)]]
    labels = [[*[IGNORED] * 9, *row[9:]] for row in rows]
    batch = padded(rows, labels, 0)
    expected = torch.stack(
        [
            cross_entropy(
                logits_behind(model.get_base_model(), virtual(model), row)[8:-1], torch.tensor(row[9:]), reduction="sum"
            )
            for row in rows
        ]
    ).sum() / sum(len(row) - 9 for row in rows)
    head = model.get_output_embeddings()
    with torch.no_grad():
        assert float(answer_loss(model, head, batch)) == pytest.approx(float(expected), abs=1e-5)
        assert float(plain_loss(model, batch)) == pytest.approx(float(expected), abs=1e-5)


def test_virtual_tokens_begin_with_the_tokens_of_a_text_in_turn(tiny: Path) -> None:
    text = "What is a kiwi?"
    ids = AutoTokenizer.from_pretrained(tiny)(text, add_special_tokens=False)["input_ids"]
    table = base(tiny).get_input_embeddings().weight.detach()
    for count in (len(ids) - 1, 2 * len(ids) + 1):
        expected = table[(ids * 3)[:count]]
        assert virtual(adapted(tiny, text, count)).equal(expected)


def test_without_a_text_they_begin_with_tokens_of_the_vocabulary_by_the_seed(tiny: Path) -> None:
    table = base(tiny).get_input_embeddings().weight.detach()
    first, again, other = (virtual(adapted(tiny, seed=seed)) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    assert all((row == table).all(dim=1).any() for row in first)


def test_a_sampled_text_is_that_of_the_base_behind_the_virtual_tokens(tiny: Path) -> None:
    model = adapted(tiny)
    prompts = [[*range(3, 12)], [*range(40, 45)]]
    found = sample(model, prompts, Sampling(6, [], 0, temperature=0.0), seed=0)
    for prompt, completion in zip(prompts, found, strict=True):
        ids = [*prompt]
        for _ in range(6):
            ids.append(int(logits_behind(model.get_base_model(), virtual(model), ids)[-1].argmax()))
        assert completion == ids[len(prompt) :]


def test_samples_are_written_while_it_trains(whole: tuple[Run, Any]) -> None:
    first, *_, last = read_samples(whole[0].directory)
    assert first["answers"] != last["answers"]


def test_the_reference_of_preferences_is_the_base_without_virtual_tokens(tmp_path: Path, tiny: Path) -> None:
    model = adapted(tiny)
    batch = padded([[*range(3, 20)]], [[*[IGNORED] * 9, *range(12, 20)]], 0)
    found = reference_of(model, job(tuner="prompt", method="dpo"), bf16=False)(batch)
    plain = base(tiny)
    with torch.no_grad():
        expected = answer_log_probs(plain, plain.get_output_embeddings(), batch)
    assert torch.allclose(found.sums, expected.sums, atol=1e-5)
    run = prompt_run(tmp_path, tiny, preferences(16), method="dpo", training={"epochs": 4})
    run.do(train.run)
    margins = [entry["rewards/margins"] for entry in run.log_history()]
    assert margins[-1] > margins[0] + 0.01


@pytest.mark.parametrize(
    ("spec", "reason", "hint"),
    [
        ({"export": {"merge": True}}, "change no weight of the base", "set export.merge: false"),
        ({"method": "reward"}, "before texts that the model writes", "use tuner lora"),
        ({"method": "embed"}, "before texts that the model writes", "use tuner lora"),
        ({"training": {"packing": True}}, "not before each of its rows", "remove training.packing"),
        ({"parallelism": {"strategy": "fsdp"}}, "not divided among devices", "use tuner lora or full"),
    ],
)
def test_what_virtual_tokens_do_not_go_with_is_refused(spec: dict[str, Any], reason: str, hint: str) -> None:
    (found,) = refusals("FineTuneJob", {"tuner": "prompt", **spec})
    assert reason in found.message
    assert hint in str(found.hint)


def test_more_virtual_tokens_than_positions_are_refused() -> None:
    with pytest.raises(RunFailure, match=r"prompt.tokens is 64, and the model has 64 positions") as failure:
        PROMPT.check(model_of("llama"), job(tuner="prompt", prompt={"tokens": 64}), ())
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert failure.value.hint == "set spec.prompt.tokens to 32 or less"


def test_rows_leave_positions_for_the_virtual_tokens(tiny: Path) -> None:
    most = base(tiny).config.max_position_embeddings
    encoder = light_encoder(tiny, job(tuner="prompt", training={"maxLength": 4 * most}))
    assert encoder.max_length == most - 20


def test_engines_refuse_it_with_what_else_to_do(whole: tuple[Run, Any]) -> None:
    with pytest.raises(RunFailure, match="is PROMPT_TUNING: only plain LoRA adapters are served") as failure:
        check_kind(
            "polite", adapter_config("polite", whole[0].work.run / "adapter"), Engine.TRANSFORMERS, is_alone=True
        )
    assert failure.value.hint == "load it with PEFT beside its base, or train another with spec.tuner: lora"


def test_the_estimate_counts_virtual_tokens_as_trained_and_as_positions(tiny: Path) -> None:
    architecture = from_config(base(tiny).config.to_dict())
    found = setup_of(job(tuner="prompt", prompt={"tokens": 7}), architecture, assume(16, 50))
    assert found.trained == 7 * architecture.hidden
    assert found.batch.length == 57
