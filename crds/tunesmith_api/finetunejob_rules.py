"""CEL rules of a FineTuneJob: incompatible settings, in addition to the table of `compatibility`."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith_api.base import Rule, listed
from tunesmith_api.batches import batch_rule, group_rule, sharing_rule
from tunesmith_api.grammar import cel_literal
from tunesmith_api.method_facts import HEAD_METHODS, SAMPLING_METHODS
from tunesmith_api.rewards import RewardType
from tunesmith_api.training import NO_PART, PARTS, trains_beside_language
from tunesmith_api.tuners import tuners_where

DEVICES = "(has(self.resources.count) ? self.resources.count : 1)"
SHARED_BY = ("self.parallelism.tensorParallel", "self.parallelism.pipelineParallel", "self.parallelism.contextParallel")
NUMBERS = ", ".join(("self.parallelism.nodes", DEVICES, *SHARED_BY))
"""CEL: what multiplies and divides the devices of a job."""
IN_BOUNDS = "n.all(each, each >= 1 && each <= 1024)"
"""CEL rules run although a bound of the schema is broken: unguarded arithmetic on such a value would fail."""
SHARING = "(n[2] * n[3] * n[4])"
"""CEL: devices that take the same rows. Two of the factors are 1."""


def _is_among(field: str, values: Sequence[str]) -> str:
    """CEL: the field of the spec has one of `values`."""
    return f"(self.{field} in {cel_literal(values)})"


SAMPLES = _is_among("method", SAMPLING_METHODS)
"""CEL: the method learns from completions that the model samples."""
ONCE = (RewardType.MODEL, RewardType.CODE)
"""Types of rewards that a job can have only once."""
HEADS = _is_among("method", HEAD_METHODS)
"""CEL: the method trains a model that does not write text."""
NOT_STREAMED = "!self.training.streaming"
"""CEL: the rows are read before the training."""


def _with_numbers(rule: str) -> str:
    """Return CEL of a rule in which n is the list of NUMBERS."""
    return f"[[{NUMBERS}]].all(n, {rule})"


SPEC_RULES: tuple[Rule, ...] = (
    Rule(
        "self.method != 'gkd' || has(self.gkd)",
        "method gkd learns from a teacher: set gkd.teacher, or another method",
    ),
    Rule(
        f"{SAMPLES} == has(self.rewards)",
        f"rewards go with methods {listed(SAMPLING_METHODS, 'and')}, which need them: set rewards, or remove them",
    ),
    *(
        Rule(
            f"!has(self.rewards) || self.rewards.filter(each, each.type == '{type_}').size() <= 1",
            f"a job has one reward of type: {type_} at most: remove the others",
        )
        for type_ in ONCE
    ),
    Rule(
        f"!has(self.rewards) || self.parallelism.tensorParallel == 1 || !self.rewards.exists(each, each.type in {cel_literal((RewardType.JUDGE, RewardType.CODE))})",
        "processes that share layers would ask a judge, or code, for other rewards each: set parallelism.tensorParallel: 1, or use other rewards",
    ),
    Rule(
        _with_numbers(group_rule(IN_BOUNDS, "n[0]", "n[1]", "n[2]")),
        "training.globalBatchSize counts completions, and each device takes whole groups: it is a multiple of the method's numGenerations "
        "x parallelism.nodes x resources.count; change one of them",
    ),
    Rule(
        f"!has(self.validation) || !{SAMPLES}",
        f"methods {listed(SAMPLING_METHODS, 'and')} have no validation loss, as they sample their own completions: remove validation",
    ),
    Rule(
        f"!has(self.lora) || !{_is_among('tuner', tuners_where(lambda facts: not facts.adapts_layers))}",
        "the block lora goes with tuners that adapt layers; remove the block or set tuner: lora",
    ),
    Rule(
        "self.tuner != 'ia3' || !has(self.lora) || !has(self.lora.dropout) || self.lora.dropout == 0.0",
        "tuner ia3 has no dropout: remove lora.dropout",
    ),
    Rule(
        "self.tuner != 'adalora' || !has(self.lora) || !has(self.lora.from)",
        "the ranks of an adapter of adalora are settled: remove lora.from, or go on from the merged model",
    ),
    Rule(
        "!has(self.adalora) || !has(self.adalora.initialRank) || self.adalora.initialRank > "
        "(has(self.lora) && has(self.lora.rank) ? self.lora.rank : 16)",
        "adalora.initialRank is reduced to lora.rank: set it to more than lora.rank (default 16)",
    ),
    Rule(
        "self.tuner != 'adalora' || !has(self.training) || !has(self.training.earlyStopping)",
        "the ranks of adalora are settled by the number of steps: remove training.earlyStopping",
    ),
    Rule(
        _with_numbers(batch_rule(IN_BOUNDS, "n[0]", "n[1]", SHARING)),
        "training.globalBatchSize is a multiple of all devices (parallelism.nodes x resources.count): change one of them",
    ),
    Rule(
        f"self.parallelism.offload == 'none' || self.parallelism.nodes > 1 || {DEVICES} > 1",
        "parallelism.offload is for several devices: remove it, or set parallelism.nodes or resources.count to more than 1",
    ),
    Rule(
        _with_numbers(sharing_rule(IN_BOUNDS, "n[0]", "n[1]", SHARING)),
        "parallelism.tensorParallel, pipelineParallel or contextParallel divides all devices (parallelism.nodes x resources.count): change one of them",
    ),
    Rule(
        f"!has(self.validation) || !has(self.validation.fraction) || {NOT_STREAMED}",
        "validation.fraction holds out a share of all rows, whose number is not known when they are streamed: use validation.uri",
    ),
    Rule(
        f"{NOT_STREAMED} || (!has(self.drop) && self.datasets.all(each, !has(each.weight)))",
        "weights and drop need all rows before the training, which streaming reads while it trains: remove them, or streaming",
    ),
    Rule(
        f"!has(self.lora) || !has(self.lora.from) || !{HEADS}",
        f"lora.from names an adapter of a model that writes text, which methods {listed(HEAD_METHODS, 'and')} do not train: remove lora.from",
    ),
    Rule(
        f"!has(self.samples) || !{HEADS}",
        f"samples are answers in words, which models of method {listed(HEAD_METHODS)} do not give: remove samples",
    ),
    Rule(
        f"self.tuner == 'full' || !has(self.training.freeze) || self.training.freeze.all(part, part in {cel_literal((*PARTS, NO_PART))})",
        f"an adapter freezes all weights of the model, and training.freeze names parts without adapters, {listed((*PARTS, NO_PART))}: "
        "remove other parts, or use tuner full",
    ),
    Rule(
        "!has(self.lora) || !has(self.lora.init) || self.lora.init != 'eva' || !has(self.training.freeze) || "
        f"!{trains_beside_language('self.training.freeze')}",
        "lora.init eva takes the inputs of layers on text, which vision and aligner do not read: remove lora.init, or training.freeze",
    ),
    Rule(
        "(!has(self.training.maxPixels) && !has(self.training.minPixels)) || self.tuner == 'full' || self.export.merge",
        "training.maxPixels and minPixels are saved with a merged model; an adapter is served with the processor of its base: "
        "set export.merge: true",
    ),
    Rule(
        "!has(self.training.earlyStopping) || has(self.validation)",
        "training.earlyStopping watches the validation loss: set validation, or remove earlyStopping",
    ),
    Rule(
        "self.export.weights == 'last' || has(self.validation)",
        "export.weights best is the step with the lowest validation loss: set validation, or weights: last",
    ),
    Rule(
        "!has(self.training.chatTemplate) || self.tuner == 'full' || self.export.merge",
        "training.chatTemplate is saved with a merged model; an adapter is served with the template of its base: set export.merge: true",
    ),
    Rule(
        "!has(self.maxBadShare) || self.onBadRow == 'Drop'",
        "maxBadShare goes with onBadRow: Drop; remove maxBadShare or set onBadRow: Drop",
    ),
    Rule(
        "!self.datasets.exists(each, has(each.weight)) || self.datasets.all(each, has(each.weight))",
        "weights are relative to each other: give each of datasets a weight, or none",
    ),
)
"""Of the spec."""

# An object of an older release has a status: the operator reports the fault there, which these rules would prevent.
JOB_RULES: tuple[Rule, ...] = (
    Rule(
        "(has(self.status) && has(self.status.phase)) || !has(self.spec.model.fineTuneJob)"
        " || self.spec.model.fineTuneJob.name != self.metadata.name",
        "spec.model.fineTuneJob names the job itself, which would wait for itself: name another, or set spec.model.uri",
        field_path=".spec.model.fineTuneJob.name",
    ),
    Rule(
        "(has(self.status) && has(self.status.phase)) || !has(self.spec.lora) || !has(self.spec.lora.from)"
        " || !has(self.spec.lora.from.fineTuneJob) || self.spec.lora.from.fineTuneJob.name != self.metadata.name",
        "spec.lora.from.fineTuneJob names the job itself, which would wait for itself: name another, or set spec.lora.from.uri",
        field_path=".spec.lora",
    ),
    Rule(
        "!has(self.spec.gkd) || !has(self.spec.gkd.teacher.fineTuneJob)"
        " || self.spec.gkd.teacher.fineTuneJob.name != self.metadata.name",
        "spec.gkd.teacher.fineTuneJob names the job itself, which would wait for itself: name another",
        field_path=".spec.gkd.teacher.fineTuneJob.name",
    ),
    Rule(
        "!has(self.spec.rewards) || !self.spec.rewards.exists(each, has(each.model) && has(each.model.fineTuneJob)"
        " && each.model.fineTuneJob.name == self.metadata.name)",
        "spec.rewards[].model.fineTuneJob names the job itself, which would wait for itself: name another",
        field_path=".spec.rewards",
    ),
)
"""Rules on the whole object, for which the spec is not enough: they need the name."""
