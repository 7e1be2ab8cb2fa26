"""kubectl and helm on the cluster of an `Environment`: for the demo, the tests and the benchmarks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devcluster.access import Environment
from devcluster.commands import run
from devcluster.errors import ClusterError

CHART = Path(__file__).resolve().parent.parent / "charts" / "tunesmith"
CREDENTIALS_SECRET = "tunesmith-store"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class Kubectl:
    """kubectl with the cluster's kubeconfig."""

    def __init__(self, environment: Environment) -> None:
        self.argv = [environment.program("kubectl"), f"--kubeconfig={environment.kubeconfig}"]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output. Raises ClusterError with its message."""
        return run([*self.argv, *arguments], stdin=stdin)

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply manifests."""
        self("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))

    def get(self, namespace: str, resource: str) -> dict[str, Any]:
        """An object such as `finetunejob/words`, or {} if it does not exist."""
        text = self("get", resource, f"--namespace={namespace}", "--output=json", "--ignore-not-found")
        return dict(json.loads(text)) if text.strip() else {}

    @contextmanager
    def port_forward(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """The base URL, on this machine, of a Service's port."""
        process = subprocess.Popen(
            [*self.argv, "port-forward", f"--namespace={namespace}", f"service/{service}", f":{port}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            first_line = process.stdout.readline()  # Forwarding from 127.0.0.1:PORT -> 8000
            yield f"http://127.0.0.1:{first_line.split(' -> ')[0].rpartition(':')[2]}"
        finally:
            process.terminate()
            process.wait()


def install_chart(
    environment: Environment,
    images: Mapping[str, str],
    *,
    store_uri: str,
    region: str = "us-east-1",
    namespace: str = "tunesmith-system",
    values: Mapping[str, Any] | None = None,
) -> None:
    """Install or upgrade the chart with the cluster's store as the default store, and wait until the operator is ready."""
    settings = {
        "images": dict(images),
        "store": {
            "uri": store_uri,
            "endpoint": environment.s3_endpoint,
            "region": region,
            "credentialsSecret": CREDENTIALS_SECRET,
        },
        **(values or {}),
    }
    helm = [environment.program("helm"), f"--kubeconfig={environment.kubeconfig}", f"--namespace={namespace}"]
    install = ["upgrade", "--install", "tunesmith", str(CHART), "--create-namespace", "--values=-"]
    try:
        run([*helm, *install, "--wait", "--timeout=5m"], stdin=json.dumps(settings))
    except ClusterError as error:
        kubectl = Kubectl(environment)
        pods = kubectl("get", "pods", f"--namespace={namespace}")
        logs = kubectl("logs", f"--namespace={namespace}", "--selector=app.kubernetes.io/name=tunesmith", "--tail=5")
        raise ClusterError(f"{error}\n{pods}{logs}") from None


def tenant_namespace(environment: Environment, name: str) -> list[dict[str, Any]]:
    """Manifests of a namespace under the restricted Pod Security profile, with the store's credentials."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": CREDENTIALS_SECRET, "namespace": name},
            "stringData": {
                "AWS_ACCESS_KEY_ID": environment.s3_access_key,
                "AWS_SECRET_ACCESS_KEY": environment.s3_secret_key,
            },
        },
    ]
