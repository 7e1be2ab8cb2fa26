"""The operator as a process of its own, as the chart's ServiceAccount: what a test can do to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from devcluster.pki import kubeconfig
from devcluster.standalone import ControlPlane, free_ports
from tests.apiserver.chart import NAMESPACE, RELEASE, VALUES, account, operator_config, render
from tests.apiserver.scope import in_scope

ROOT = Path(__file__).resolve().parents[2]
USER = f"system:serviceaccount:{NAMESPACE}:{account(RELEASE)}"


@dataclass
class OperatorProcess:
    """One replica. Its files are below `folder`; it listens on free ports."""

    plane: ControlPlane
    folder: Path
    name: str
    release: str = RELEASE
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values of the chart that differ from chart.VALUES."""
    may_complain: bool = False
    """Whether what the test does to it is a reason for errors in its log."""
    server: str | None = None
    """URL of a proxy to the API server; None: the API server's own."""
    python_path: str = f"{ROOT / 'crds'}:{ROOT / 'operator'}"
    """Where its code is."""

    def __post_init__(self) -> None:
        # A container that is started again has its pod's address still, by which it knows its Lease.
        self.health_port, self.progress_port = free_ports(2)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = {"http": {"healthPort": self.health_port, "progressPort": self.progress_port}}
        (self.folder / "config.yaml").write_text(yaml.safe_dump({**self.configuration(), **ports}))
        self.write_credentials()
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": self.python_path,
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "TUNESMITH_CONFIG": str(self.folder / "config.yaml"),
            "POD_NAME": self.name,
            "POD_NAMESPACE": NAMESPACE,
            "POD_IP": "127.0.0.1",
        }
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-m", "tunesmith_operator"]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.folder)

    def configuration(self) -> dict[str, Any]:
        """What the chart gives it."""
        values = in_scope(self.plane, {**VALUES, **self.values}, self.release)
        return operator_config(render(self.plane, values, self.release))

    def write_credentials(self) -> None:
        """Give it a new token of its ServiceAccount, in the file that it reads."""
        (self.folder / "kubeconfig").write_text(json.dumps(self._kubeconfig()))

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.health_port}"

    def log(self) -> list[dict[str, Any]]:
        """What it has logged, line by line."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]

    def complaints(self) -> list[dict[str, Any]]:
        """What it has logged that should not happen."""
        if self.may_complain:
            return []
        return [
            entry
            for entry in self.log()
            if (entry["level"] in ("error", "critical") or "exception" in entry)
            and "TCP closed" not in entry["message"]  # kopf's word for being stopped while it asks
        ]

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text of a GET on the health port; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """The sum over a metric's series."""
        lines = (line for line in self.probe("/metrics")[1].splitlines() if line.startswith((f"{name} ", f"{name}{{")))
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def leads(self) -> bool:
        return self.metric("tunesmith_leader") == 1

    def push(self, token: str, report: Any) -> int:
        """Send a progress report as a pod would. Returns the HTTP status."""
        body = report if isinstance(report, bytes) else json.dumps(report).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.progress_port}/v1/progress",
            data=body,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def rss_mib(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """End it; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        return self.process.wait(timeout=40)

    def _kubeconfig(self) -> dict[str, object]:
        command = [self.plane.program("kubectl"), "--kubeconfig", str(self.plane.kubeconfig)]
        command += ["--namespace", NAMESPACE, "create", "token", account(self.release), "--duration", "2h"]
        token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        return kubeconfig(self.server or self.plane.url, self.plane.ca.read_bytes(), {"token": token})
