"""A chain whose pods and node are killed at random moments has the same results and loses little work."""

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
    """The resources of a chain, in the order in which none can start."""
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
    """Kills pods of a chain, and checks that the training resumes from its last checkpoint."""

    kubectl: Kubectl
    namespace: str
    name: str
    chance: random.Random
    done: list[str] = field(default_factory=list)
    """The role of each killed pod, and the signal."""
    ledger: Ledger = field(default_factory=Ledger)
    phase: str = ""
    """The phase in the last status of the training."""

    def watch(self, until: Callable[[], object], minutes: float) -> None:
        """Check the training every second until a condition holds."""
        end = time.monotonic() + 60 * minutes
        while not until():
            assert time.monotonic() < end, (
                f"killed so far: {', '.join(self.done)}; no further kill was possible within {minutes} min"
            )
            self.check()
            time.sleep(1)

    def check(self) -> None:
        """Check the status of the training."""
        status = self.kubectl.get(self.namespace, f"finetunejob/{self.name}").get("status") or {}
        self.ledger.observe(status)
        self.phase = status.get("phase", "")

    def wait(self) -> None:
        """Wait for a random time, or, before the first kill, for the first checkpoint."""
        end = time.monotonic() + self.chance.uniform(10, 35)
        self.watch(lambda: time.monotonic() >= end if self.done else self.ledger.saved, CHAIN_MINUTES)

    def kill_a_pod(self) -> bool:
        """Kill a random running pod, by SIGTERM or, as in a power cut, by SIGKILL. False if none runs."""
        pods = [pod for pod in self._pods() if pod["status"].get("phase") in ("Pending", "Running")]
        if not pods:
            return False
        pod, by_sigkill = self.chance.choice(pods), self.chance.random() < 0.5
        self.check()
        how = ("--grace-period=0", "--force") if by_sigkill else ()
        name = pod["metadata"]["name"]
        deleted = self.kubectl(
            "delete", f"pod/{name}", f"--namespace={self.namespace}", "--wait=false", "--ignore-not-found", *how
        )
        if deleted.strip():
            self.done.append(f"{pod['metadata']['labels']['tunesmith.dev/role']}{' by SIGKILL' if by_sigkill else ''}")
        return bool(deleted.strip())

    def kill_the_node(self) -> None:
        """End the kubelet and all containers, including the operator's, and restart the node after a while."""
        self.check()
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
    """The results of a chain, without names and URIs."""
    statuses = [
        wait_for(f"{kind}/{name}", minutes=CHAIN_MINUTES) for kind in ("finetunejob", "evaljob", "inferenceservice")
    ]
    tuned, evaluated, served = statuses
    return {
        "phases": [status["phase"] for status in statuses],
        "model": {artifact["name"]: artifact["digest"] for artifact in tuned["artifacts"]},
        "loss": tuned["metrics"]["trainLoss"],
        "steps": tuned["metrics"]["steps"],
        "scores": [
            (score["benchmark"], score["metric"], score["value"], score["baseline"]) for score in evaluated["results"]
        ],
        "verdict": evaluated["verdict"],
        "served": served["model"]["digest"] == evaluated["model"]["digest"],
    }


def test_a_chain_whose_pods_and_node_are_killed_has_the_same_results(
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
            killer.watch(killer.kill_a_pod, CHAIN_MINUTES)
    killer.watch(lambda: killer.phase in FINISHED, CHAIN_MINUTES)
    came_to = results(wait_for, "harried")

    resumed_from = ", ".join(
        f"attempt {number} from step {step}" for number, step in killer.ledger.resumed_from.items()
    )
    with capsys.disabled():
        print(f"\nkilled, seed {seed}: {', '.join(killer.done)}; went on: {resumed_from}")
    assert len(killer.done) == KILLS
    assert resumed_from, "the training was not hit, or no attempt of it was seen to go on from a checkpoint"
    assert came_to == wanted
    assert came_to["phases"] == ["Succeeded", "Succeeded", "Ready"]
    assert came_to["steps"] == STEPS
