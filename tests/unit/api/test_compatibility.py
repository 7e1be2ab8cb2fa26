"""What this version does not have is refused, with a hint that names what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.choices import ANY, SEVERAL, Choice
from tunesmith_api.compatibility import CHOICES, LIMITS, SHARDED, WHOLE_OPTIMIZERS, refusals
from tunesmith_api.crdgen.crd import KINDS, root_schema
from tunesmith_api.crdgen.rules import conflict_rule
from tunesmith_api.method_facts import METHOD_FACTS, OTHER_LOSS_METHODS

SPEC: dict[str, Any] = {
    "model": {"uri": "s3://models/base"},
    "datasets": [{"uri": "s3://data/train.jsonl", "format": "auto"}],
    "method": "sft",
    "tuner": "lora",
    "training": {"packing": False, "lossOn": "answer"},
    "parallelism": {"nodes": 1, "strategy": "auto", "tensorParallel": 1},
    "resources": {"accelerator": "nvidia", "count": 1},
}


@pytest.mark.parametrize("method", METHOD_FACTS)
def test_a_spec_of_available_values_is_accepted(method: str) -> None:
    assert refusals("FineTuneJob", SPEC | {"method": method}) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"tuner": "qlora", "qlora": {"quantization": "hqq"}},
            "qlora.quantization hqq: not available in this version; use nf4 or int8",
        ),
        (
            {"export": {"quantize": {"method": "awq"}}},
            "export.quantize: not available in this version; remove the block",
        ),
        ({"output": {"uri": "pvc://claim/m"}}, "output.uri pvc://claim/m: not available in this version; use s3://"),
    ],
)
def test_an_unavailable_value_is_refused_with_the_alternative(change: dict[str, Any], sentence: str) -> None:
    assert [str(refusal) for refusal in refusals("FineTuneJob", SPEC | change)] == [sentence]


@pytest.mark.parametrize("form", ["vqa", "caption"])
def test_rows_with_images_are_learned_by_methods_that_read_them(form: str) -> None:
    spec = SPEC | {"datasets": [{"uri": "s3://data/train.jsonl", "format": form}]}
    assert refusals("FineTuneJob", spec) == []
    (refused,) = refusals("FineTuneJob", spec | {"method": "kto"})
    assert str(refused) == (
        f"datasets[].format {form} with method kto: such rows have one answer, which only method sft learns; use method sft"
    )
    (refused,) = refusals("FineTuneJob", spec | {"training": {"packing": True}})
    assert str(refused).endswith("rows with media are not packed in this version; remove training.packing")


def test_values_that_cannot_go_together_are_refused() -> None:
    spec = SPEC | {"tuner": "qlora", "resources": {"accelerator": "ascend"}}
    refused = refusals("FineTuneJob", spec)
    assert (refused[-1].message, refused[-1].hint) == (
        "tuner qlora with accelerator ascend: bitsandbytes has no Ascend kernels",
        "use tuner lora",
    )


@pytest.mark.parametrize(
    ("parallelism", "sentence"),
    [
        (
            {"tensorParallel": 2, "strategy": "fsdp"},
            (
                "parallelism.tensorParallel > 1 with strategy fsdp: slices of layers are not divided once more in "
                "this version; use strategy ddp, or remove parallelism.tensorParallel"
            ),
        ),
        (
            {"pipelineParallel": 2, "tensorParallel": 2},
            (
                "parallelism.pipelineParallel > 1 with tensorParallel > 1: stages are not divided once more in this version; "
                "set parallelism.tensorParallel: 1, or remove parallelism.pipelineParallel"
            ),
        ),
        (
            {"contextParallel": 2, "tensorParallel": 2},
            (
                "parallelism.contextParallel > 1 with tensorParallel > 1: not supported with contextParallel in this version; "
                "set parallelism.tensorParallel: 1, or remove parallelism.contextParallel"
            ),
        ),
        (
            {"strategy": "fsdp", "offload": "optimizer"},
            (
                "parallelism.offload optimizer with strategy fsdp: only ZeRO keeps the optimizer's state apart from the "
                "weights; use strategy zero1, zero2 or zero3, or with strategy fsdp offload: all"
            ),
        ),
    ],
    ids=["tensorParallel", "pipelineParallel", "contextParallel", "offload"],
)
def test_a_division_that_does_not_go_with_another_is_refused(parallelism: dict[str, Any], sentence: str) -> None:
    spec = SPEC | {"tuner": "full", "parallelism": parallelism}
    assert [str(refusal) for refusal in refusals("FineTuneJob", spec)] == [sentence]
    assert (
        refusals("FineTuneJob", spec | {"parallelism": {**parallelism, "tensorParallel": 1, "offload": "none"}}) == []
    )


@pytest.mark.parametrize("method", OTHER_LOSS_METHODS)
def test_stages_are_refused_with_a_method_whose_loss_they_do_not_compute(method: str) -> None:
    refused = refusals("FineTuneJob", SPEC | {"method": method, "parallelism": {"pipelineParallel": 2}})
    assert [each.hint for each in refused] == ["use method sft or pretrain, or remove parallelism.pipelineParallel"]


@pytest.mark.parametrize(
    "parallelism", [{"strategy": "fsdp"}, {"strategy": "zero3"}, {"tensorParallel": 2}, {"pipelineParallel": 2}]
)
def test_samples_are_refused_where_no_process_has_a_whole_model(parallelism: dict[str, Any]) -> None:
    """One process answers while the others wait for its next step."""
    (refused,) = refusals("FineTuneJob", SPEC | {"parallelism": parallelism, "samples": {"prompts": ["?"]}})
    assert refused.message.startswith("samples with ")
    assert refusals("FineTuneJob", SPEC | {"parallelism": {"strategy": "ddp"}, "samples": {"prompts": ["?"]}}) == []


def test_all_problems_are_reported_together() -> None:
    assert (
        len(
            refusals(
                "FineTuneJob",
                SPEC
                | {
                    "training": {"optimizer": "galore"},
                    "qlora": {"quantization": "hqq"},
                    "export": {"quantize": {}},
                },
            )
        )
        == 3
    )


def field_at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of the field at a path of the table. Raises KeyError if there is none."""
    for part in path.split("."):
        schema = schema["properties"][part.removesuffix("[]")]
        schema = schema["items"] if part.endswith("[]") else schema
    return schema


