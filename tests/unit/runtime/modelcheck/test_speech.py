"""What speech models do not support is refused by the field, before rows are read."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.speech import check_speech

WHISPER = {"model_type": "whisper"}


def job(**spec: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {"model": {"uri": "s3://models/whisper"}, "datasets": [{"uri": "s3://data/train.jsonl"}], **spec}
    )


@pytest.mark.parametrize(
    ("spec", "field", "hint"),
    [
        ({"method": "dpo"}, "method dpo", "set spec.method: sft"),
        ({"method": "pretrain"}, "method pretrain", "set spec.method: sft"),
        ({"tuner": "qlora"}, "tuner qlora", "set spec.tuner to one of lora, dora, full"),
        ({"lora": {"init": "eva"}}, "lora.init eva", "remove spec.lora.init"),
        ({"training": {"packing": True}}, "training.packing true", "set spec.training.packing: false"),
        ({"training": {"streaming": True, "maxSteps": 9}}, "training.streaming true", "set spec.training.streaming: false"),
        ({"training": {"compile": True}}, "training.compile true", "set spec.training.compile: false"),
        ({"samples": {"prompts": ["Hi"]}}, "samples", "remove spec.samples"),
        ({"parallelism": {"strategy": "fsdp"}}, "parallelism.strategy fsdp", "set spec.parallelism.strategy: ddp"),
        ({"parallelism": {"tensorParallel": 2}}, "parallelism.tensorParallel 2", "remove spec.parallelism.tensorParallel"),
        ({"parallelism": {"contextParallel": 2}}, "parallelism.contextParallel 2", "remove spec.parallelism.contextParallel"),
        ({"parallelism": {"pipelineParallel": 2}}, "parallelism.pipelineParallel 2", "remove spec.parallelism.pipelineParallel"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_field_and_the_hint_what_to_write(spec: dict[str, Any], field: str, hint: str) -> None:
    with pytest.raises(RunFailure) as refused:
        check_speech(job(**spec), WHISPER)
    assert refused.value.failure is FailureClass.BAD_SPEC
    assert str(refused.value.message) == f"{field} is not available for speech models (whisper) in this version"
    assert refused.value.hint == hint
    check_speech(job(**spec), {"model_type": "llama"})


@pytest.mark.parametrize("spec", [{}, {"tuner": "full"}, {"tuner": "dora"}, {"parallelism": {"strategy": "ddp"}}])
def test_what_works_is_not_refused(spec: dict[str, Any]) -> None:
    check_speech(job(**spec), WHISPER)
