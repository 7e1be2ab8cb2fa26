"""The generated CRDs on a real API server: rejections and their messages, defaults, columns, and `kubectl explain`."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from kubernetes import client, config

from devcluster.standalone import ControlPlane
from tests.apiserver.bad_specs import BAD, FOLLOWED_REFUSALS, GOOD, OUT_OF_BOUNDS, SERVE, TUNE, Bad
from tests.apiserver.sentences import PLACES, REFUSED, followed
from tests.apiserver.specs import specs
from tests.established import until_established
from tests.hints import FOLLOWED, Fix
from tunesmith_api import API_VERSION, GROUP, VERSION
from tunesmith_api.compatibility import refusals
from tunesmith_api.crdgen.crd import KINDS, Kind, root_schema
from tunesmith_api.finetunejob import FineTuneJobSpec

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
        "samples": {"prompts": ["Name a metal."]},
        "tracking": {"to": "mlflow", "url": "https://mlflow.example"},
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
OF_A_CHOICE = {*chain(*FineTuneJobSpec.unions.values()), "rewards"}
"""Fields of a FineTuneJob that go with one method or tuner each."""


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


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_invalid_input_is_rejected_with_the_fix(api: Api, bad: Bad) -> None:
    with pytest.raises(Refused) as refusal:
        api.create(bad.kind, merged(GOOD[bad.kind], bad.change), bad.name)
    assert bad.expected in str(refusal.value)


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
        "parallelism": {"nodes": 2, "strategy": "zero3", "offload": "all"},
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
        assert fields - set(others) == (OF_A_CHOICE if kind == "FineTuneJob" else set())


def test_a_block_that_was_set_cannot_be_removed_from_a_running_job(api: Api) -> None:
    api.create("FineTuneJob", TUNE | {"lora": {"rank": 8}}, "with-lora", dry_run=False)
    with pytest.raises(Refused, match=r"spec\.lora is immutable"):
        api.change("FineTuneJob", "with-lora", {"lora": None})
    assert api.change("FineTuneJob", "with-lora", {"suspend": True})["spec"]["suspend"] is True


@pytest.mark.parametrize("change", [{"dpo": {"beta": 0.2}}, {"dpo": None}, {"kto": {}}], ids=str)
def test_the_block_of_a_method_cannot_be_changed_removed_or_replaced(api: Api, change: dict[str, Any]) -> None:
    name = f"with-{next(iter(change))}-{len(str(change))}"
    api.create("FineTuneJob", TUNE | {"method": "dpo", "dpo": {"beta": 0.1}}, name, dry_run=False)
    with pytest.raises(Refused, match=r"the block of spec\.method is immutable: create a new FineTuneJob"):
        api.change("FineTuneJob", name, change)


@pytest.mark.parametrize("change", [{"maxLength": 1024}, {"epochs": 2}, {"epochs": None}, {"maxSteps": 7}], ids=str)
def test_a_setting_of_a_block_cannot_be_changed_set_or_removed(api: Api, change: dict[str, Any]) -> None:
    name = f"fixed-{next(iter(change)).lower()}-{next(iter(change.values()))}".lower()
    api.create("FineTuneJob", TUNE | {"training": {"epochs": 1}}, name, dry_run=False)
    with pytest.raises(Refused, match=r"spec\.training is immutable"):
        api.change("FineTuneJob", name, {"training": change})


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
    assert "Peak learning rate. Default 0.0001 with tuner lora, " in " ".join(explained.split())
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
    """The messages of all rules in a schema; of those with a value, their literals."""
    if isinstance(schema, list):
        for item in schema:
            yield from rule_messages(item)
    elif isinstance(schema, dict):
        for rule in schema.get("x-kubernetes-validations", ()):
            if message := rule.get("message"):
                yield message
            if expression := rule.get("messageExpression"):
                literals = re.findall(r"""'[^']*'|"[^"]*\"""", expression)
                yield from (text[1:-1] for text in literals if len(text) > 20)
        for value in schema.values():
            yield from rule_messages(value)