SCHEMAS = {kind.name: root_schema(kind)["properties"]["spec"] for kind in KINDS}
TUNE = SCHEMAS["FineTuneJob"]


SETTINGS = {
    "export.weights",
    "grpo.engine",
    "lora.init",
    "lora.modulesToSave",
    "lora.plusRatio",
    "lora.trainableTokens",
    "lora.useRslora",
    "parallelism.contextParallel",
    "parallelism.pipelineParallel",
    "parallelism.tensorParallel",
    "resources.accelerator",
    "rloo.engine",
    "samples",
    "training.freeze",
    "training.neftuneAlpha",
    "training.visionLearningRate",
    "training.truncation",
    "training.compile",
    "training.packing",
    "training.streaming",
    "training.lossOn",
}
"""Fields that have rows for the values alone that some method excludes."""


def test_every_limit_names_a_field_and_values_of_the_schema() -> None:
    for row in LIMITS:
        field = field_at(SCHEMAS[row.kind], row.field)
        assert set(row.allowed) <= set(field.get("enum", row.allowed)), row


def test_every_combination_names_fields_and_values_of_the_schema() -> None:
    for choice in CHOICES:
        for path, values in choice.excludes.items():
            assert set(values) <= set(values_of(TUNE, path)), choice


def values_of(schema: dict[str, Any], path: str) -> list[Any]:
    """The values that the field at a path can have."""
    field = field_at(schema, path)
    if field.get("type") == "integer":
        return [SEVERAL]
    return [True, False] if field.get("type") == "boolean" else field.get("enum", [])


