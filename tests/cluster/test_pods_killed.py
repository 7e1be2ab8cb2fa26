"""Pods, and the node with all of them, killed at random moments of a chain: the same results, and little work lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from devcluster import Environment, containers
from devcluster import cluster as parts
from devcluster.kubectl import Kubectl
from devcluster.paths import cache_paths
from tests.cluster.conftest import fine_tune_job, resource

KILLS = int(os.environ.get("TUNESMITH_KILLS", "20"))
CHAIN_MINUTES = 25.0
NODE_AWAY_SECONDS = 20.0
STEPS = 12 * 512 // 8
TUNING: dict[str, Any] = {
    "training": {"epochs": 12, "learningRate": 0.001, "globalBatchSize": 8, "maxLength": 64},
    "checkpoint": {"everySteps": 25},
    "retries": 20,
}
Wait = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.deep


def chain(name: str, namespace: str, data: str) -> list[dict[str, Any]]:
    """A service of what passes, in an order in which nothing can start at once."""
    tuned = {"fineTuneJob": {"name": name}}
    test = {"name": "kinds", "dataset": {"uri": f"{data}/test.jsonl", "type": "qa"}}
    evaluation = {"model": tuned, "benchmarks": [test], "gates": [{"benchmark": "kinds", "min": 0.5}], "retries": 20}
    evaluation |= {"baseline": {"uri": f"{data}/model"}, "generation": {"maxTokens": 8}}
    return [
        resource("InferenceService", name, namespace, {"model": tuned, "promotion": {"evalJobs": [{"name": name}]}}),
        resource("EvalJob", name, namespace, evaluation),
        fine_tune_job(name, namespace, data, **TUNING),
    ]


@dataclass
class Killer:
    """Kills pods of a namespace, and remembers what the training had saved when it did."""

    kubectl: Kubectl
    namespace: str
    name: str
    chance: random.Random
    done: list[str] = field(default_factory=list)
    saved: int = 0
    """The step of the last checkpoint that status told of before a pod of the training was killed."""
    resumed_before: int | None = None
    """Where the attempt that was killed last had resumed: status says so until the next one has told of itself."""

    def kill_one(self) -> None:
        """Kill any one pod that is at work: asked to stop, or without a word as by a power cut."""
        pods = [pod for pod in self._pods() if pod["status"].get("phase") in ("Pending", "Running")]
        if pods:
            pod, at_once = self.chance.choice(pods), self.chance.random() < 0.5
            self._remember()
            how = ("--grace-period=0", "--force") if at_once else ()
            name = pod["metadata"]["name"]
            self.kubectl(
                "delete", f"pod/{name}", f"--namespace={self.namespace}", "--wait=false", "--ignore-not-found", *how
            )
            self.done.append(f"{pod['metadata']['labels']['tunesmith.dev/role']}{' without a word' if at_once else ''}")

    def kill_the_node(self) -> None:
        """The kubelet and every container end at once, the operator's among them; the node comes back after a while."""
        self._remember()
        paths = cache_paths()
        parts.supervisor(paths).stop("kubelet", 0.0)
        containers.end_containers(paths.containerd_socket)
        time.sleep(NODE_AWAY_SECONDS)
        subprocess.run([sys.executable, "-m", "devcluster", "up"], check=True, stdout=subprocess.DEVNULL)
        self.done.append("the node")

    def check_resumed(self) -> None:
        """An attempt after a kill has resumed where status had said that it was saved, or later."""
        resumed = self._status().get("resumedFromStep")
        is_news = resumed is not None and resumed != self.resumed_before
        assert not is_news or resumed >= self.saved, f"resumed from {resumed}, but {self.saved} was saved"

    def _remember(self) -> None:
        self.check_resumed()
        status = self._status()
        self.saved = max(self.saved, (status.get("lastCheckpoint") or {}).get("step", 0))
        self.resumed_before = status.get("resumedFromStep")

    def _status(self) -> Mapping[str, Any]:
        return self.kubectl.get(self.namespace, f"finetunejob/{self.name}").get("status") or {}

    def _pods(self) -> list[dict[str, Any]]:
        pods = self.kubectl.get(self.namespace, "pods")["items"]
        return [pod for pod in pods if pod["metadata"]["labels"].get("tunesmith.dev/name") == self.name]


def results(wait_for: Wait, name: str) -> dict[str, Any]:
    """What a chain has come to, without names and places."""
    statuses = [
        wait_for(f"{kind}/{name}", minutes=CHAIN_MINUTES) for kind in ("finetunejob", "evaljob", "inferenceservice")
    ]
    tuned, evaluated, served = statuses
    return {
        "phases": [status["phase"] for status in statuses],
        "model": {artifact["name"]: artifact["digest"] for artifact in tuned["artifacts"]},
        "loss": tuned["metrics"]["trainLoss"],
        "steps": tuned["metrics"]["steps"],
        "scores": [(one["benchmark"], one["metric"], one["value"], one["baseline"]) for one in evaluated["results"]],
        "verdict": evaluated["verdict"],
        "served": served["model"]["digest"] == evaluated["model"]["digest"],
    }


def test_a_chain_whose_pods_and_node_are_killed_comes_to_the_same_results(
    cluster: Environment,
    kubectl: Kubectl,
    namespace: str,
    data: str,
    wait_for: Wait,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if os.environ.get("KUBECONFIG"):
        pytest.skip("the node of a cluster of the user's is not ours to kill")
    kubectl.apply(*chain("calm", namespace, data))
    wanted = results(wait_for, "calm")
    kubectl("delete", "inferenceservice/calm", f"--namespace={namespace}")

    seed = int(os.environ.get("TUNESMITH_SEED") or random.randrange(10**6))
    killer = Killer(kubectl, namespace, "harried", random.Random(seed))
    kubectl.apply(*chain("harried", namespace, data))
    for number in range(KILLS):
        time.sleep(killer.chance.uniform(10, 35))
        if number == KILLS // 4:
            killer.kill_the_node()
        else:
            killer.kill_one()
    came_to = results(wait_for, "harried")
    killer.check_resumed()

    with capsys.disabled():
        print(f"\nkilled, seed {seed}: {', '.join(killer.done)}")
    assert came_to == wanted
    assert came_to["phases"] == ["Succeeded", "Succeeded", "Ready"]
    assert came_to["steps"] == STEPS
