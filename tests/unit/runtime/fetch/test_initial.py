"""`lora.from`: the adapter is fetched beside the base, is part of the run's identity, and must go with the job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.fetch.support import ADAPTER, ADAPTER_CONFIG, MODEL, ROWS, Fetcher
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import ModelRole, ResolvedModel, RunSpec, Store
from tunesmith_runtime.chat_template import template_hash
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import join

LORA: dict[str, Any] = {"rank": 2, "alpha": 8}


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)


def adapter(**config: Any) -> dict[str, bytes]:
    return ADAPTER | {"adapter_config.json": json.dumps(ADAPTER_CONFIG | {"lora_alpha": 8} | config).encode()}


def tuning(fetcher: Fetcher, files: dict[str, bytes], base: dict[str, Any] | None = None, **spec: Any) -> RunSpec:
    """The RunSpec of a job that continues from the adapter of `files`, which was trained on `base`."""
    uri = fetcher.put("adapter", files)
    lora = LORA | spec.pop("lora", {}) | {"from": {"uri": uri}}
    run = fetcher.job(fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS}), lora=lora, **spec)
    initial = ResolvedModel.model_validate({"uri": uri, "base": base})
    return run.model_copy(update={"models": {**run.models, ModelRole.INITIAL: initial}})


def refusal(fetcher: Fetcher, asked: RunSpec) -> RunFailure:
    for verb in (fetcher.prepare, fetcher.fetch):
        with pytest.raises(RunFailure) as failure:
            verb(asked)
    assert failure.value.failure is FailureClass.BAD_SPEC
    return failure.value


def test_the_adapter_is_downloaded_beside_the_base(fetcher: Fetcher) -> None:
    report, work = fetcher.fetch(tuning(fetcher, adapter()))
    assert (work.root / "initial/adapter_model.safetensors").is_file()
    assert report.model_uri == f"{fetcher.store.uri}/base"
    assert set(work.fetched().fingerprints) >= {"model", "initial"}


def test_another_adapter_is_another_run(fetcher: Fetcher) -> None:
    first = fetcher.fetch(tuning(fetcher, adapter()))[0].run_uri
    assert fetcher.fetch(tuning(fetcher, adapter()))[0].run_uri == first
    assert fetcher.fetch(tuning(fetcher, adapter(lora_dropout=0.1)))[0].run_uri != first


@pytest.mark.parametrize(
    ("config", "spec", "message", "hint"),
    [
        ({"r": 4}, {}, "has rank 4, not 2", "set spec.lora.rank: 4"),
        ({"lora_alpha": 16}, {}, "has alpha 16, not 8", "set spec.lora.alpha: 16"),
        ({"use_rslora": True}, {}, "has useRslora true, not false", "set spec.lora.useRslora: true"),
        ({"use_dora": True}, {}, "is of tuner dora, not lora", "set spec.tuner: dora"),
        ({}, {"tuner": "loha"}, "is of tuner lora, not loha", "set spec.tuner: lora"),
        ({"init_lora_weights": "pissa"}, {}, "changes its base (init_lora_weights: pissa)", "merge it into its base"),
        ({}, {"lora": {"targetModules": ["v_proj"]}}, "adapts ['q_proj'], not ['v_proj']", "remove spec.lora.targetModules"),
    ],
)  # fmt: skip
def test_an_adapter_with_other_settings_is_refused_before_a_device_is_requested(
    fetcher: Fetcher, config: dict[str, Any], spec: dict[str, Any], message: str, hint: str
) -> None:
    found = refusal(fetcher, tuning(fetcher, adapter(**config), **spec))
    assert message in found.message
    assert hint in str(found.hint)


def test_an_adapter_of_another_base_is_refused(fetcher: Fetcher) -> None:
    found = refusal(fetcher, tuning(fetcher, adapter(), base={"uri": "s3://models/other", "digest": "d"}))
    assert "was trained on s3://models/other, not on" in found.message
    assert found.hint == "set spec.model: {uri: 's3://models/other'}"


def test_an_adapter_of_the_same_base_is_accepted(fetcher: Fetcher) -> None:
    uri = f"{fetcher.store.uri}/base"
    assert fetcher.fetch(tuning(fetcher, adapter(), base={"uri": uri}))[0].outcome == "Succeeded"


def test_an_adapter_that_does_not_fit_the_base_is_refused(fetcher: Fetcher) -> None:
    with pytest.raises(RunFailure, match="does not fit its base") as failure:
        fetcher.fetch(tuning(fetcher, adapter(target_modules=["nothing"])))
    assert failure.value.failure is FailureClass.BAD_MODEL


@pytest.mark.parametrize(
    ("config", "parallelism", "message", "hint"),
    [
        (
            {"modules_to_save": ["embed_tokens"]},
            {"tensorParallel": 2},
            "has modulesToSave, which does not go with parallelism.tensorParallel: not supported",
            "remove spec.parallelism.tensorParallel",
        ),
        (
            {"trainable_token_indices": [1]},
            {"strategy": "zero2"},
            "has trainableTokens, which does not go with parallelism.strategy: not supported",
            "set spec.parallelism.strategy: ddp",
        ),
        (
            {"modules_to_save": ["lm_head"]},
            {"pipelineParallel": 2},
            "has modulesToSave, which does not go with parallelism.pipelineParallel: not supported",
            "remove spec.parallelism.pipelineParallel",
        ),
    ],
)
def test_an_adapter_with_parts_that_its_devices_cannot_divide_is_refused(
    fetcher: Fetcher, config: dict[str, Any], parallelism: dict[str, Any], message: str, hint: str
) -> None:
    resources = {"accelerator": "nvidia", "count": 2}
    found = refusal(fetcher, tuning(fetcher, adapter(**config), parallelism=parallelism, resources=resources))
    assert message in found.message
    assert hint in str(found.hint)


def test_an_adapter_of_virtual_tokens_is_refused(fetcher: Fetcher) -> None:
    found = refusal(fetcher, tuning(fetcher, adapter(peft_type="PROMPT_TUNING")))
    assert "is of tuner prompt, from which no training continues" in found.message


OURS, THEIRS = b"{{ messages }}", b"{{ bos_token }}{{ messages }}"
CONFIG_FILE = json.loads(MODEL["tokenizer_config.json"])


def with_templates(fetcher: Fetcher, learned: dict[str, bytes], own: dict[str, bytes], **spec: Any) -> RunSpec:
    """A job whose adapter was trained with the template in the files `learned`, on a base with the files `own`."""
    asked = tuning(fetcher, adapter() | learned, **spec)
    fetcher.put("base", own)
    return asked


@pytest.mark.parametrize(
    "learned",
    [
        {"chat_template.jinja": THEIRS},
        {"tokenizer_config.json": json.dumps({"chat_template": THEIRS.decode()}).encode()},
    ],
    ids=["file", "config"],
)
def test_another_template_than_that_of_the_adapter_is_refused(fetcher: Fetcher, learned: dict[str, bytes]) -> None:
    found = refusal(fetcher, with_templates(fetcher, learned, {"chat_template.jinja": OURS}))
    assert "was trained with another chat template" in found.message
    assert template_hash(THEIRS.decode())[:12] in found.message
    assert "set spec.training.chatTemplate to the adapter's template" in str(found.hint)


def test_the_record_of_its_run_has_the_template_of_an_adapter_without_a_tokenizer(fetcher: Fetcher) -> None:
    record = json.dumps({"templateHash": template_hash(THEIRS.decode())}).encode()
    fetcher.storage.write_bytes(join(fetcher.store.uri, "run.json"), record)  # beside the folder of the adapter
    found = refusal(fetcher, with_templates(fetcher, {}, {"chat_template.jinja": OURS}))
    assert "was trained with another chat template" in found.message


@pytest.mark.parametrize(
    ("learned", "own"),
    [
        ({"chat_template.jinja": OURS}, {"chat_template.jinja": OURS}),
        ({}, {"chat_template.jinja": OURS}),
        ({"chat_template.jinja": THEIRS}, {}),
        (
            {"chat_template.jinja": OURS},
            {"tokenizer_config.json": json.dumps(CONFIG_FILE | {"chat_template": OURS.decode()}).encode()},
        ),
    ],
    ids=["equal", "unknown of the adapter", "none of the base", "equal in other files"],
)
def test_equal_and_unknown_templates_are_accepted(
    fetcher: Fetcher, learned: dict[str, bytes], own: dict[str, bytes]
) -> None:
    assert fetcher.prepare(with_templates(fetcher, learned, own))[0].outcome == "Succeeded"


def test_a_corpus_is_continued_without_a_template(fetcher: Fetcher) -> None:
    asked = with_templates(fetcher, {"chat_template.jinja": THEIRS}, {"chat_template.jinja": OURS}, method="pretrain")
    fetcher.put("data", {"a.jsonl": b'{"text": "a b a"}\n'})
    assert fetcher.prepare(asked)[0].outcome == "Succeeded"


@pytest.mark.parametrize(("named", "warns"), [(OURS, True), (THEIRS, False)])
def test_a_template_that_the_spec_names_is_a_choice(
    fetcher: Fetcher, tmp_path: Path, named: bytes, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "template.jinja"
    path.write_bytes(named)
    asked = with_templates(fetcher, {"chat_template.jinja": THEIRS}, {"chat_template.jinja": OURS})
    fetcher.prepare(asked.model_copy(update={"chat_template_file": str(path)}))
    assert ("was trained with another chat template" in caplog.text) is warns
