"""A training on rows with images uses their pixels, resumes exactly, and publishes a model that answers about pictures."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests import tinyvision
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.media.pictures import read_picture
from tunesmith_runtime.multimodal.encoder import MediaEncoder
from tunesmith_runtime.multimodal.processor import MediaProcessor
from tunesmith_runtime.multimodal.sources import MediaSource
from tunesmith_runtime.storage.directory import download_directory
from tunesmith_runtime.train.losses.log_probs import token_log_probs
from tunesmith_runtime.train.reporting import MetricsLog
from tunesmith_runtime.train.rollouts.rollout import Answer, collate
from tunesmith_runtime.train.rollouts.sampler import Sampling, sample_rows
from tunesmith_runtime.train.rows.media_batches import MediaCollator, features_of
from tunesmith_runtime.train.trainers.base import RunMixin
from tunesmith_runtime.workdir import DataFile

SETTINGS = {"epochs": 8, "globalBatchSize": 16, "microBatchSize": 8, "learningRate": 3e-3}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    return tinyvision.add_processor(tinyvision.make_model(folder, "qwen2_5_vl"), "qwen2_5_vl")


def beside(run: Run, pictures: Path) -> Run:
    """The run with rows that name the files in the folder `pictures`."""
    run.work.write_data_files([DataFile(path="00.jsonl", uri=f"file://{pictures}/train.jsonl", dataset=0)])
    return run


def answer(model: Any, processor: Any, picture: bytes) -> str:
    """The greedy answer of transformers."""
    message = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": read_picture(picture).pixels},
                {"type": "text", "text": "what is it?"},
            ],
        }
    ]
    inputs = processor.apply_chat_template(
        message, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        found = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return str(processor.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def test_a_merged_model_names_the_colours_of_new_pictures_and_resumes_exactly(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tinyvision.picture_rows(tmp_path / "pictures", 64)
    run = beside(make_run(tmp_path / "run", base, rows, SETTINGS, tuner="full"), tmp_path / "pictures")
    assert run.do(train.run).outcome is Outcome.SUCCEEDED

    artifacts = run.do(export.run).artifacts or []
    merged = tmp_path / "merged"
    download_directory(run.directory.storage, artifacts[-1].uri, merged)
    model, processor = AutoModelForImageTextToText.from_pretrained(merged), AutoProcessor.from_pretrained(merged)
    answers = {colour: answer(model, processor, tinyvision.picture(colour, seed=9)) for colour in tinyvision.COLOURS}
    assert answers == {colour: colour for colour in tinyvision.COLOURS}

    stopped = beside(make_run(tmp_path / "stopped", base, rows, SETTINGS, tuner="full"), tmp_path / "pictures")
    resumed, report = stop_and_resume(
        stopped, base, rows, 7, monkeypatch, lambda run: beside(run, tmp_path / "pictures")
    )
    assert report.resumed_from_step == 8  # the signal is handled at the end of the next step
    assert all(0 <= entry["loading_share"] <= 1 for entry in run.log_history())
    assert [entry["loss"] for entry in resumed.log_history()] == [entry["loss"] for entry in run.log_history()]


def test_a_picture_that_changed_after_the_rows_were_read_ends_the_run_by_its_name(base: Path, tmp_path: Path) -> None:
    rows = tinyvision.picture_rows(tmp_path / "pictures", 16)
    run = beside(make_run(tmp_path / "run", base, rows, {"epochs": 9, "globalBatchSize": 16}), tmp_path / "pictures")
    first = MetricsLog.on_log

    def on_log(*arguments: Any, **options: Any) -> None:
        for path in (*(tmp_path / "pictures").glob("*.png"), *(run.work.examples / "media").glob("*")):
            path.unlink()
        first(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "on_log", on_log)
        with pytest.raises(RunFailure, match=r"an image changed after the rows were read: .*\.png") as failure:
            run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_ROW


def test_a_checkpoint_that_lacks_weights_is_refused(base: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(base)
    trainer = SimpleNamespace(model=model)
    RunMixin._issue_warnings_after_load(trainer, SimpleNamespace(missing_keys=[*model.all_tied_weights_keys]))  # type: ignore[arg-type]
    with pytest.raises(RunFailure, match=r"lacks 1 weights of the model, the first of them a\.weight") as failure:
        RunMixin._issue_warnings_after_load(trainer, SimpleNamespace(missing_keys=["a.weight"]))  # type: ignore[arg-type]
    assert failure.value.failure is FailureClass.STORAGE_CORRUPT


def test_a_batch_without_images_has_no_features(base: Path) -> None:
    media = MediaEncoder(MediaProcessor.load(base), MediaSource({}.get))
    collate = MediaCollator(lambda rows: {"input_ids": torch.tensor([[1, 2]])}, media)
    assert collate([{"input_ids": [1, 2], "media": None}])["media"] == {}
    assert "media" not in collate([{"input_ids": [1, 2]}])


def rated_rows(folder: Path, method: str) -> list[dict[str, Any]]:
    """Rows whose good answer is the colour of the picture, and whose bad answer is the next colour."""
    colours = [*tinyvision.COLOURS]
    rows: list[dict[str, Any]] = []
    for row in tinyvision.picture_rows(folder, 64):
        right, asked = row["answer"], {"image": row["image_path"], "query": row["text"]}
        wrong = colours[(colours.index(right) + 1) % len(colours)]
        if method == "kto":
            rows += [{**asked, "response": right, "label": True}, {**asked, "response": wrong, "label": False}]
        else:
            rows.append({**asked, "response": right, "rejected_response": wrong})
    return rows


@pytest.mark.parametrize(
    "method", ["dpo", "kto", *(pytest.param(each, marks=pytest.mark.deep) for each in ("orpo", "simpo", "cpo"))]
)
def test_what_is_preferred_depends_on_the_picture(base: Path, tmp_path: Path, method: str) -> None:
    """Each colour is as often right as wrong, so that a model that does not see the picture prefers neither."""
    rows = rated_rows(tmp_path / "pictures", method)
    settings = {**SETTINGS, "epochs": 8 if method != "kto" else 6}
    run = beside(make_run(tmp_path / "run", base, rows, settings, method=method, tuner="full"), tmp_path / "pictures")
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    if method == "kto":
        good, bad = (
            mean(entry[name] for entry in run.log_history(name)[-8:]) for name in ("rewards/chosen", "rewards/rejected")
        )
        assert good > 0 > bad
    else:
        assert run.log_history("rewards/accuracies")[-1]["rewards/accuracies"] > 0.9


def test_a_method_of_text_alone_refuses_images(base: Path, tmp_path: Path) -> None:
    rows = rated_rows(tmp_path / "pictures", "dpo")
    run = beside(make_run(tmp_path / "run", base, rows, SETTINGS, method="reward"), tmp_path / "pictures")
    with pytest.raises(RunFailure, match="the row has images, and method reward learns from text alone") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_completions_about_pictures_are_those_of_transformers(base: Path) -> None:
    """In a batch of prompts of different lengths with none, one and two images."""
    model, own = AutoModelForImageTextToText.from_pretrained(base), AutoProcessor.from_pretrained(base)
    files = {colour: tinyvision.picture(colour, 32 + 16 * at, 32) for at, colour in enumerate(tinyvision.COLOURS)}
    media = MediaEncoder(MediaProcessor.load(base), MediaSource(files.get))
    uris = [["red"], [], ["blue", "yellow"]]
    asked = [
        [
            {
                "role": "user",
                "content": [
                    *({"type": "image", "image": read_picture(files[uri]).pixels} for uri in each),
                    {"type": "text", "text": "which?"},
                ],
            }
        ]
        for each in uris
    ]
    inputs = [
        own.apply_chat_template(each, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
        for each in asked
    ]
    expected = [
        model.generate(**each, max_new_tokens=6, do_sample=False, suppress_tokens=sorted(media.processor.slot_ids))
        for each in inputs
    ]
    prompts = [each["input_ids"][0].tolist() for each in inputs]
    sampling = Sampling(6, [own.tokenizer.eos_token_id], own.tokenizer.pad_token_id, temperature=0)
    rows = [
        {"input_ids": ids, "index": at, "media": each or None}
        for at, (ids, each) in enumerate(zip(prompts, uris, strict=True))
    ]
    found = sample_rows(model, rows, sampling, 0, media)
    assert [[*prompt, *tokens] for prompt, tokens in zip(prompts, found, strict=True)] == [
        each[0].tolist() for each in expected
    ]


def test_the_log_probs_of_answers_in_a_batch_are_those_of_each_with_its_own_images(base: Path) -> None:
    model, own = AutoModelForImageTextToText.from_pretrained(base), AutoProcessor.from_pretrained(base)
    files = {colour: tinyvision.picture(colour, 32 + 16 * at, 32) for at, colour in enumerate(tinyvision.COLOURS)}
    media = MediaEncoder(MediaProcessor.load(base), MediaSource(files.get))
    answers = [Answer(0, [71, 70], 1.0), Answer(1, [84, 71, 70], 1.0), Answer(2, [72], 1.0)]
    uris = [["red"], [], ["blue", "yellow"]]
    prompts, expected = [], []
    for each, answer in zip(uris, answers, strict=True):
        images = [{"type": "image", "image": read_picture(files[uri]).pixels} for uri in each]
        question = [{"role": "user", "content": [*images, {"type": "text", "text": "which?"}]}]
        inputs = own.apply_chat_template(
            question, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        prompts.append(inputs["input_ids"][0].tolist())
        ids = torch.tensor([[*prompts[-1], *answer.tokens]])
        types = torch.nn.functional.pad(inputs.pop("mm_token_type_ids"), (0, len(answer.tokens)))
        features = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
        with torch.no_grad():
            logits = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=types, **features
            ).logits[0]
        expected.append(logits.log_softmax(dim=1)[:-1].gather(1, ids[0, 1:, None])[-len(answer.tokens) :, 0])
    batch = collate(prompts, answers, own.tokenizer.pad_token_id)
    batch |= features_of(uris, batch["input_ids"], media)
    with torch.no_grad():
        found, is_token = token_log_probs(model, model.get_output_embeddings(), batch)
    torch.testing.assert_close(found[is_token], torch.cat(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.deep
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_reward_of_answers_about_pictures_rises(base: Path, tmp_path: Path, method: str) -> None:
    """The model has learned to answer with some colour, and learns by rewards with which."""
    rows = tinyvision.picture_rows(tmp_path / "pictures", 64)
    first = beside(
        make_run(tmp_path / "first", base, rows, {**SETTINGS, "epochs": 8}, tuner="full"), tmp_path / "pictures"
    )
    first.do(train.run)
    artifacts = first.do(export.run).artifacts or []
    started = tmp_path / "started"
    download_directory(first.directory.storage, artifacts[-1].uri, started)
    prompts = [
        {"prompt": [{"role": "user", "content": row["text"]}], "image": row["image_path"], "answer": row["answer"]}
        for row in rows
    ]
    run = beside(
        make_run(
            tmp_path / "run",
            started,
            prompts,
            {"epochs": None, "maxSteps": 60, "globalBatchSize": 64, "learningRate": 5e-4},
            method=method,
            tuner="full",
            rewards=[{"name": "right", "type": "edits"}],
            **{method: {"numGenerations": 8, "maxCompletionLength": 8, "beta": 0}},
        ),
        tmp_path / "pictures",
    )
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    rewards = [entry["reward"] for entry in run.log_history("reward")]
    assert mean(rewards[-10:]) > mean(rewards[:10]) + 0.08, rewards
