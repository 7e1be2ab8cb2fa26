"""The generated CRDs on a real API server: rejections and their messages, defaults, columns, and `kubectl explain`."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from kubernetes import client, config

from devcluster.controlplane import ControlPlane
from tests.apiserver.sentences import PLACES, REFUSED, followed
from tests.apiserver.specs import specs
from tests.established import until_established
from tests.hints import FOLLOWED, Fix
from tunesmith_api import API_VERSION, GROUP, VERSION
from tunesmith_api.compatibility import refusals
from tunesmith_api.crdgen.crd import KINDS, Kind, root_schema

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = {kind.name: kind for kind in KINDS}
KSERVE: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "inferenceservices.serving.kserve.io"},
    "spec": {
        "group": "serving.kserve.io",
        "scope": "Namespaced",
        "names": {
            "kind": "InferenceService",
            "listKind": "InferenceServiceList",
            "plural": "inferenceservices",
            "singular": "inferenceservice",
            "shortNames": ["isvc"],
        },
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {}}}}
                },
            }
        ],
    },
}

TUNE: dict[str, Any] = {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/train.jsonl"}]}
EVAL: dict[str, Any] = {"model": {"fineTuneJob": {"name": "support"}}, "benchmarks": [{"name": "gsm8k", "limit": 200}]}
SERVE: dict[str, Any] = {"model": {"fineTuneJob": {"name": "support"}}}
GOOD = {"FineTuneJob": TUNE, "EvalJob": EVAL, "InferenceService": SERVE}

FOR_BOTH: dict[str, Any] = {
    "model": {"trustRemoteCode": True},
    "resources": {"cpu": "2"},
    "output": {"uri": "s3://other/place"},
    "storage": {"region": "eu-central-1"},
    "pod": {"labels": {"team": "a"}},
    "suspend": True,
    "retries": 1,
    "deadline": "2h",
    "pendingDeadline": "30m",
    "ttlAfterFinished": "1d",
    "queueName": "gpus",
    "rerun": "2",
}
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "FineTuneJob": {
        **FOR_BOTH,
        "datasets": [{"uri": "s3://data/other.jsonl"}],
        "validation": {"fraction": 0.1},
        "onBadRow": "Drop",
        "maxBadShare": 0.5,
        "drop": ["Duplicate"],
        "decontaminate": [{"uri": "s3://data/test.jsonl"}],
        "method": "pretrain",
        "tuner": "full",
        "lora": {"rank": 8},
        "training": {"epochs": 2},
        "parallelism": {"nodes": 2},
        "checkpoint": {"keep": 3},
        "export": {"merge": False},
        "until": "train",
        "fit": "Refuse",
    },
    "EvalJob": {
        **FOR_BOTH,
        "baseline": {"uri": "s3://models/base"},
        "benchmarks": [{"name": "mmlu"}],
        "gates": [{"benchmark": "gsm8k", "min": 0.5}],
        "generation": {"maxTokens": 16},
        "engine": "vllm",
    },
}
OF_A_METHOD = {"dpo", "kto", "orpo", "simpo", "cpo", "grpo", "rewards"}
"""Fields of a FineTuneJob that go with one method each."""


@dataclass
class Api:
    """The API server with our CRDs in it."""

    cluster: ControlPlane
    objects: Any
    """A client.CustomObjectsApi, whose responses are untyped."""

    def create(self, kind: str, spec: dict[str, Any], name: str = "support", dry_run: bool = True) -> dict[str, Any]:
        """Create an object. Returns it as the API server stores it; raises Refused."""
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        try:
            created: dict[str, Any] = self.objects.create_namespaced_custom_object(
                GROUP,
                VERSION,
                "default",
                BY_NAME[kind].plural,
                body,
                field_validation="Strict",
                **({"dry_run": "All"} if dry_run else {}),
            )
        except client.ApiException as error:
            raise Refused(json.loads(error.body or "{}")) from error
        return created

    def answer(self, kind: str, spec: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The spec as the API server would store it, or the causes of its rejection."""
        try:
            return self.create(kind, spec)["spec"], []
        except Refused as refusal:
            return {}, refusal.causes or [str(refusal)]

    def change(self, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        """Apply a merge patch to the spec."""
        try:
            changed: dict[str, Any] = self.objects.patch_namespaced_custom_object(
                GROUP, VERSION, "default", BY_NAME[kind].plural, name, {"spec": spec}
            )
        except client.ApiException as error:
            raise Refused(json.loads(error.body or "{}")) from error
        return changed

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        command = [self.cluster.program("kubectl"), "--kubeconfig", str(self.cluster.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout


class Refused(Exception):
    """The API server rejected a request."""

    def __init__(self, status: dict[str, Any]) -> None:
        super().__init__(status["message"])
        self.causes = [cause["message"] for cause in status.get("details", {}).get("causes", [])]


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with ControlPlane() as cluster:
        connection = config.new_client_from_config(str(cluster.kubeconfig))  # type: ignore[no-untyped-call]
        api = Api(cluster, client.CustomObjectsApi(connection))
        api.kubectl("apply", "--filename", str(ROOT / "crds"))  # client-side: its annotation bounds the size of a CRD
        api.kubectl("apply", "--filename", "-", stdin=json.dumps(KSERVE))
        until_established(api.kubectl, "customresourcedefinitions", "--all")
        yield api


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
        "FineTuneJob", {"resources": {"count": 2}}, "accelerator cpu has no count; remove count, or set accelerator: nvidia or ascend"
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
    "method of a later version": Bad("FineTuneJob", {"method": "ppo"}, "method ppo: not available in this version; use sft"),
    "tuner of a later version": Bad(
        "FineTuneJob", {"tuner": "qlora"}, "tuner qlora: not available in this version; use lora, full, dora, loha, lokr or vera (with full, remove the block lora)"
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
        "FineTuneJob", {"rewards": [{"name": "a", "type": "accuracy"}]}, "rewards go with method: grpo, which needs them"
    ),
    "grpo without rewards": Bad("FineTuneJob", {"method": "grpo"}, "rewards go with method: grpo, which needs them"),
    "groups that do not fill a batch": Bad(
        "FineTuneJob",
        {"method": "grpo", "rewards": [{"name": "a", "type": "accuracy"}], "grpo": {"numGenerations": 5}},
        "training.globalBatchSize counts completions, and is a multiple of grpo.numGenerations: change one of them",
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
    "tuner with the block lora": Bad(
        "FineTuneJob",
        {"tuner": "qlora", "lora": {"rank": 8}},
        "tuner qlora: not available in this version; use lora, full, dora, loha, lokr or vera (with full, remove the block lora)",
    ),
    "batch that the devices do not divide": Bad(
        "FineTuneJob",
        {"parallelism": {"nodes": 3}},
        "training.globalBatchSize is a multiple of all devices (parallelism.nodes x resources.count): change one of them",
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


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_invalid_input_is_rejected_with_the_fix(api: Api, bad: Bad) -> None:
    with pytest.raises(Refused) as refusal:
        api.create(bad.kind, merged(GOOD[bad.kind], bad.change), bad.name)
    assert bad.expected in str(refusal.value)


FOLLOWED_REFUSALS: dict[str, tuple[dict[str, Any], ...]] = {
    "lora block with tuner full": ({"lora": None}, {"tuner": "lora"}),
    "block of another method": ({"dpo": None},),
    "tuner with the block lora": ({"tuner": "lora"}, {"tuner": "full", "lora": None}),
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
    "method of a later version": ({"method": "sft"},),
    "tuner of a later version": ({"tuner": "lora"}, {"tuner": "full"}),
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


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, changes in FOLLOWED_REFUSALS.items() for change in changes]
)
def test_a_spec_that_follows_the_message_of_a_rejection_is_admitted(
    api: Api, name: str, change: dict[str, Any]
) -> None:
    bad = BAD[name]
    after = merged(merged(GOOD[bad.kind], bad.change), change)
    stored, causes = api.answer(bad.kind, after)
    assert causes == []
    assert refusals(bad.kind, stored) == []


@pytest.mark.parametrize("fix", FOLLOWED.values(), ids=FOLLOWED)
def test_a_spec_that_follows_the_hint_of_a_failure_is_admitted(api: Api, fix: Fix) -> None:
    for after in fix.after:
        stored, causes = api.answer(fix.kind, after)
        assert causes == []
        assert refusals(fix.kind, stored) == []


@pytest.mark.parametrize("text", REFUSED)
def test_an_invalid_text_is_rejected_with_one_message_whose_advice_is_admitted(api: Api, text: str) -> None:
    """Each invalid value has one cause, with the same message as in our programs."""
    place, wrong = PLACES[text], []
    good = GOOD[place.kind]
    for value, sentence in REFUSED[text].items():
        assert place.grammar.sentence(value) == sentence
        _, causes = api.answer(place.kind, merged(good, place.spec(value)))
        mended = followed(place, value, sentence)
        _, then = api.answer(place.kind, merged(good, place.spec(mended)))
        if not (len(causes) == 1 and causes[0].endswith(sentence)) or then:
            wrong.append((value, causes, mended, then))
    assert wrong == []


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


@pytest.mark.parametrize("case", OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_is_rejected_only_by_its_bound(api: Api, case: str) -> None:
    """CEL rules are evaluated too: arithmetic on such a value would add a second message."""
    kind, change, field_name = OUT_OF_BOUNDS[case]
    with pytest.raises(Refused) as refusal:
        api.create(kind, merged(GOOD[kind], change))
    assert len(refusal.value.causes) == 1
    assert f"{field_name} in body should be" in str(refusal.value)


@pytest.mark.parametrize("kind", GOOD)
def test_a_minimal_spec_is_admitted(api: Api, kind: str) -> None:
    assert (
        api.create(kind, GOOD[kind], name="a" * 45)["spec"] == BY_NAME[kind].spec.model_validate(GOOD[kind]).to_dict()
    )


def test_training_on_many_devices_is_admitted_and_left_to_the_operator(api: Api) -> None:
    spec = TUNE | {
        "tuner": "full",
        "parallelism": {"nodes": 2, "strategy": "zero3", "tensorParallel": 2},
        "resources": {"accelerator": "nvidia", "count": 8},
    }
    assert api.create("FineTuneJob", spec)["spec"]["parallelism"]["nodes"] == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_api_server_has_the_defaults_and_rules_of_the_types(api: Api, kind: Kind) -> None:
    """A spec that fits the schema is rejected only by the message of a rule, and its defaults are those of the types."""
    rules = set(rule_messages(root_schema(kind)))
    admitted: list[dict[str, Any]] = []

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(spec=specs(kind))
    def check(spec: dict[str, Any]) -> None:
        stored, causes = api.answer(kind.name, spec)
        assert all(any(rule in cause for rule in rules) for cause in causes), (causes, spec)
        if stored:
            admitted.append(stored)
            assert stored == kind.spec.model_validate(spec).to_dict()
            assert stored == kind.spec.model_validate(stored).to_dict()

    check()
    assert len(admitted) >= 30, f"only {len(admitted)} specs were admitted: too few to compare defaults"


@pytest.mark.parametrize("kind", ["FineTuneJob", "EvalJob"])
def test_only_mutable_fields_can_be_changed(api: Api, kind: str) -> None:
    name = f"fixed-{kind.lower()}"
    api.create(kind, GOOD[kind], name, dry_run=False)
    for field_name, value in OTHER_VALUES[kind].items():
        change = {field_name: value}
        if field_name in BY_NAME[kind].spec.mutable:
            assert api.change(kind, name, change)["spec"][field_name] == value
            continue
        with pytest.raises(Refused) as refusal:
            api.change(kind, name, change)
        assert f"spec.{field_name} is immutable: create a new {kind} with another name" in str(refusal.value)


def test_immutability_is_tested_for_every_field_of_a_job() -> None:
    for kind, others in OTHER_VALUES.items():
        fields = set(root_schema(BY_NAME[kind])["properties"]["spec"]["properties"])
        assert fields - set(others) == (OF_A_METHOD if kind == "FineTuneJob" else set())


def test_a_block_that_was_set_cannot_be_removed_from_a_running_job(api: Api) -> None:
    api.create("FineTuneJob", TUNE | {"lora": {"rank": 8}}, "with-lora", dry_run=False)
    with pytest.raises(Refused, match=r"spec\.lora is immutable"):
        api.change("FineTuneJob", "with-lora", {"lora": None})
    assert api.change("FineTuneJob", "with-lora", {"suspend": True})["spec"]["suspend"] is True


def test_an_inference_service_can_be_changed(api: Api) -> None:
    api.create("InferenceService", SERVE, "changing", dry_run=False)
    assert api.change("InferenceService", "changing", {"model": {"fineTuneJob": {"name": "newer"}}})


def test_scale_reads_and_writes_replicas_and_gives_autoscalers_the_selector(api: Api) -> None:
    api.create("InferenceService", SERVE, "scaled", dry_run=False)
    status = {"status": {"replicas": 3, "readyReplicas": 1, "selector": "tunesmith.dev/name=scaled"}}
    api.objects.patch_namespaced_custom_object_status(GROUP, VERSION, "default", "inferenceservices", "scaled", status)
    api.kubectl("scale", "tsvc/scaled", "--replicas=5")
    scale = api.objects.get_namespaced_custom_object_scale(GROUP, VERSION, "default", "inferenceservices", "scaled")
    assert scale["spec"]["replicas"] == 5
    assert scale["status"] == {"replicas": 3, "selector": "tunesmith.dev/name=scaled"}


@pytest.mark.parametrize(
    ("kind", "status", "header", "row"),
    [
        (
            "FineTuneJob",
            {"phase": "Running", "reason": "Running", "progress": {"percent": 33, "loss": 1.25}},
            ["NAME", "PHASE", "REASON", "PROGRESS", "LOSS", "AGE"],
            ["shown", "Running", "Running", "33", "1.25"],
        ),
        (
            "EvalJob",
            {"phase": "Succeeded", "reason": "GatesPassed", "score": "accuracy 0.57", "verdict": "Passed"},
            ["NAME", "PHASE", "REASON", "SCORE", "VERDICT", "AGE"],
            ["shown", "Succeeded", "GatesPassed", "accuracy", "0.57", "Passed"],
        ),
        (
            "InferenceService",
            {
                "phase": "Ready",
                "reason": "Serving",
                "replicas": 2,
                "readyReplicas": 1,
                "url": "http://shown.default.svc/v1",
            },
            ["NAME", "PHASE", "REASON", "READY", "REPLICAS", "URL", "AGE"],
            ["shown", "Ready", "Serving", "1", "2", "http://shown.default.svc/v1"],
        ),
    ],
)
def test_the_columns_show_the_progress_and_the_result(
    api: Api, kind: str, status: dict[str, Any], header: list[str], row: list[str]
) -> None:
    short, plural = BY_NAME[kind].short_name, BY_NAME[kind].plural
    api.create(kind, GOOD[kind], "shown", dry_run=False)
    api.objects.patch_namespaced_custom_object_status(GROUP, VERSION, "default", plural, "shown", {"status": status})
    printed = [line.split() for line in api.kubectl("get", short, "shown").splitlines()]
    assert printed[0] == header
    assert printed[1][: len(row)] == row
    assert "REASON" in api.kubectl("get", short, "shown", "--output=wide")
    assert f"{kind.lower()}.{GROUP}/shown" in api.kubectl("get", "tunesmith", "--output=name")


def test_a_status_is_stored_and_an_unknown_failure_class_is_rejected(api: Api) -> None:
    api.create("FineTuneJob", TUNE, "failing", dry_run=False)
    status = {
        "phase": "Failed",
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "BadRow", "lastTransitionTime": "2026-11-22T10:00:00Z"}
        ],
        "lastFailure": {"class": "BadRow", "message": "train.jsonl line 17: no answer", "exitCode": 65},
    }
    body = {"status": status}
    stored = api.objects.patch_namespaced_custom_object_status(
        GROUP, VERSION, "default", "finetunejobs", "failing", body, field_validation="Strict"
    )
    assert stored["status"] == {"observedGeneration": -1, **status}
    body = {"status": {"lastFailure": {"class": "SomethingElse", "message": "x"}}}
    with pytest.raises(client.ApiException, match="Unsupported value"):
        api.objects.patch_namespaced_custom_object_status(GROUP, VERSION, "default", "finetunejobs", "failing", body)


def test_explain_shows_descriptions_defaults_and_values(api: Api) -> None:
    explained = api.kubectl("explain", "finetunejob.spec.training")
    assert "Optimization." in explained
    assert "Peak learning rate. Default 0.0001 with tuner lora, dora, loha or lokr, 0.001 with tuner vera" in " ".join(
        explained.split()
    )
    assert "enum: cosine, linear, constant" in explained
    assert "Tunes a model on data sets" in api.kubectl("explain", "ftj")


def test_the_kinds_coexist_with_those_of_kserve(api: Api) -> None:
    resources = {
        line.split()[0]: line.split()[1:] for line in api.kubectl("api-resources", "--no-headers").splitlines()
    }
    assert resources["finetunejobs"][:2] == ["ftj", API_VERSION]
    api.create("InferenceService", SERVE, "ours", dry_run=False)
    kserve = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "theirs"},
        "spec": {},
    }
    api.kubectl("apply", "--filename", "-", stdin=json.dumps(kserve))
    assert "inferenceservice.tunesmith.dev/ours" in api.kubectl("get", "tsvc", "--output=name")
    assert api.kubectl("get", "isvc", "--output=name").split() == ["inferenceservice.serving.kserve.io/theirs"]
    theirs = api.kubectl("get", "inferenceservices.serving.kserve.io", "--output=name").split()
    assert theirs == ["inferenceservice.serving.kserve.io/theirs"]


def test_short_names_are_unique(api: Api) -> None:
    names = [
        name
        for item in json.loads(api.kubectl("get", "crds", "--output=json"))["items"]
        for name in item["spec"]["names"].get("shortNames", [])
    ]
    assert sorted(names) == sorted({*names})
    assert {"ftj", "evj", "tsvc"} <= {*names}


def test_every_example_is_admitted(api: Api) -> None:
    documents = [
        document
        for path in sorted((ROOT / "examples").rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if document and document.get("apiVersion") == API_VERSION
    ]
    assert {document["kind"] for document in documents} == set(GOOD)
    for document in documents:
        assert api.create(document["kind"], document["spec"], document["metadata"]["name"])


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with a merge patch (RFC 7386) applied."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def rule_messages(schema: Any) -> Iterator[str]:
    """The messages of all rules in a schema; of a message with a value, the text after the value."""
    if isinstance(schema, list):
        for item in schema:
            yield from rule_messages(item)
    elif isinstance(schema, dict):
        for rule in schema.get("x-kubernetes-validations", ()):
            yield rule["message"]
            yield rule.get("messageExpression", rule["message"]).rpartition(" + '")[2].rstrip("'")
        for value in schema.values():
            yield from rule_messages(value)
