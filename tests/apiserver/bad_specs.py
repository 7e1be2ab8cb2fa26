"""Minimal specs, changes of them that the API server rejects, and the fixes that its messages propose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TUNE: dict[str, Any] = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/train.jsonl"}]}
EVAL: dict[str, Any] = {"model": {"fineTuneJob": {"name": "support"}}, "benchmarks": [{"name": "gsm8k", "limit": 200}]}
SERVE: dict[str, Any] = {"model": {"fineTuneJob": {"name": "support"}}}
GOOD = {"FineTuneJob": TUNE, "EvalJob": EVAL, "InferenceService": SERVE}


@dataclass(frozen=True)
class Bad:
    """A valid spec with a `change`, and text of the message that rejects it."""

    kind: str
    change: dict[str, Any]
    expected: str
    name: str = field(default="support")


BAD = {
    "unknown field": Bad("FineTuneJob", {"trainign": {}}, 'unknown field "spec.trainign"'),
    "unknown nested field": Bad("FineTuneJob", {"training": {"epoch": 3}}, 'unknown field "spec.training.epoch"'),
    "wrong type": Bad("FineTuneJob", {"training": {"epochs": "three"}}, "spec.training.epochs in body must be of type number"),
    "bad enum": Bad("FineTuneJob", {"method": "stf"}, 'supported values: "sft", "pretrain", "dpo"'),
    "bad bound": Bad("FineTuneJob", {"training": {"epochs": 0}}, "spec.training.epochs in body should be greater than 0"),
    "bad duration": Bad("FineTuneJob", {"deadline": "soon"}, '"soon" is not a duration: write numbers'),
    "bad scheme": Bad("FineTuneJob", {"model": {"uri": "http://models/base"}}, "is the address of a web page or a file on the web"),
    "no model": Bad("FineTuneJob", {"model": None}, "spec.model: Required value"),
    "no data set": Bad("FineTuneJob", {"datasets": []}, "spec.datasets in body should have at least 1 items"),
    "lora block with tuner full": Bad(
        "FineTuneJob",
        {"tuner": "full", "lora": {"rank": 8}},
        "the block lora goes with tuners that add an adapter; remove the block or set tuner: lora",
    ),
    "dropout of tuner ia3": Bad(
        "FineTuneJob", {"tuner": "ia3", "lora": {"dropout": 0.1}}, "tuner ia3 has no dropout: remove lora.dropout"
    ),
    "going on with an adapter of adalora": Bad(
        "FineTuneJob",
        {"tuner": "adalora", "lora": {"from": {"uri": "s3://models/adapter"}}},
        "the ranks of an adapter of adalora are settled: remove lora.from",
    ),
    "an initial rank below the target": Bad(
        "FineTuneJob",
        {"tuner": "adalora", "lora": {"rank": 8}, "adalora": {"initialRank": 8}},
        "adalora.initialRank is reduced to lora.rank: set it to more than lora.rank",
    ),
    "block of another method": Bad(
        "FineTuneJob", {"dpo": {"beta": 0.1}}, "the block dpo goes with method: dpo; remove the block"
    ),
    "two sources": Bad(
        "FineTuneJob",
        {"model": {"uri": "s3://models/b", "fineTuneJob": {"name": "a"}}},
        "set exactly one of name, uri, fineTuneJob, inferenceService",
    ),
    "no source": Bad("FineTuneJob", {"model": {"uri": None}}, "set exactly one of name, uri, fineTuneJob, inferenceService"),
    "a name and a URI": Bad(
        "FineTuneJob",
        {"datasets": [{"name": "alpaca-zh", "uri": "s3://data/rows.jsonl"}]},
        "set exactly one of name, uri",
    ),
    "the id of a repository as a name": Bad(
        "FineTuneJob",
        {"model": {"uri": None, "name": "Qwen/Qwen3-8B"}},
        '"Qwen/Qwen3-8B" is the id of a hub\'s repository: write hf://ORG/NAME in the field uri',
    ),
    "a name in capitals": Bad(
        "FineTuneJob", {"model": {"uri": None, "name": "Qwen3-8B"}}, '"Qwen3-8B" is not a name of the catalogue: write qwen3-8b'
    ),
    "two validations": Bad(
        "FineTuneJob", {"validation": {"fraction": 0.1, "uri": "s3://data/v.jsonl"}}, "set exactly one of fraction, uri, datasets"
    ),
    "samples without prompts": Bad("FineTuneJob", {"samples": {"prompts": []}}, "spec.samples.prompts"),
    "MIG profile of several devices": Bad(
        "FineTuneJob",
        {"resources": {"accelerator": "nvidia", "count": 2, "profile": "mig-1g.5gb"}},
        "profile is a part of one device of accelerator nvidia: remove profile, or count",
    ),
    "MIG profile with the domain": Bad(
        "FineTuneJob",
        {"resources": {"accelerator": "nvidia", "profile": "nvidia.com/mig-1g.5gb"}},
        "the value is not a MIG profile: write it as the node's resource nvidia.com/mig-... without the domain, such as mig-3g.40gb",
    ),
    "early stopping without validation": Bad(
        "FineTuneJob", {"training": {"earlyStopping": {}}}, "training.earlyStopping watches the validation loss: set validation, or remove earlyStopping"
    ),
    "best weights without validation": Bad(
        "FineTuneJob",
        {"export": {"weights": "best"}},
        "export.weights best is the step with the lowest validation loss: set validation, or weights: last",
    ),
    "share of bad rows that fail": Bad("FineTuneJob", {"maxBadShare": 0.5}, "maxBadShare goes with onBadRow: Drop; remove maxBadShare or set onBadRow: Drop"),
    "weight of one data set": Bad(
        "FineTuneJob",
        {"datasets": [{"uri": "s3://data/a.jsonl", "weight": 2}, {"uri": "s3://data/b.jsonl"}]},
        "weights are relative to each other: give each of datasets a weight, or none",
    ),
    "weight of validation rows": Bad(
        "FineTuneJob",
        {"validation": {"datasets": [{"uri": "s3://data/a.jsonl", "weight": 2}]}},
        "every row of validation.datasets is measured once: remove weight",
    ),
    "data of an evaluation without a name": Bad("FineTuneJob", {"decontaminate": [{"split": "test"}]}, "set exactly one of name, uri"),
    "data of a benchmark with name and uri": Bad(
        "EvalJob", {"benchmarks": [{"name": "own", "dataset": {"name": "gsm8k", "uri": "s3://data/a.jsonl"}}]}, "set exactly one of name, uri"
    ),
    "sample of all rows": Bad(
        "FineTuneJob", {"datasets": [{"uri": "s3://data/a.jsonl", "sample": True}]}, "sample draws maxRows rows: set maxRows, or remove sample"
    ),
    "template with a lone brace": Bad(
        "FineTuneJob",
        {"datasets": [{"uri": "s3://data/a.jsonl", "template": {"prompt": "{a} {", "completion": "{b}"}}]},
        "the value has a brace that encloses no column: write {COLUMN} for the value of a column, and two braces for a literal brace",
    ),
    "validation data without a scheme": Bad(
        "FineTuneJob",
        {"validation": {"datasets": [{"uri": "train.jsonl"}]}},
        "the value is not a data URI: write s3://BUCKET/FILE.jsonl, the folder s3://BUCKET/FOLDER or hf://ORG/NAME",
    ),
    "template and format": Bad(
        "FineTuneJob",
        {"datasets": [{"uri": "s3://data/a.jsonl", "format": "alpaca", "template": {"prompt": "{a}", "completion": "{b}"}}]},
        "template goes with format: auto; remove the format",
    ),
    "template of choices": Bad(
        "EvalJob",
        {"benchmarks": [{"name": "own", "dataset": {"uri": "s3://data/a.jsonl", "type": "multipleChoice", "template": {"prompt": "{a}", "completion": "{b}"}}}]},
        "template goes with type: qa; remove the template",
    ),
    "columns of a benchmark's own files": Bad(
        "EvalJob",
        {"benchmarks": [{"name": "gsm8k", "dataset": {"uri": "s3://data/gsm8k", "type": "benchmark", "columns": {"a": "query"}}}]},
        "columns are of your own rows; remove columns",
    ),
    "count of cpus": Bad(
        "FineTuneJob", {"resources": {"count": 2}}, "accelerator cpu has no count; remove count, or set accelerator: nvidia, ascend or amd"
    ),
    "variable of the operator": Bad(
        "FineTuneJob",
        {"pod": {"env": [{"name": "TUNESMITH_PROGRESS_TOKEN", "value": "x"}]}},
        "this variable is the operator's",
    ),
    "variable that steers what is fetched": Bad(
        "EvalJob",
        {"pod": {"env": [{"name": "https_proxy", "value": "http://elsewhere:3128"}]}},
        "endpoint, certificates and credentials belong in spec.storage",
    ),
    "fewer than no cores": Bad("FineTuneJob", {"resources": {"cpu": -1}}, "greater than or equal to 0"),
    "deadline beyond all calendars": Bad("FineTuneJob", {"deadline": "3000000d"}, "spec.deadline"),
    "label of the operator": Bad(
        "FineTuneJob",
        {"pod": {"labels": {"tunesmith.dev/uid": "x"}}},
        "labels below tunesmith.dev/ and app.kubernetes.io/ are the operator's; remove them",
    ),
    "quantization of a later version": Bad(
        "FineTuneJob", {"tuner": "qlora", "qlora": {"quantization": "hqq"}}, "qlora.quantization hqq: not available in this version; use nf4 or int8"
    ),
    "tuner without kernels on the accelerator": Bad(
        "FineTuneJob",
        {"tuner": "qlora", "resources": {"accelerator": "ascend"}},
        "tuner qlora with accelerator ascend: bitsandbytes has no Ascend kernels; use tuner lora",
    ),
    "quantization": Bad(
        "FineTuneJob",
        {"export": {"quantize": {"method": "awq"}}},
        "export.quantize: not available in this version; remove the block",
    ),
    "rewards without grpo": Bad(
        "FineTuneJob", {"rewards": [{"name": "a", "type": "accuracy"}]}, "rewards go with methods grpo, rloo and ppo, which need them"
    ),
    "gkd without a teacher": Bad("FineTuneJob", {"method": "gkd"}, "method gkd learns from a teacher: set gkd.teacher"),
    "a teacher without gkd": Bad(
        "FineTuneJob", {"gkd": {"teacher": {"name": "qwen3-8b"}}}, "the block gkd goes with method: gkd; remove the block"
    ),
    "a teacher of two sources": Bad(
        "FineTuneJob",
        {"method": "gkd", "gkd": {"teacher": {"name": "qwen3-8b", "uri": "s3://models/teacher"}}},
        "set exactly one of name, uri, fineTuneJob",
    ),
    "grpo without rewards": Bad("FineTuneJob", {"method": "grpo"}, "rewards go with methods grpo, rloo and ppo, which need them"),
    "ppo without rewards": Bad("FineTuneJob", {"method": "ppo"}, "rewards go with methods grpo, rloo and ppo, which need them"),
    "settings of ppo for another method": Bad("FineTuneJob", {"ppo": {"epochs": 2}}, "the block ppo goes with method: ppo; remove the block"),
    "ppo with validation": Bad(
        "FineTuneJob",
        {"method": "ppo", "rewards": [{"name": "a", "type": "accuracy"}], "validation": {"fraction": 0.1}},
        "methods grpo, rloo and ppo have no validation loss",
    ),
    "a value head trained by muon": Bad(
        "FineTuneJob",
        {"method": "ppo", "rewards": [{"name": "a", "type": "accuracy"}], "training": {"optimizer": "muon"}},
        "training.optimizer muon with method ppo: it trains no value head in this version; use optimizer adamw",
    ),
    "groups that do not fill a batch": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": "a", "type": "accuracy"}], "grpo": {"numGenerations": 5}},
        "training.globalBatchSize counts completions, and each device takes whole groups: it is a multiple of grpo.numGenerations",
    ),
    "groups that devices cannot share": Bad(
        "FineTuneJob",
        {
            "method": "rloo",
            "rewards": [{"name": "a", "type": "accuracy"}],
            "rloo": {"numGenerations": 8},
            "parallelism": {"nodes": 4},
        },
        "it is a multiple of rloo.numGenerations x parallelism.nodes x resources.count",
    ),
    "bounds of a ratio that is 1": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": "a", "type": "accuracy"}], "grpo": {"clip": {"high": 0.28}}},
        "clip goes with stepsPerRollout of 2 or more",
    ),
    "a form without a pattern": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": "a", "type": "format"}]},
        "pattern goes with type: format: set it, or remove it",
    ),
    "weights of other losses": Bad(
        "FineTuneJob",
        {"method": "dpo", "dpo": {"loss": ["sigmoid", "sft"], "lossWeights": [1]}},
        "dpo.lossWeights has a weight for each of dpo.loss",
    ),
    "smoothing that no loss reads": Bad(
        "FineTuneJob",
        {"method": "dpo", "dpo": {"labelSmoothing": 0.1}},
        "dpo.labelSmoothing goes with loss: [robust]; remove it, or add robust to dpo.loss",
    ),
    "packed pairs": Bad(
        "FineTuneJob", {"method": "dpo", "training": {"packing": True}}, "training.packing true with method dpo"
    ),
    "settings of a reward model for another method": Bad(
        "FineTuneJob", {"reward": {"centerCoefficient": 0.01}}, "the block reward goes with method: reward; remove the block"
    ),
    "a reward model on a quantized base": Bad(
        "FineTuneJob", {"method": "reward", "tuner": "qlora"}, "method reward with tuner qlora or adalora"
    ),
    "a reward model that goes on with an adapter": Bad(
        "FineTuneJob",
        {"method": "reward", "lora": {"from": {"uri": "s3://models/adapter"}}},
        "method reward trains a model with a head: remove lora.from",
    ),
    "a head trained by muon": Bad(
        "FineTuneJob",
        {"method": "reward", "training": {"optimizer": "muon"}},
        "method reward with optimizer muon: Muon would train the head as a matrix",
    ),
    "optimizer of a later version": Bad(
        "FineTuneJob", {"training": {"optimizer": "galore"}}, "training.optimizer galore: not available in this version; use adamw,"
    ),
    "a quantized base without qlora": Bad(
        "FineTuneJob", {"qlora": {}}, "the block qlora goes with tuner: qlora; remove the block"
    ),
    "batch that the devices do not divide": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 3}},
        "training.globalBatchSize is a multiple of all devices (parallelism.nodes x resources.count): change one of them",
    ),
    "a lowest learning rate above the highest": Bad(
        "FineTuneJob",
        {"training": {"learningRate": 0.0001, "minLearningRate": 0.001}},
        "minLearningRate is at most learningRate: lower it",
    ),
    "near one pod": Bad(
        "FineTuneJob",
        {"parallelism": {"near": {"topologyKey": "topology.kubernetes.io/zone"}}},
        "near is for several pods: remove it, or set nodes to more than 1",
    ),
    "chat template without a key": Bad(
        "FineTuneJob", {"training": {"chatTemplate": {"configMap": {"name": "templates"}}}}, "spec.training.chatTemplate.configMap.key"
    ),
    "stream without an end": Bad(
        "FineTuneJob",
        {"training": {"streaming": True, "epochs": 2}},
        "streaming ends after maxSteps, as the number of rows is not known beforehand: set maxSteps, and remove epochs",
    ),
    "share of a stream held out": Bad(
        "FineTuneJob",
        {"training": {"epochs": None, "streaming": True, "maxSteps": 9}, "validation": {"fraction": 0.1}},
        "validation.fraction holds out a share of all rows, whose number is not known when they are streamed: use validation.uri",
    ),
    "way of truncation": Bad("FineTuneJob", {"training": {"truncation": "right"}}, "spec.training.truncation"),
    "queue": Bad("FineTuneJob", {"queueName": "GPU queue"}, "spec.queueName"),
    "rows of a later version": Bad(
        "FineTuneJob",
        {"datasets": [{"uri": "s3://data/t.jsonl", "format": "vqa"}]},
        "datasets[].format vqa: not available in this version; use auto, messages, sharegpt, promptCompletion, alpaca, text, preference, prompt",
    ),
    "results in a claim": Bad(
        "FineTuneJob",
        {"output": {"uri": "pvc://claim/base"}},
        "output.uri pvc://claim/base: not available in this version; use s3://",
    ),
    "name of no claim": Bad(
        "FineTuneJob",
        {"model": {"uri": "pvc://My_Claim/base"}},
        "has no name of a claim: write pvc://CLAIM/PATH, with a PersistentVolumeClaim of this namespace",
    ),
    "key of no label": Bad(
        "FineTuneJob", {"pod": {"nodeSelector": {"gpu type": "a100"}}}, "a key of nodeSelector, labels or annotations is not a label key"
    ),
    "a job of itself": Bad(
        "FineTuneJob",
        {"model": {"uri": None, "fineTuneJob": {"name": "support"}}},
        "spec.model.fineTuneJob names the job itself, which would wait for itself: name another, or set spec.model.uri",
    ),
    "long name": Bad(
        "FineTuneJob", {}, "metadata.name has at most 45 characters, as pods are named after it: choose a shorter one", "a" * 46
    ),
    "name of a domain": Bad("InferenceService", {}, "metadata.name is a DNS label", "support.v2"),
    "name that begins with a digit": Bad("InferenceService", {}, "beginning with a letter", "2nd"),
    "gate without its benchmark": Bad(
        "EvalJob",
        {"gates": [{"benchmark": "gms8k", "min": 0.5}]},
        "every gate names one of spec.benchmarks: add the benchmark or mend the gate's name",
    ),
    "gate without a bar": Bad(
        "EvalJob", {"gates": [{"benchmark": "gsm8k"}]}, "set exactly one of min, max, maxRegression, minImprovement"
    ),
    "regression against nothing": Bad(
        "EvalJob",
        {"gates": [{"benchmark": "gsm8k", "maxRegression": 0.02}]},
        "maxRegression and minImprovement compare with a baseline: set spec.baseline, or use min or max",
    ),
    "unreadable answers as a merit": Bad(
        "EvalJob",
        {"gates": [{"benchmark": "gsm8k", "metric": "unreadable", "min": 0.1}]},
        "a lower share of unreadable answers is better: gate the metric unreadable with max",
    ),
    "benchmark twice": Bad("EvalJob", {"benchmarks": [{"name": "mmlu"}, {"name": "mmlu"}]}, "Duplicate value"),
    "scores in a claim": Bad(
        "EvalJob",
        {"output": {"uri": "pvc://claim/base"}},
        "output.uri pvc://claim/base: not available in this version; use s3://",
    ),
    "serving what is served": Bad(
        "InferenceService",
        {"model": {"fineTuneJob": None, "inferenceService": {"name": "other"}}},
        "model.inferenceService is for EvalJobs: name the model by uri or fineTuneJob",
    ),
    "two metrics": Bad(
        "InferenceService",
        {"autoscaling": {"maxReplicas": 4, "targetCpuPercent": 80, "metric": {"name": "waiting", "average": 4}}},
        "scale by targetCpuPercent or by metric: remove one of them",
    ),
    "fewer at most than at least": Bad(
        "InferenceService",
        {"autoscaling": {"minReplicas": 4, "maxReplicas": 2}},
        "minReplicas is at most maxReplicas: swap or change them",
    ),
}  # fmt: skip

FOLLOWED_REFUSALS: dict[str, tuple[dict[str, Any], ...]] = {
    "lora block with tuner full": ({"lora": None}, {"tuner": "lora"}),
    "block of another method": ({"dpo": None},),
    "dropout of tuner ia3": ({"lora": {"dropout": None}},),
    "an initial rank below the target": ({"adalora": {"initialRank": 12}},),
    "two sources": ({"model": {"uri": None}}, {"model": {"fineTuneJob": None}}),
    "two validations": ({"validation": {"uri": None}}, {"validation": {"fraction": None}}),
    "share of bad rows that fail": ({"maxBadShare": None}, {"onBadRow": "Drop"}),
    "weight of one data set": (
        {"datasets": [{"uri": "s3://data/a.jsonl", "weight": 2}, {"uri": "s3://data/b.jsonl", "weight": 1}]},
        {"datasets": [{"uri": "s3://data/a.jsonl"}, {"uri": "s3://data/b.jsonl"}]},
    ),
    "weight of validation rows": ({"validation": {"datasets": [{"uri": "s3://data/a.jsonl"}]}},),
    "sample of all rows": (
        {"datasets": [{"uri": "s3://data/a.jsonl", "sample": True, "maxRows": 5}]},
        {"datasets": [{"uri": "s3://data/a.jsonl"}]},
    ),
    "template with a lone brace": (
        {"datasets": [{"uri": "s3://data/a.jsonl", "template": {"prompt": "{a} {{", "completion": "{b}"}}]},
    ),
    "validation data without a scheme": ({"validation": {"datasets": [{"uri": "s3://data/train.jsonl"}]}},),
    "template and format": (
        {"datasets": [{"uri": "s3://data/a.jsonl", "template": {"prompt": "{a}", "completion": "{b}"}}]},
    ),
    "count of cpus": (
        {"resources": {"count": None}},
        {"resources": {"accelerator": "nvidia"}},
        {"resources": {"accelerator": "ascend"}},
    ),
    "variable of the operator": ({"pod": {"env": None}},),
    "label of the operator": ({"pod": {"labels": None}},),
    "a reward model on a quantized base": ({"tuner": "lora"}, {"tuner": "full"}),
    "a reward model that goes on with an adapter": ({"lora": {"from": None}},),
    "a head trained by muon": ({"training": {"optimizer": "adamw"}},),
    "quantization of a later version": ({"qlora": {"quantization": "nf4"}}, {"qlora": {"quantization": "int8"}}),
    "optimizer of a later version": ({"training": {"optimizer": "adamw"}}, {"training": {"optimizer": "muon"}}),
    "tuner without kernels on the accelerator": ({"tuner": "lora"},),
    "quantization": ({"export": {"quantize": None}},),
    "rows of a later version": tuple(
        {"datasets": [{"uri": "s3://data/t.jsonl", "format": form}]}
        for form in ("auto", "messages", "sharegpt", "promptCompletion", "alpaca", "text", "queryResponse")
    ),
    "results in a claim": ({"output": {"uri": "s3://models/out"}},),
    "name of no claim": ({"model": {"uri": "pvc://my-claim/base"}},),
    "gate without its benchmark": (
        {"benchmarks": [{"name": "gsm8k"}, {"name": "gms8k"}]},
        {"gates": [{"benchmark": "gsm8k", "min": 0.5}]},
    ),
    "gate without a bar": (
        {"gates": [{"benchmark": "gsm8k", "min": 0.5}]},
        {"gates": [{"benchmark": "gsm8k", "max": 0.5}]},
    ),
    "regression against nothing": (
        {"baseline": {"uri": "s3://models/base"}},
        {"gates": [{"benchmark": "gsm8k", "min": 0.5}]},
    ),
    "scores in a claim": ({"output": {"uri": "s3://models/out"}},),
    "serving what is served": (
        {"model": {"inferenceService": None, "uri": "s3://models/base"}},
        {"model": {"inferenceService": None, "fineTuneJob": {"name": "support"}}},
    ),
    "two metrics": ({"autoscaling": {"metric": None}}, {"autoscaling": {"targetCpuPercent": None}}),
    "fewer at most than at least": ({"autoscaling": {"minReplicas": 2, "maxReplicas": 4}},),
    "batch that the devices do not divide": (
        {"training": {"globalBatchSize": 18}},
        {"parallelism": {"nodes": 2}},
    ),
    "near one pod": ({"parallelism": {"near": None}}, {"parallelism": {"nodes": 2}}),
}
"""Name in BAD -> each fix that the message proposes, as a change to the rejected spec."""

OUT_OF_BOUNDS = {
    "zero pods": ("FineTuneJob", {"parallelism": {"nodes": 0}}, "spec.parallelism.nodes"),
    "a negative number of pods": ("FineTuneJob", {"parallelism": {"nodes": -3}}, "spec.parallelism.nodes"),
    "more pods than a batch can have": (
        "FineTuneJob",
        {"parallelism": {"nodes": 2**31 - 1}, "resources": {"accelerator": "nvidia", "count": 64}},
        "spec.parallelism.nodes",
    ),
    "zero devices": ("FineTuneJob", {"resources": {"accelerator": "nvidia", "count": 0}}, "spec.resources.count"),
    "zero rows": ("FineTuneJob", {"training": {"globalBatchSize": 0}}, "spec.training.globalBatchSize"),
    "a negative number of rows": (
        "FineTuneJob",
        {"training": {"globalBatchSize": -15}, "parallelism": {"nodes": 2}},
        "spec.training.globalBatchSize",
    ),
    "zero replicas": ("InferenceService", {"autoscaling": {"maxReplicas": 0}}, "spec.autoscaling.maxReplicas"),
}
