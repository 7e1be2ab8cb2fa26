"""Figures of pods on the embedded cluster: start-up, training speed, transfer speed, a change of code.

`python -m tests.bench.bench_pods`. Uses the quickstart's model and words, which it puts into the store where they are
missing, and one FineTuneJob that is removed afterwards. Prints a table; asserts nothing.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "quickstart"))

import demo

from devcluster import environment
from devcluster.kubectl import Kubectl, install_chart, tenant_namespace
from devcluster.paths import cache_paths

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "bench"
STEPS = 12


def main() -> None:
    """Print each figure."""
    cluster = environment()
    kubectl = Kubectl(cluster)
    rows = [("code change: both images built and pushed", f"{rebuild_seconds():.1f} s")]
    images = json.loads((cache_paths().cache / "images.json").read_text())
    install_chart(cluster, images, store_uri=f"s3://{demo.BUCKET}")
    kubectl.apply(*tenant_namespace(cluster, NAMESPACE), demo.catalogue(NAMESPACE))
    demo.fill_store(cluster)
    try:
        rows += training(kubectl)
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    for name, value in rows:
        print(f"{name:<62}{value:>14}")


def rebuild_seconds() -> float:
    """Time from a changed line of code in both packages to both images in the registry."""
    added = ROOT / "crds" / "tunesmith_api" / "changed_by_the_bench.py"
    added.write_text(f'"""{uuid.uuid4()}"""\n')
    try:
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "devcluster", "images"], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        return time.monotonic() - start
    finally:
        added.unlink()


def training(kubectl: Kubectl) -> list[tuple[str, str]]:
    """Figures of a short LoRA run of the 135M model, from its timestamps and log lines."""
    name = "speed"
    manifest = json.loads(
        kubectl("create", "--dry-run=client", "--output=json", f"--filename={demo.HERE}/finetunejob.yaml")
    )
    manifest["metadata"] = {"name": name, "namespace": NAMESPACE}
    manifest["spec"]["training"]["maxSteps"] = STEPS
    manifest["spec"]["rerun"] = uuid.uuid4().hex
    applied = time.time()
    kubectl.apply(manifest)
    pod = wait_for_end(kubectl, f"{name}-tune-1")
    stages = {
        status["name"]: status
        for status in [*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"]]
    }
    fetch, train = (
        kubectl("logs", pod["metadata"]["name"], f"--namespace={NAMESPACE}", f"--container={stage}", "--timestamps")
        for stage in ("fetch", "train")
    )
    steps = re.findall(r"^(\S+) .*step (\d+)/\d+ .* (\d+) tokens/s", train, re.MULTILINE)
    speeds = [int(tokens) for _, step, tokens in steps if int(step) > 1]
    created = seconds(pod["metadata"]["creationTimestamp"])
    started = seconds(stages["train"]["state"]["terminated"]["startedAt"])
    download = re.findall(r"downloaded .*: (.+ MB) in .* \((.+ MB/s)\)", fetch)
    return [
        ("apply to pod", f"{max(created - applied, 0):.0f} s"),
        ("fetch container, model in the store", f"{duration(stages['fetch']):.0f} s"),
        *[(f"fetch of {size}", rate) for size, rate in download[-1:]],
        ("train container's start to the end of its first step", f"{seconds(steps[0][0]) - started:.0f} s"),
        (f"LoRA of the 135M model, precision auto, median of {len(speeds)} reports", f"{statistics.median(speeds):.0f} tokens/s"),
        ("export container: merge, compare logits, upload", f"{duration(stages['export']):.0f} s"),
    ]  # fmt: skip


def wait_for_end(kubectl: Kubectl, job: str) -> dict[str, Any]:
    """The pod of the Job, once all its containers have ended."""
    while True:
        pods = json.loads(
            kubectl("get", "pods", f"--namespace={NAMESPACE}", f"--selector=job-name={job}", "--output=json")
        )
        for pod in pods["items"]:
            if pod["status"]["phase"] == "Failed":
                raise SystemExit(f"the pod failed: {json.dumps(pod['status'], indent=1)}")
            if pod["status"]["phase"] == "Succeeded":
                return dict(pod)
        time.sleep(1)


def seconds(stamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", stamp)).timestamp()


def duration(container: dict[str, Any]) -> float:
    """Duration of a container in seconds."""
    ended = container["state"]["terminated"]
    return seconds(ended["finishedAt"]) - seconds(ended["startedAt"])


if __name__ == "__main__":
    main()
