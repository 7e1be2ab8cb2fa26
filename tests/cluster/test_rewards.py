"""Rewards from outside the training's container, in real pods: code of a tenant, and a judge."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devcluster import Environment
from devcluster.kubectl import Kubectl
from devcluster.paths import cache_paths
from tests.cluster.conftest import fine_tune_job, install
from tests.cluster.test_methods import GROUPS, PROMPTS, put_rows

Wait = Callable[..., dict[str, Any]]
ALLOWED = {"endpoints": ["*"], "rewardCode": True, "judges": ["*"]}
CODE = """
import os
import pathlib
import socket


def reach_the_network():
    socket.create_connection(("{host}", {port}), timeout=5)


def read_the_work_directory():
    os.listdir("/work/data")


def read_a_token():
    pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount/token").read_text()


def reward(prompts, completions, columns):
    for forbidden in (reach_the_network, read_the_work_directory, read_a_token):
        try:
            forbidden()
        except OSError:
            continue
        raise AssertionError(forbidden.__name__)
    assert not any(name.startswith(("AWS_", "TUNESMITH_", "HF_")) for name in os.environ)
    print("rated", len(completions), columns["kind"][0])
    return [float("e" in text) for text in completions]
"""
"""Refuses to rate where it can do what it must not."""


def judge() -> None:
    """Serve the OpenAI API: the score is the number of vowels between < and > in the question, for who has the key."""
    import json
    import re
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = self.headers["Authorization"] == "Bearer sk-of-the-judge"
            (rated,) = re.findall("<(.*)>", body["messages"][0]["content"], re.DOTALL)
            score = min(10, sum(map(rated.count, "aeiou")))
            answer = {"choices": [{"message": {"content": f"It has vowels. Score: {score}"}}]}
            text = json.dumps(answer if known else {"error": "who are you?"}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    ThreadingHTTPServer(("", 8000), Handler).serve_forever()


def judge_pod(namespace: str) -> list[dict[str, Any]]:
    """The judge as a pod under the restricted profile, its Service, and the Secret with its key."""
    image = json.loads((cache_paths().cache / "images.json").read_text())["runtime"]
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "judge",
        "image": image,
        "command": ["python", "-c", f"{inspect.getsource(judge)}\njudge()"],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "securityContext": security,
    }
    metadata = {"name": "judge", "namespace": namespace, "labels": {"app": "judge"}}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "judge", "namespace": namespace},
            "spec": {"selector": {"app": "judge"}, "ports": [{"port": 8000}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "tunesmith-judge", "namespace": namespace},
            "stringData": {"api-key": "sk-of-the-judge"},
        },
    ]


@pytest.fixture(scope="module")
def _allowed(cluster: Environment, kubectl: Kubectl) -> Iterator[None]:
    """The chart with a policy that allows both, while the tests of this module run."""
    install(cluster, podPolicy=ALLOWED)
    yield
    install(cluster)


def sampling_job(name: str, namespace: str, data: str, s3: Any, reward: dict[str, Any]) -> dict[str, Any]:
    rows = [{**row, "kind": "fruit"} for row in PROMPTS]
    return fine_tune_job(
        name,
        namespace,
        data,
        method="grpo",
        grpo=GROUPS,
        rewards=[reward],
        datasets=[{"uri": put_rows(s3, data, f"{name}.jsonl", rows), "format": "auto"}],
        training={"learningRate": 3e-3, "maxSteps": 2, "globalBatchSize": 16, "maxLength": 64},
    )


def mean_reward(status: dict[str, Any], name: str) -> float:
    return {each["name"]: float(each["mean"]) for each in status["progress"]["rewards"]}[name]


@pytest.mark.usefixtures("_allowed")
def test_code_rates_without_network_credentials_and_data(
    cluster: Environment, kubectl: Kubectl, namespace: str, data: str, s3: Any, wait_for: Wait
) -> None:
    host, _, port = cluster.s3_endpoint.rpartition("/")[2].partition(":")
    code = CODE.replace("{host}", host).replace("{port}", port)
    source = {"name": "tunesmith-rewards", "key": "vowel.py"}
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": source["name"], "namespace": namespace},
            "data": {source["key"]: code},
        },
        sampling_job("by-code", namespace, data, s3, {"name": "vowel", "type": "code", "code": {"configMap": source}}),
    )
    status = wait_for("finetunejob/by-code")
    assert status["phase"] == "Succeeded", json.dumps(status.get("lastFailure"), indent=1)
    assert 0 < mean_reward(status, "vowel") <= 1
    pod = "--selector=tunesmith.dev/name=by-code"
    assert "rated 16 fruit" in kubectl("logs", pod, f"--namespace={namespace}", "--container=reward-code", "--tail=-1")


@pytest.mark.usefixtures("_allowed")
def test_a_judge_with_a_key_rates(kubectl: Kubectl, namespace: str, data: str, s3: Any, wait_for: Wait) -> None:
    kubectl.apply(*judge_pod(namespace))
    kubectl("wait", "pod/judge", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=120s")
    settings = {
        "url": f"http://judge.{namespace}.svc:8000/v1",
        "model": "vowels",
        "apiKeySecret": "tunesmith-judge",
        "rubric": "Rate <{completion}>.",
    }
    kubectl.apply(sampling_job("judged", namespace, data, s3, {"name": "vowels", "type": "judge", "judge": settings}))
    status = wait_for("finetunejob/judged")
    assert status["phase"] == "Succeeded", json.dumps(status.get("lastFailure"), indent=1)
    assert 0 < mean_reward(status, "vowels") <= 1
