"""The cluster that everything else uses: the one in KUBECONFIG, or the embedded one."""

from __future__ import annotations

import configparser
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.components import addresses
from devcluster.errors import ClusterError
from devcluster.paths import Paths, cache_paths

EXTERNAL_HELP = (
    "KUBECONFIG names a cluster of yours, so set also {missing}; or unset KUBECONFIG to use the embedded cluster"
)


@dataclass(frozen=True)
class Environment:
    """How to reach a cluster, its registry and its S3 server.

    `registry`: host:port, as the nodes pull from it and as this machine pushes to it. `s3_endpoint`: URL, the same for
    pods and for this machine. `bin_dir`: where kubectl and helm are. `embedded`: whether the cluster is ours.
    """

    kubeconfig: Path
    registry: str
    s3_endpoint: str
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    bin_dir: Path
    embedded: bool

    def program(self, name: str) -> str:
        """kubectl or helm: ours if it was built, otherwise the one on PATH."""
        ours = self.bin_dir / name
        return str(ours) if ours.exists() else name


def is_external(paths: Paths) -> bool:
    """Whether the user has named a cluster; our own kubeconfig in KUBECONFIG (as `env` prints it) is not one."""
    named = os.environ.get("KUBECONFIG", "")
    return bool(named) and Path(named).expanduser().resolve() != paths.kubeconfig.resolve()


def environment() -> Environment:
    """The cluster to use. Raises ClusterError if the embedded one is not there, or the user's is named by half."""
    paths = cache_paths()
    return _external(paths) if is_external(paths) else _embedded(paths)


def _embedded(paths: Paths) -> Environment:
    if not paths.kubeconfig.exists():
        raise ClusterError("there is no cluster; bring it up with `make cluster`, or name yours with KUBECONFIG")
    access_key, secret_key = read_s3_credentials(paths.s3_credentials)
    return Environment(
        kubeconfig=paths.kubeconfig,
        registry=addresses.REGISTRY,
        s3_endpoint=addresses.S3_ENDPOINT,
        s3_access_key=access_key,
        s3_secret_key=secret_key,
        bin_dir=paths.bin,
        embedded=True,
    )


def _external(paths: Paths) -> Environment:
    if os.pathsep in os.environ["KUBECONFIG"]:
        raise ClusterError(
            "KUBECONFIG names several files: make one with `kubectl config view --flatten`, and name that"
        )
    names = ("TUNESMITH_REGISTRY", "TUNESMITH_S3_ENDPOINT")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise ClusterError(EXTERNAL_HELP.format(missing=" and ".join(missing)))
    access_key, secret_key = _user_s3_credentials()
    return Environment(
        kubeconfig=Path(os.environ["KUBECONFIG"]).expanduser(),
        registry=os.environ["TUNESMITH_REGISTRY"],
        s3_endpoint=os.environ["TUNESMITH_S3_ENDPOINT"],
        s3_access_key=access_key,
        s3_secret_key=secret_key,
        bin_dir=paths.bin,
        embedded=False,
    )


def _user_s3_credentials() -> tuple[str, str]:
    keys = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if keys[0] and keys[1]:
        return keys[0], keys[1]
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    if not file:
        wanted = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SHARED_CREDENTIALS_FILE)"
        raise ClusterError(EXTERNAL_HELP.format(missing=wanted))
    return read_s3_credentials(Path(file).expanduser())


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
    """The keys of our S3 server, made up the first time and readable by the owner only."""
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
    """What `env` prints for the embedded cluster. The secret key is not printed: its file is named, which the AWS
    tools and boto3 read by themselves."""
    return {
        "KUBECONFIG": str(paths.kubeconfig),
        "TUNESMITH_REGISTRY": addresses.REGISTRY,
        "TUNESMITH_S3_ENDPOINT": addresses.S3_ENDPOINT,
        "AWS_ENDPOINT_URL_S3": addresses.S3_ENDPOINT,
        "AWS_SHARED_CREDENTIALS_FILE": str(paths.s3_credentials),
        "AWS_DEFAULT_REGION": "us-east-1",
        "PATH": f"{paths.bin}:$PATH",
    }
