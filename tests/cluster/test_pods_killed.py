"""Pods, and the node with all of them, killed at random moments of a chain: the same results, and little work lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from devcluster import Environment, containers
from devcluster import cluster as parts
from devcluster.kubectl import Kubectl
from devcluster.paths import cache_paths
from tests.cluster.conftest import FINISHED, fine_tune_job, resource
from tests.cluster.lost_work import Ledger

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
    """Kills pods of a chain, and watches that its training loses no more than what came after its last checkpoint."""

    kubectl: Kubectl
    namespace: str
    name: str
    chance: random.Random
    done: list[str] = field(default_factory=list)
    """The role of each pod that was killed, and how."""
    ledger: Ledger = field(default_factory=Ledger)
    phase: str = ""
    """Of the training, when it was looked at last."""

    def watch(self, until: Callable[[], object], minutes: float) -> None:
        """Look at the training every second until something is true."""
        end = time.monotonic() + 60 * minutes
        while not until():
            assert time.monotonic() < end, f"killed so far: {', '.join(self.done)}; no chance for more in {minutes} min"
            self.look()
            time.sleep(1)

    def look(self) -> None:
        """Judge the training by its status."""
        status = self.kubectl.get(self.namespace, f"finetunejob/{self.name}").get("status") or {}
        self.ledger.look(status)
        self.phase = status.get("phase", "")

    def wait(self) -> None:
        """Let a random time pass; before the first kill, the time in which something is saved."""
        end = time.monotonic() + self.chance.uniform(10, 35)
        self.watch(lambda: time.monotonic() >= end if self.done else self.ledger.saved, CHAIN_MINUTES)

    def kill_one(self) -> bool:
        """Kill any one pod that is at work: asked to stop, or without a word as by a power cut. False where there is none."""
        pods = [pod for pod in self._pods() if pod["status"].get("phase") in ("Pending", "Running")]
        if not pods:
            return False
        pod, at_once = self.chance.choice(pods), self.chance.random() < 0.5
        self.look()
        how = ("--grace-period=0", "--force") if at_once else ()
        name = pod["metadata"]["name"]
        deleted = self.kubectl(
            "delete", f"pod/{name}", f"--namespace={self.namespace}", "--wait=false", "--ignore-not-found", *how
        )
        if deleted.strip():
            self.done.append(f"{pod['metadata']['labels']['tunesmith.dev/role']}{' without a word' if at_once else ''}")
        return bool(deleted.strip())

    def kill_the_node(self) -> None:
        """The kubelet and every container end at once, the operator's among them; the node comes back after a while."""
        self.look()
        paths = cache_paths()
        parts.supervisor(paths).stop("kubelet", 0.0)
        containers.end_containers(paths.containerd_socket)
        time.sleep(NODE_AWAY_SECONDS)
        subprocess.run([sys.executable, "-m", "devcluster", "up"], check=True, stdout=subprocess.DEVNULL)
        self.done.append("the node")

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
        killer.wait()
        if number == KILLS // 4:
            killer.kill_the_node()
        else:
            killer.watch(killer.kill_one, CHAIN_MINUTES)
    killer.watch(lambda: killer.phase in FINISHED, CHAIN_MINUTES)
    came_to = results(wait_for, "harried")

    went_on = ", ".join(f"attempt {number} from step {step}" for number, step in killer.ledger.went_on.items())
    with capsys.disabled():
        print(f"\nkilled, seed {seed}: {', '.join(killer.done)}; went on: {went_on}")
    assert len(killer.done) == KILLS
    assert went_on, "the training was not hit, or no attempt of it was seen to go on from a checkpoint"
    assert came_to == wanted
    assert came_to["phases"] == ["Succeeded", "Succeeded", "Ready"]
    assert came_to["steps"] == STEPS