@pytest.mark.parametrize("path", sorted({choice.field for choice in CHOICES if choice.field not in SETTINGS}))
def test_the_table_has_one_row_for_each_value_of_a_choice(path: str) -> None:
    """A row that excludes further values may come beside it."""
    rows = dict.fromkeys(value for choice in CHOICES if choice.field == path for value in choice.values)
    assert sorted(rows) == sorted(values_of(TUNE, path))


@pytest.mark.parametrize(
    ("choice", "rule"),
    [
        (
            Choice("export.quantize.method", ("awq",), excludes={"method": ("sft",)}),
            "!(has(self.export.quantize) && self.export.quantize.method == 'awq' && self.method == 'sft')",
        ),
        (
            Choice("parallelism.tensorParallel", (SEVERAL,), excludes={"method": ("gkd",)}),
            "!(self.parallelism.tensorParallel > 1 && self.method == 'gkd')",
        ),
        (
            Choice(
                "datasets[].format", ("text",), excludes={"lora.useRslora": ("true",), "datasets[].maxRows": ("1",)}
            ),
            (
                "!(self.datasets.exists(item, item.format == 'text')"
                " && has(self.lora) && self.lora.useRslora == 'true'"
                " && self.datasets.exists(item, has(item.maxRows) && item.maxRows == '1'))"
            ),
        ),
        (
            Choice("lora.plusRatio", ANY, excludes={"tuner": ("vera",)}),
            "!(has(self.lora) && has(self.lora.plusRatio) && self.tuner == 'vera')",
        ),
    ],
    ids=["block", "number", "list", "any value"],
)
def test_the_cel_of_a_combination_asks_first_whether_optional_fields_are_set(choice: Choice, rule: str) -> None:
    assert conflict_rule([choice], TUNE).expression == rule


def test_a_row_of_several_values_is_one_rule_whose_message_names_the_value() -> None:
    choice = Choice("tuner", ("ia3", "oft"), True, {"lora.useRslora": (True,)}, "a reason", "a hint")
    rule = conflict_rule([choice], TUNE)
    assert rule.expression == "!(self.tuner in ['ia3', 'oft'] && has(self.lora) && self.lora.useRslora)"
    assert rule.message_expression == "'tuner ' + self.tuner + ' with useRslora true: a reason; a hint'"


def test_rows_for_the_same_values_are_one_rule_whose_message_is_that_of_the_first_that_holds() -> None:
    method = Choice("training.packing", (True,), True, {"method": ("dpo", "kto")}, "a reason", "remove it")
    tuner = Choice("training.packing", (True,), True, {"tuner": ("prompt",)}, "another", "remove it")
    rule = conflict_rule([method, tuner], TUNE)
    either = "self.method in ['dpo', 'kto'] || self.tuner == 'prompt'"
    assert rule.expression == f"!(self.training.packing && ({either}))"
    chosen = "self.method in ['dpo', 'kto'] ? 'method ' + self.method + ': a reason' : 'tuner prompt: another'"
    assert rule.message_expression == f"'training.packing true with ' + ({chosen}) + '; remove it'"


def test_most_values_of_an_enum_are_written_as_all_but_the_others() -> None:
    choice = Choice("parallelism.strategy", SHARDED, excludes={"training.optimizer": WHOLE_OPTIMIZERS})
    expression = "!(!(self.parallelism.strategy in ['auto', 'ddp']) && self.training.optimizer != 'adamw')"
    assert conflict_rule([choice], TUNE).expression == expression


def test_an_unavailable_value_has_a_limit() -> None:
    unavailable = {choice.field for choice in CHOICES if not choice.is_available}
    limited = {row.field for row in LIMITS}
    assert [field for field in unavailable if not limited & {field, field.rpartition(".")[0]}] == []
