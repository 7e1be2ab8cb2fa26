"""The whole chain with real pods: tune, evaluate, serve; then adopt, and remove."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openai import OpenAI

from devcluster.kubectl import Kubectl
from tests import tinymodel
from tests.cluster.conftest import fine_tune_job, resource

Wait = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def manifests(namespace: str, data: str) -> dict[str, dict[str, Any]]:
    benchmark = {"name": "kinds", "dataset": {"uri": f"{data}/test.jsonl", "type": "qa"}}
    return {
        "InferenceService": resource(
            "InferenceService",
            "kinds",
            namespace,
            {"model": {"fineTuneJob": {"name": "kinds"}}, "promotion": {"evalJobs": [{"name": "kinds"}]}},
        ),
        "EvalJob": resource(
            "EvalJob",
            "kinds",
            namespace,
            {
                "model": {"fineTuneJob": {"name": "kinds"}},
                "baseline": {"uri": f"{data}/model"},
                "benchmarks": [benchmark],
                "gates": [
                    {"benchmark": "kinds", "min": 0.8},
                    {"benchmark": "kinds", "minImprovement": 0.5},
                ],
                "generation": {"maxTokens": 8},
            },
        ),
        "FineTuneJob": fine_tune_job(
            "kinds",
            namespace,
            data,
            tuner="lora",
            training={"epochs": 3, "learningRate": 0.003, "globalBatchSize": 16, "maxLength": 64},
        ),
    }


@pytest.fixture(scope="module")
def chain(kubectl: Kubectl, manifests: dict[str, dict[str, Any]], wait_for: Wait) -> dict[str, dict[str, Any]]:
    """The final statuses of resources that are applied in the order in which none can start."""
    for manifest in manifests.values():
        kubectl.apply(manifest)
    return {
        "FineTuneJob": wait_for("finetunejob/kinds"),
        "EvalJob": wait_for("evaljob/kinds"),
        "InferenceService": wait_for("inferenceservice/kinds"),
    }


def test_the_chain_completes_in_any_order_of_arrival(chain: dict[str, dict[str, Any]]) -> None:
    phases = {kind: status["phase"] for kind, status in chain.items()}
    assert phases == {"FineTuneJob": "Succeeded", "EvalJob": "Succeeded", "InferenceService": "Ready"}, chain


def test_tuning_leaves_its_artifact_and_counts_the_rows(chain: dict[str, dict[str, Any]]) -> None:
    status = chain["FineTuneJob"]
    assert {artifact["name"] for artifact in status["artifacts"]} == {"adapter", "merged"}
    assert status["rows"]["kept"] == 512
    assert status["metrics"]["steps"] == 3 * 512 // 16
    assert status["metrics"]["trainLoss"] < 3  # an untrained model's is ln(512) = 6.2


def test_the_tuned_model_is_better_than_the_base(chain: dict[str, dict[str, Any]]) -> None:
    result, unreadable = chain["EvalJob"]["results"]
    assert (result["benchmark"], result["metric"], result["samples"]) == ("kinds", "accuracy", 64)
    assert (unreadable["metric"], unreadable["samples"]) == ("unreadable", 64)
    assert unreadable["value"] <= 1 - result["value"]
    assert result["baseline"] <= 0.1
    assert result["value"] >= 0.8
    assert result["delta"] == pytest.approx(result["value"] - result["baseline"])


def test_the_gates_open(chain: dict[str, dict[str, Any]]) -> None:
    assert chain["EvalJob"]["verdict"] == "Passed"
    assert [gate["passed"] for gate in chain["EvalJob"]["gates"]] == [True, True]


def test_the_service_serves_the_very_model_that_passed(chain: dict[str, dict[str, Any]]) -> None:
    digests = {artifact["name"]: artifact["digest"] for artifact in chain["FineTuneJob"]["artifacts"]}
    assert chain["EvalJob"]["model"]["digest"] == digests["merged"]
    assert chain["InferenceService"]["model"]["digest"] == digests["merged"]


def test_an_openai_client_gets_the_tuned_models_answer(
    chain: dict[str, dict[str, Any]], kubectl: Kubectl, namespace: str
) -> None:
    with kubectl.port_forward(namespace, "kinds", 80) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none-needed")
        assert [model.id for model in client.models.list()] == ["kinds"]
        right = 0
        for row in tinymodel.rows(8, seed=3):
            question, answer = row["messages"]
            completion = client.chat.completions.create(model="kinds", messages=[question], max_tokens=8, temperature=0)
            right += completion.choices[0].message.content == answer["content"]
    assert right >= 6


def test_an_adapter_is_served_beside_its_base_under_its_own_name(
    chain: dict[str, dict[str, Any]], kubectl: Kubectl, namespace: str, data: str, wait_for: Wait
) -> None:
    adapters = [{"name": "tuned", "fineTuneJob": {"name": "kinds"}}]
    kubectl.apply(
        resource("InferenceService", "base", namespace, {"model": {"uri": f"{data}/model"}, "adapters": adapters})
    )
    assert wait_for("inferenceservice/base")["phase"] == "Ready"
    question, answer = tinymodel.rows(1, seed=4)[0]["messages"]
    with kubectl.port_forward(namespace, "base", 80) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none-needed")
        assert {model.id for model in client.models.list()} == {"base", "tuned"}
        answers = {
            name: client.chat.completions.create(model=name, messages=[question], max_tokens=8, temperature=0)
            for name in ("base", "tuned")
        }
    assert answers["tuned"].choices[0].message.content == answer["content"]
    assert answers["base"].choices[0].message.content != answer["content"]
    kubectl("delete", "inferenceservice/base", f"--namespace={namespace}", "--cascade=foreground", "--wait")


def test_a_re_created_job_adopts_the_finished_work(
    chain: dict[str, dict[str, Any]],
    kubectl: Kubectl,
    manifests: dict[str, dict[str, Any]],
    wait_for: Wait,
    namespace: str,
) -> None:
    kubectl("delete", "finetunejob/kinds", f"--namespace={namespace}", "--wait")
    kubectl.apply(manifests["FineTuneJob"])
    status = wait_for("finetunejob/kinds")
    assert (status["phase"], status["reason"]) == ("Succeeded", "AdoptedExisting")
    assert status["artifacts"] == chain["FineTuneJob"]["artifacts"]


def test_a_cluster_without_devices_adopts_a_run_that_requests_eight(
    chain: dict[str, dict[str, Any]],
    kubectl: Kubectl,
    manifests: dict[str, dict[str, Any]],
    wait_for: Wait,
    namespace: str,
) -> None:
    kubectl("delete", "finetunejob/kinds", f"--namespace={namespace}", "--cascade=foreground", "--wait")
    manifest = manifests["FineTuneJob"]
    devices = {"accelerator": "nvidia", "count": 8}
    kubectl.apply({**manifest, "spec": {**manifest["spec"], "resources": devices, "queueName": "full"}})
    status = wait_for("finetunejob/kinds")
    assert (status["phase"], status["reason"]) == ("Succeeded", "AdoptedExisting")
    assert status["artifacts"] == chain["FineTuneJob"]["artifacts"]
    assert status["children"] == [{"kind": "Job", "name": "kinds-prepare-1"}], "no pod has asked for a device"


def test_deleting_a_resource_removes_its_children_and_nothing_else(
    chain: dict[str, dict[str, Any]], kubectl: Kubectl, namespace: str
) -> None:
    kubectl("create", "configmap", "somebody-elses", f"--namespace={namespace}")
    kubectl("delete", "inferenceservice/kinds", f"--namespace={namespace}", "--cascade=foreground", "--wait")
    assert kubectl.get(namespace, "deployment/kinds") == {}
    assert kubectl.get(namespace, "service/kinds") == {}
    assert kubectl.get(namespace, "evaljob/kinds")["status"]["phase"] == "Succeeded"
    assert kubectl.get(namespace, "configmap/somebody-elses")
