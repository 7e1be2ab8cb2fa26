"""Minimal specs, changes of them that the API server rejects, and the fixes that its messages propose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TUNE: dict[str, Any] = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/train.jsonl"}]}
EVAL: dict[str, Any] = {"model": {"fineTuneJob": {"name": "support"}}, "benchmarks": [{"name": "gsm8k", "limit": 200}]}
SERVE: dict[str, Any] = {"model": {"fineTuneJob": {"name": "support"}}}
GOOD = {"FineTuneJob": TUNE, "EvalJob": EVAL, "InferenceService": SERVE}

JUDGE = {"url": "https://judge.example/v1", "model": "m", "rubric": "{completion}"}


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
        "the block lora goes with tuners that adapt layers; remove the block or set tuner: lora",
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
    "names and a pattern of layers": Bad(
        "FineTuneJob",
        {"lora": {"targetModules": ["q_proj"], "targetPattern": ".*q_proj"}},
        "targetModules and targetPattern both choose the layers: remove one of them",
    ),
    "parts beside an adapter that has its own": Bad(
        "FineTuneJob",
        {"lora": {"from": {"uri": "s3://models/adapter"}, "modulesToSave": ["norm"]}},
        "remove init, targetPattern, modulesToSave and trainableTokens",
    ),
    "a start beside another adapter": Bad(
        "FineTuneJob",
        {"lora": {"from": {"uri": "s3://models/adapter"}, "init": "pissa"}},
        "remove init, targetPattern, modulesToSave and trainableTokens",
    ),
    "a start that a quantized base cannot take": Bad(
        "FineTuneJob", {"tuner": "qlora", "lora": {"init": "pissa"}}, "remove lora.init"
    ),
    "a start of a base that is not quantized": Bad(
        "FineTuneJob", {"lora": {"init": "loftq"}}, "use tuner qlora, or remove lora.init"
    ),
    "a start from the inputs of a divided model": Bad(
        "FineTuneJob",
        {"lora": {"init": "eva"}, "parallelism": {"strategy": "fsdp"}, "resources": {"count": 2}},
        "use strategy ddp, or remove lora.init",
    ),
    "virtual tokens that are merged": Bad("FineTuneJob", {"tuner": "prompt"}, "set export.merge: false"),
    "layers beside virtual tokens": Bad(
        "FineTuneJob",
        {"tuner": "prompt", "export": {"merge": False}, "lora": {"rank": 8}},
        "the block lora goes with tuners that adapt layers; remove the block",
    ),
    "virtual tokens of packed rows": Bad(
        "FineTuneJob",
        {"tuner": "prompt", "export": {"merge": False}, "training": {"packing": True}},
        "virtual tokens stand before a sequence, not before each of its rows",
    ),
    "parts of another tuner": Bad(
        "FineTuneJob", {"tuner": "vera", "lora": {"modulesToSave": ["norm"]}}, "remove lora.modulesToSave, or use tuner lora"
    ),
    "LoRA+ with Muon": Bad(
        "FineTuneJob",
        {"lora": {"plusRatio": 16}, "training": {"optimizer": "muon"}},
        "lora.plusRatio with optimizer muon: Muon gives all matrices steps of one size",
    ),
    "tokens of a divided model": Bad(
        "FineTuneJob",
        {"lora": {"trainableTokens": ["<|im_end|>"]}, "parallelism": {"strategy": "zero3"}},
        "use strategy ddp, or remove lora.trainableTokens",
    ),
    "frozen weights beside an adapter": Bad(
        "FineTuneJob",
        {"training": {"freeze": ["vision", "embeddings"]}},
        "an adapter freezes all weights of the model, and training.freeze names parts without adapters, vision, aligner, language or none: "
        "remove other parts, or use tuner full",
    ),
    "frozen parts beside virtual tokens": Bad(
        "FineTuneJob",
        {"tuner": "prompt", "export": {"merge": False}, "training": {"freeze": ["vision"]}},
        "training.freeze with tuner prompt: virtual tokens are trained, and no part of the model; remove training.freeze, or use tuner lora",
    ),
    "frozen parts of a divided model": Bad(
        "FineTuneJob",
        {"training": {"freeze": ["vision"]}, "parallelism": {"strategy": "fsdp"}},
        "use strategy ddp, or remove training.freeze",
    ),
    "a model that is frozen as a whole": Bad(
        "FineTuneJob",
        {"training": {"freeze": ["aligner", "language", "vision"]}},
        "freeze names all parts of the model, vision, aligner and language: remove one of them",
    ),
    "no frozen part beside another": Bad(
        "FineTuneJob",
        {"training": {"freeze": ["none", "vision"]}},
        "freeze: [none] trains all parts of the model: remove the others, or none",
    ),
    "a start from inputs that vision does not read": Bad(
        "FineTuneJob",
        {"lora": {"init": "eva"}, "training": {"freeze": ["vision"]}},
        "lora.init eva takes the inputs of layers on text, which vision and aligner do not read: remove lora.init, or training.freeze",
    ),
    "a learning rate of frozen vision": Bad(
        "FineTuneJob",
        {"training": {"visionLearningRate": 0.001}},
        "visionLearningRate is that of vision and aligner, beside learningRate for the language model: train both by freeze: [none], [vision] "
        "or [aligner], or remove visionLearningRate",
    ),
    "a learning rate of vision alone": Bad(
        "FineTuneJob",
        {"training": {"visionLearningRate": 0.001, "freeze": ["language"]}},
        "train both by freeze: [none], [vision] or [aligner], or remove visionLearningRate",
    ),
    "a learning rate of vision with Muon": Bad(
        "FineTuneJob",
        {"training": {"visionLearningRate": 0.001, "freeze": ["none"], "optimizer": "muon"}},
        "training.visionLearningRate with optimizer muon: Muon gives all matrices steps of one size",
    ),
    "fewer pixels than the least": Bad(
        "FineTuneJob",
        {"training": {"maxPixels": 1000, "minPixels": 2000}},
        "minPixels is at most maxPixels: lower it",
    ),
    "pixels of an adapter": Bad(
        "FineTuneJob",
        {"training": {"maxPixels": 1003520}, "export": {"merge": False}},
        "an adapter is served with the processor of its base: set export.merge: true",
    ),
    "a part of a model that has no name": Bad(
        "FineTuneJob",
        {"tuner": "full", "training": {"freeze": ["layers"]}},
        "freeze has the parts vision, aligner, language, none, embeddings, head, layers:FIRST-LAST (from 0) and pattern:REGEX",
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
    "a tracker without its server": Bad(
        "FineTuneJob", {"tracking": {"to": "mlflow"}}, "MLflow is a server of your own: set tracking.url"
    ),
    "a tracker without its key": Bad(
        "FineTuneJob", {"tracking": {"to": "wandb"}}, "wandb and swanlab need an API key: set tracking.secret"
    ),
    "credentials in the URL of a tracker": Bad(
        "FineTuneJob",
        {"tracking": {"to": "mlflow", "url": "https://me:secret@mlflow.example"}},
        "holds credentials: remove them; spec.tracking.secret names a Secret",
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
    "a reward of a model without a model": Bad(
        "FineTuneJob", {"method": "ppo", "rewards": [{"name": "a", "type": "model"}]}, "model goes with type: model: set it, or remove it"
    ),
    "two reward models": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": name, "type": "model", "model": {"uri": "s3://models/r"}} for name in "ab"]},
        "a job has one reward of type: model at most: remove the others",
    ),
    "two rewards by code": Bad(
        "FineTuneJob",
        {
            "method": "grpo",
            "rewards": [{"name": name, "type": "code", "code": {"configMap": {"name": "r", "key": "r.py"}}} for name in "ab"],
        },
        "a job has one reward of type: code at most: remove the others",
    ),
    "a rubric without the completion": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": "a", "type": "judge", "judge": {**JUDGE, "rubric": "Rate it."}}]},
        "judge.rubric has no {completion}, so that all completions would be judged alike",
    ),
    "a judge of devices that share layers": Bad(
        "FineTuneJob",
        {
            "method": "grpo",
            "rewards": [{"name": "a", "type": "judge", "judge": JUDGE}],
            "parallelism": {"tensorParallel": 2, "nodes": 2},
        },
        "processes that share layers would ask a judge, or code, for other rewards each: set parallelism.tensorParallel: 1",
    ),
    "a scale upside down": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": "a", "type": "judge", "judge": {**JUDGE, "scale": {"min": 10, "max": 0}}}]},
        "scale.min is less than scale.max: change one of them",
    ),
    "a judge without a scheme": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": "a", "type": "judge", "judge": {**JUDGE, "url": "judge.example/v1"}}]},
        "is not the URL of an OpenAI API",
    ),
    "ppo without rewards": Bad("FineTuneJob", {"method": "ppo"}, "rewards go with methods grpo, rloo and ppo, which need them"),
    "settings of ppo for another method": Bad("FineTuneJob", {"ppo": {"epochs": 2}}, "the block ppo goes with method: ppo; remove the block"),
    "ppo with validation": Bad(
        "FineTuneJob",
        {"method": "ppo", "rewards": [{"name": "a", "type": "accuracy"}], "validation": {"fraction": 0.1}},
        "methods grpo, rloo and ppo have no validation loss",
    ),
    "groups that do not fill a batch": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": "a", "type": "accuracy"}], "grpo": {"numGenerations": 5}},
        "training.globalBatchSize counts completions, and each device takes whole groups: it is a multiple of the method's numGenerations",
    ),
    "groups that devices cannot share": Bad(
        "FineTuneJob",
        {
            "method": "rloo",
            "rewards": [{"name": "a", "type": "accuracy"}],
            "rloo": {"numGenerations": 8},
            "parallelism": {"nodes": 4},
        },
        "it is a multiple of the method's numGenerations x parallelism.nodes x resources.count",
    ),
    "vLLM on a CPU": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": "a", "type": "accuracy"}], "grpo": {"engine": "vllm"}},
        "set resources.accelerator: nvidia, or set grpo.engine: transformers",
    ),
    "a share of the memory without vLLM": Bad(
        "FineTuneJob",
        {"method": "rloo", "rewards": [{"name": "a", "type": "accuracy"}], "rloo": {"gpuMemoryShare": 0.3}},
        "gpuMemoryShare goes with engine vllm: remove it, or set engine: vllm",
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
    "a precomputed reference that there is not": Bad(
        "FineTuneJob",
        {"method": "dpo", "dpo": {"precomputeReference": True, "referenceFree": True}},
        "dpo.precomputeReference goes with a reference: remove it, or remove dpo.referenceFree",
    ),
    "packed pairs": Bad(
        "FineTuneJob", {"method": "dpo", "training": {"packing": True}}, "training.packing true with method dpo"
    ),
    "settings of a reward model for another method": Bad(
        "FineTuneJob", {"reward": {"centerCoefficient": 0.01}}, "the block reward goes with method: reward; remove the block"
    ),
    "a reward model on a quantized base": Bad(
        "FineTuneJob", {"method": "reward", "tuner": "qlora"}, "method reward with tuner qlora: "
    ),
    "a reward model that goes on with an adapter": Bad(
        "FineTuneJob",
        {"method": "reward", "lora": {"from": {"uri": "s3://models/adapter"}}},
        "which methods reward, classify, embed and rerank do not train: remove lora.from",
    ),
    "a head trained by muon": Bad(
        "FineTuneJob",
        {"method": "reward", "training": {"optimizer": "muon"}},
        "method reward with optimizer muon: this optimizer would apply its matrix update to the head",
    ),
    "names of classes for a regression": Bad(
        "FineTuneJob",
        {"method": "classify", "classify": {"problem": "regression", "labels": ["bad", "good"]}},
        "classify.labels names classes, and problem regression learns numbers: remove labels, or set another problem",
    ),
    "a classifier on a quantized base": Bad(
        "FineTuneJob", {"method": "classify", "tuner": "qlora"}, "method classify with tuner qlora: "
    ),
    "an embedding model that answers": Bad(
        "FineTuneJob",
        {"method": "embed", "samples": {"prompts": ["Hello?"]}},
        "which models of method reward, classify, embed or rerank do not give: remove samples",
    ),
    "a reranker of which devices have a part": Bad(
        "FineTuneJob",
        {"method": "rerank", "parallelism": {"strategy": "fsdp"}},
        "method rerank with strategy fsdp: not supported with a model that is divided among devices in this version",
    ),
    "queries that are cut at their start": Bad(
        "FineTuneJob",
        {"method": "rerank", "training": {"truncation": "left"}},
        "training.truncation left with method rerank: the passages of a query would be compared after different parts of it",
    ),
    "an adapter in fewer dimensions": Bad(
        "FineTuneJob", {"training": {"optimizer": "galore"}}, "training.optimizer galore with tuner lora: the matrices of an adapter"
    ),
    "compiled layers that are plain": Bad(
        "FineTuneJob",
        {"training": {"compile": True, "kernels": "plain"}},
        "training.compile true with kernels plain: compiled layers are a fast path",
    ),
    "a quantized base without qlora": Bad(
        "FineTuneJob", {"qlora": {}}, "the block qlora goes with tuner: qlora; remove the block"
    ),
    "batch that the devices do not divide": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 3}},
        "training.globalBatchSize is a multiple of all devices (parallelism.nodes x resources.count): change one of them",
    ),
    "devices that groups do not divide": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 4, "tensorParallel": 3}},
        "parallelism.tensorParallel, pipelineParallel or contextParallel divides all devices (parallelism.nodes x resources.count): change one of them",
    ),
    "devices that stages do not divide": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 4, "pipelineParallel": 3}},
        "parallelism.tensorParallel, pipelineParallel or contextParallel divides all devices (parallelism.nodes x resources.count): change one of them",
    ),
    "stages of a loss that is not of tokens": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 2, "pipelineParallel": 2}, "method": "dpo"},
        "only sft and pretrain compute their loss in stages in this version; use method sft or pretrain",
    ),
    "noise on parts of rows": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 2, "contextParallel": 2}, "training": {"neftuneAlpha": 5}},
        "training.neftuneAlpha with contextParallel > 1: the noise depends on the length of a row, of which a device has a part",
    ),
    "answers of a part of a model": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 2, "strategy": "fsdp"}, "samples": {"prompts": ["?"]}},
        "samples with strategy fsdp: one process answers, which has a part of the model in this version; remove samples",
    ),
    "layers that are shared and divided": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 4, "tensorParallel": 2, "strategy": "zero3"}},
        "parallelism.tensorParallel > 1 with strategy zero3: slices of layers are not divided once more",
    ),
    "offloading what is whole": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 2, "offload": "all"}},
        "parallelism.offload all with strategy auto: weights are whole on each device",
    ),
    "offloading of one device": Bad(
        "FineTuneJob",
        {"parallelism": {"offload": "optimizer", "strategy": "zero2"}},
        "parallelism.offload is for several devices: remove it, or set parallelism.nodes or resources.count to more than 1",
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
    "rows of another method": Bad(
        "FineTuneJob",
        {"method": "dpo", "datasets": [{"uri": "s3://data/t.jsonl", "format": "vqa"}]},
        "datasets[].format vqa or caption or transcription with method dpo: such rows have one answer, which only method sft learns; use method sft",
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
    "errors as a merit": Bad(
        "EvalJob",
        {"gates": [{"benchmark": "gsm8k", "metric": "characterErrorRate", "maxRegression": 0.1}]},
        "fewer errors are better: gate the metric characterErrorRate with max",
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
    "host with its scheme": Bad(
        "InferenceService",
        {"media": {"allowedHosts": ["https://images.example.com"]}},
        '"https://images.example.com" is not the name of a host: write images.example.com',
    ),
    "host with a port": Bad(
        "InferenceService",
        {"media": {"allowedHosts": ["images.example.com:8443"]}},
        "write a name with a domain and without scheme, port and path, such as images.example.com",
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
    "vLLM on a CPU": ({"grpo": {"engine": "transformers"}}, {"resources": {"accelerator": "nvidia"}}),
    "a share of the memory without vLLM": (
        {"rloo": {"gpuMemoryShare": None}},
        {"rloo": {"engine": "vllm"}, "resources": {"accelerator": "nvidia"}},
    ),
    "lora block with tuner full": ({"lora": None}, {"tuner": "lora"}),
    "block of another method": ({"dpo": None},),
    "dropout of tuner ia3": ({"lora": {"dropout": None}},),
    "names and a pattern of layers": ({"lora": {"targetModules": None}}, {"lora": {"targetPattern": None}}),
    "parts beside an adapter that has its own": ({"lora": {"modulesToSave": None}},),
    "a start beside another adapter": ({"lora": {"init": None}},),
    "a start that a quantized base cannot take": ({"lora": {"init": None}},),
    "parts of another tuner": ({"lora": {"modulesToSave": None}}, {"tuner": "lora"}),
    "LoRA+ with Muon": ({"training": {"optimizer": "adamw"}}, {"lora": {"plusRatio": None}}),
    "tokens of a divided model": ({"parallelism": {"strategy": "ddp"}}, {"lora": {"trainableTokens": None}}),
    "frozen weights beside an adapter": ({"training": {"freeze": ["vision"]}}, {"tuner": "full"}),
    "frozen parts beside virtual tokens": (
        {"training": {"freeze": None}},
        {"tuner": "lora", "export": {"merge": True}},
    ),
    "frozen parts of a divided model": ({"parallelism": {"strategy": "ddp"}}, {"training": {"freeze": None}}),
    "a model that is frozen as a whole": ({"training": {"freeze": ["aligner", "vision"]}},),
    "no frozen part beside another": ({"training": {"freeze": ["none"]}}, {"training": {"freeze": ["vision"]}}),
    "a start from inputs that vision does not read": ({"lora": {"init": None}}, {"training": {"freeze": None}}),
    "a learning rate of frozen vision": (
        {"training": {"freeze": ["none"]}},
        {"training": {"freeze": ["vision"]}},
        {"training": {"freeze": ["aligner"]}},
        {"training": {"visionLearningRate": None}},
    ),
    "a learning rate of vision with Muon": (
        {"training": {"optimizer": "adamw"}},
        {"training": {"visionLearningRate": None}},
    ),
    "fewer pixels than the least": ({"training": {"minPixels": 1000}},),
    "pixels of an adapter": ({"export": {"merge": True}},),
    "a part of a model that has no name": (
        {"training": {"freeze": ["embeddings"]}},
        {"training": {"freeze": ["layers:0-3"]}},
        {"training": {"freeze": ["pattern:.*norm.weight"]}},
    ),
    "an initial rank below the target": ({"adalora": {"initialRank": 12}},),
    "two sources": ({"model": {"uri": None}}, {"model": {"fineTuneJob": None}}),
    "two validations": ({"validation": {"uri": None}}, {"validation": {"fraction": None}}),
    "share of bad rows that fail": ({"maxBadShare": None}, {"onBadRow": "Drop"}),
    "weight of one data set": (
        {"datasets": [{"uri": "s3://data/a.jsonl", "weight": 2}, {"uri": "s3://data/b.jsonl", "weight": 1}]},
        {"datasets": [{"uri": "s3://data/a.jsonl"}, {"uri": "s3://data/b.jsonl"}]},
    ),
    "a tracker without its server": ({"tracking": {"url": "https://mlflow.example"}},),
    "a tracker without its key": ({"tracking": {"secret": "tunesmith-wandb"}},),
    "credentials in the URL of a tracker": ({"tracking": {"url": "https://mlflow.example"}},),
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
    "names of classes for a regression": (
        {"classify": {"labels": None}},
        {"classify": {"problem": "multiLabel"}},
    ),
    "a classifier on a quantized base": ({"tuner": "lora"}, {"tuner": "full"}),
    "an embedding model that answers": ({"samples": None},),
    "a reranker of which devices have a part": ({"parallelism": {"strategy": "ddp"}},),
    "queries that are cut at their start": (
        {"training": {"truncation": "drop"}},
        {"training": {"truncation": "truncate"}},
    ),
    "a head trained by muon": ({"training": {"optimizer": "adamw"}},),
    "quantization of a later version": ({"qlora": {"quantization": "nf4"}}, {"qlora": {"quantization": "int8"}}),
    "an adapter in fewer dimensions": ({"training": {"optimizer": "adamw"}}, {"tuner": "full"}),
    "tuner without kernels on the accelerator": ({"tuner": "lora"},),
    "quantization": ({"export": {"quantize": None}},),
    "rows of another method": ({"method": "sft"},),
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
