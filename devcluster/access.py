"""Access to the cluster in use: the cluster in KUBECONFIG, or the embedded cluster."""

from __future__ import annotations

import configparser
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from devcluster.components import addresses
from devcluster.errors import ClusterError
from devcluster.paths import Paths, cache_paths

EXTERNAL_HELP = (
    "KUBECONFIG names a cluster of yours, so also set {missing}; or unset KUBECONFIG to use the embedded cluster"
)
T = TypeVar("T")
REGISTRY, S3_ENDPOINT = "TUNESMITH_REGISTRY", "TUNESMITH_S3_ENDPOINT"
S3_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SHARED_CREDENTIALS_FILE)"


@dataclass(frozen=True)
class Environment:
    """How to reach a cluster, its registry and its S3 server.

    `bin_dir` is the folder of kubectl and helm, `embedded` whether the cluster is ours. `named_...` is None where the user
    has not set the variable, which is an error only when the value is used.
    """

    kubeconfig: Path
    bin_dir: Path
    embedded: bool
    named_registry: str | None
    named_s3_endpoint: str | None
    named_s3_keys: tuple[str, str] | None = field(repr=False)

    @property
    def registry(self) -> str:
        """host:port, the same for the nodes and for this machine. Raises ClusterError if it is not set."""
        return _needed(self.named_registry, REGISTRY)

    @property
    def s3_endpoint(self) -> str:
        """URL, the same for pods and for this machine. Raises ClusterError if it is not set."""
        return _needed(self.named_s3_endpoint, S3_ENDPOINT)

    @property
    def s3_access_key(self) -> str:
        """Raises ClusterError if the keys are not set."""
        return _needed(self.named_s3_keys, S3_KEYS)[0]

    @property
    def s3_secret_key(self) -> str:
        """Raises ClusterError if the keys are not set."""
        return _needed(self.named_s3_keys, S3_KEYS)[1]

    def unnamed(self) -> list[str]:
        """Variables that are not set and that images and the store need."""
        named = {REGISTRY: self.named_registry, S3_ENDPOINT: self.named_s3_endpoint, S3_KEYS: self.named_s3_keys}
        return [variable for variable, value in named.items() if value is None]

    def program(self, name: str) -> str:
        """Path of kubectl or helm: the built program, or else the name, to be found on PATH."""
        ours = self.bin_dir / name
        return str(ours) if ours.exists() else name


def is_external(paths: Paths) -> bool:
    """Whether the user has named a cluster; our own kubeconfig in KUBECONFIG (as `env` prints it) does not count."""
    named = os.environ.get("KUBECONFIG", "")
    return bool(named) and Path(named).expanduser().resolve() != paths.kubeconfig.resolve()


def environment() -> Environment:
    """The cluster to use. Raises ClusterError if the embedded cluster does not exist, or KUBECONFIG names several files."""
    paths = cache_paths()
    return _external(paths) if is_external(paths) else _embedded(paths)


def _embedded(paths: Paths) -> Environment:
    if not paths.kubeconfig.exists():
        raise ClusterError("there is no cluster; start it with `make cluster`, or set KUBECONFIG to yours")
    return Environment(
        kubeconfig=paths.kubeconfig,
        bin_dir=paths.bin,
        embedded=True,
        named_registry=addresses.REGISTRY,
        named_s3_endpoint=addresses.S3_ENDPOINT,
        named_s3_keys=read_s3_credentials(paths.s3_credentials),
    )


def _external(paths: Paths) -> Environment:
    if os.pathsep in os.environ["KUBECONFIG"]:
        raise ClusterError(
            "KUBECONFIG names several files: merge them with `kubectl config view --flatten`, and set KUBECONFIG to the result"
        )
    return Environment(
        kubeconfig=Path(os.environ["KUBECONFIG"]).expanduser(),
        bin_dir=paths.bin,
        embedded=False,
        named_registry=os.environ.get(REGISTRY) or None,
        named_s3_endpoint=os.environ.get(S3_ENDPOINT) or None,
        named_s3_keys=_user_s3_credentials(),
    )


def _needed(value: T | None, variable: str) -> T:
    if value is None:
        raise ClusterError(EXTERNAL_HELP.format(missing=variable))
    return value


def _user_s3_credentials() -> tuple[str, str] | None:
    keys = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if keys[0] and keys[1]:
        return keys[0], keys[1]
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    return read_s3_credentials(Path(file).expanduser()) if file else None


def read_s3_credentials(path: Path) -> tuple[str, str]:
    """Access key and secret key from the [default] section of an AWS shared credentials file."""
    parser = configparser.ConfigParser()
    try:
        parser.read_string(path.read_text())
        section = parser["default"]
        return section["aws_access_key_id"], section["aws_secret_access_key"]
    except (OSError, configparser.Error, KeyError) as error:
        raise ClusterError(
            f"{path} is not a credentials file with aws_access_key_id and aws_secret_access_key under [default]: {error}"
        ) from None


def ensure_s3_credentials(path: Path) -> tuple[str, str]:
    """The keys of our S3 server, generated at the first call and readable by the owner only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (
            "[default]\n"
            f"aws_access_key_id = {secrets.token_hex(10)}\n"
            f"aws_secret_access_key = {secrets.token_urlsafe(30)}\n"
        )
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    return read_s3_credentials(path)


def exports(paths: Paths) -> dict[str, str]:
    """Variables that `env` prints for the embedded cluster. They name the file with the secret key, which the AWS tools and
    boto3 read, not the key itself."""
    return {
        "KUBECONFIG": str(paths.kubeconfig),
        "TUNESMITH_REGISTRY": addresses.REGISTRY,
        "TUNESMITH_S3_ENDPOINT": addresses.S3_ENDPOINT,
        "AWS_ENDPOINT_URL_S3": addresses.S3_ENDPOINT,
        "AWS_SHARED_CREDENTIALS_FILE": str(paths.s3_credentials),
        "AWS_DEFAULT_REGION": "us-east-1",
        "PATH": f"{paths.bin}:$PATH",
    }
