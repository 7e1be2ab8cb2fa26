"""Certificates and kubeconfigs. A single authority signs every server and client of the cluster.

Group and user names are those that Kubernetes' own RBAC bootstrap policy expects
(kubernetes.io/docs/setup/best-practices/certificates).
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import ClusterError

VALID_DAYS = "3650"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


@dataclass(frozen=True)
class Client:
    """The identity in a client certificate."""

    user: str
    group: str = ""

    def subject(self) -> str:
        return (f"/O={self.group}" if self.group else "") + f"/CN={self.user}"


CLIENTS: dict[str, Client] = {
    "admin": Client("kubernetes-admin", "system:masters"),
    "apiserver-client": Client("kube-apiserver", "system:masters"),
    "controller-manager": Client("system:kube-controller-manager"),
    "scheduler": Client("system:kube-scheduler"),
    "kube-proxy": Client("system:kube-proxy"),
    "coredns": Client("system:coredns"),
}


@dataclass(frozen=True)
class Authority:
    """A folder with ca.crt, ca.key and the certificates that they signed. Existing files are not replaced."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.certificate("ca")

    def certificate(self, name: str) -> Path:
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    def create(self, server_names: Sequence[str], clients: dict[str, Client]) -> None:
        """Create the missing files: the authority, the `server` certificate, those of the clients, the ServiceAccount key.

        `server_names`: DNS names and IP addresses that the servers are called by.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_authority()
        self._issue("server", "/CN=tunesmith-devcluster", "serverAuth", _alternative_names(server_names))
        for name, client in clients.items():
            self._issue(name, client.subject(), "clientAuth", "")
        if not self.key("service-account").exists():
            _openssl("genrsa", "-out", str(self.key("service-account")), "2048")

    def _make_authority(self) -> None:
        if self.ca.exists():
            return
        _openssl(
            *("req", "-x509", *NEW_KEY, "-keyout", str(self.key("ca")), "-out", str(self.ca), "-days", VALID_DAYS),
            *("-subj", "/CN=tunesmith-devcluster-ca"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def _issue(self, name: str, subject: str, usage: str, alternative_names: str) -> None:
        if self.certificate(name).exists():
            return
        names = ("-addext", f"subjectAltName={alternative_names}") if alternative_names else ()
        _openssl(
            *("req", "-x509", "-CA", str(self.ca), "-CAkey", str(self.key("ca")), *NEW_KEY, "-days", VALID_DAYS),
            *("-keyout", str(self.key(name)), "-out", str(self.certificate(name)), "-subj", subject),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature"),
            *("-addext", f"extendedKeyUsage={usage}", *names),
        )

    def write_kubeconfig(self, path: Path, client: str, server: str) -> None:
        """Write a self-contained kubeconfig, readable by its owner only. JSON is YAML."""
        document = kubeconfig(
            server,
            self.ca.read_bytes(),
            {
                "client-certificate-data": _base64(self.certificate(client).read_bytes()),
                "client-key-data": _base64(self.key(client).read_bytes()),
            },
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file, indent=2)


def kubeconfig(server: str, ca: bytes, user: dict[str, str]) -> dict[str, object]:
    """The document of a kubeconfig with a single context. `user` has the credentials, such as `token`."""
    name = "tunesmith"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _base64(ca)}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _alternative_names(names: Sequence[str]) -> str:
    return ",".join(f"{'IP' if name.replace('.', '').isdigit() else 'DNS'}:{name}" for name in names)


def _openssl(*arguments: str) -> None:
    result = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"openssl {arguments[0]} failed: {result.stderr.strip()}")
