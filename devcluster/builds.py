"""Programs that are built from source: the table of their versions, and the build of those that are missing or stale.

The Go modules are in devcluster/go. Their go.mod and go.sum pin every dependency, so builds are reproducible.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster.commands import run
from devcluster.errors import ClusterError
from devcluster.paths import Paths
from devcluster.progress import step
from devcluster.toolchain import ensure_go

SOURCES = Path(__file__).parent / "go"
NO_MODULES = "check the network and `go env GOPROXY`"


@dataclass(frozen=True)
class Program:
    """An executable.

    `module` is the folder below devcluster/go in which it is built, `modfile` the file that pins its dependencies.
    `source` is the Go module that has `version`. `links` are the names under which the executable is called, and
    `folder` is where they are, below the folder of programs.
    """

    name: str
    version: str
    module: str
    package: str
    source: str = ""
    variables: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    """Go build tags."""
    modfile: str = "go.mod"
    folder: str = ""


def _kubernetes_version(version: str) -> tuple[str, ...]:
    """Linker variables. Without them the server reports v0.0.0-master, which a chart's kubeVersion refuses."""
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return tuple(f"k8s.io/component-base/version.{name}={value}" for name, value in values.items())


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="kubernetes",
        version="1.36.3",
        module="kubernetes",
        package=".",
        source="k8s.io/kubernetes",
        variables=_kubernetes_version("1.36.3"),
        links=(
            *("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
            *("kube-proxy", "kubelet", "kubectl"),
        ),
    ),
    Program("pause", "1", "tools", "./pause"),
    Program("coredns", "1.15.0", "tools", "./coredns", "github.com/coredns/coredns"),
    Program(
        name="helm",
        version="3.22.0",
        module="tools",
        package="helm.sh/helm/v3/cmd/helm",
        source="helm.sh/helm/v3",
        variables=(
            "helm.sh/helm/v3/internal/version.version=v3.22.0",
            "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1",
            "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=36",
            "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1",
            "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=36",
        ),
    ),
    Program(
        name="versitygw",
        version="1.8.0",
        module="tools",
        package="github.com/versity/versitygw/cmd/versitygw",
        source="github.com/versity/versitygw",
        variables=("main.Version=v1.8.0",),
    ),
)
CHECKERS: tuple[Program, ...] = (
    Program(
        name="kueue",
        version="0.10.1",
        module="kueue",
        package="sigs.k8s.io/kueue/cmd/kueue",
        source="sigs.k8s.io/kueue",
        variables=("sigs.k8s.io/kueue/pkg/version.GitVersion=v0.10.1",),
    ),
    Program("kubeconform", "0.7.0", "kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform"),
    Program("kwok", "0.8.0", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    Program("trainer-controller-manager", "2.0.0", "trainer", ".", "github.com/kubeflow/trainer/v2"),
    Program("jobset-controller-manager", "0.8.2", "trainer", "sigs.k8s.io/jobset", "sigs.k8s.io/jobset"),
    Program("kstatus", "1.2.1", "kstatus", ".", "github.com/fluxcd/cli-utils"),
    Program(
        name="promtool",
        version="3.15.0",
        module="promtool",
        package="github.com/prometheus/prometheus/cmd/promtool",
        tags=("remove_all_sd",),  # without what finds targets in clouds: half of the build
    ),
)
"""Programs that a cluster does not need. They are built when named."""


def kubernetes_folder(version: str) -> str:
    """The folder, below the folder of programs, of the servers of another Kubernetes version."""
    return f"kubernetes-{version}"


def _servers(version: str, modfile: str) -> Program:
    return Program(
        name=kubernetes_folder(version),
        version=version,
        module="controlplane",
        package=".",
        source="k8s.io/kubernetes",
        variables=_kubernetes_version(version),
        links=("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
        modfile=modfile,
        folder=kubernetes_folder(version),
    )


OTHER_VERSIONS: tuple[Program, ...] = (_servers("1.30.14", "oldest.mod"), _servers("1.37.2", "go.mod"))
"""Servers of the oldest and the newest Kubernetes version that the tests run against."""


def build_key(program: Program, sources: Path = SOURCES) -> str:
    """Identity of a build: it changes whenever the build would give another program."""
    parts = [program.package, program.variables, program.links, *program.tags]
    parts += [program.modfile] if program.modfile != "go.mod" else []
    digest = hashlib.sha256(json.dumps(parts).encode())
    for path in sorted((sources / program.module).rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(sources)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def missing_programs(paths: Paths, wanted: Collection[str] = ()) -> list[Program]:
    """The programs that are not built, or are stale, of those that `wanted` names or calls by a link; empty: of PROGRAMS."""
    by_name = {name: program for program in PROGRAMS + CHECKERS for name in (program.name, *program.links)}
    by_name |= {program.name: program for program in OTHER_VERSIONS}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise ClusterError(f"{', '.join(unknown)}: not built here; known programs: {', '.join(by_name)}")
    chosen = [by_name[name] for name in wanted] or list(PROGRAMS)
    return [program for program in dict.fromkeys(chosen) if not _is_built(paths, program)]


def ensure_programs(paths: Paths, wanted: Collection[str] = ()) -> None:
    """Build those of the programs that are missing or stale."""
    missing = missing_programs(paths, wanted)
    if not missing:
        return
    go = ensure_go(paths)
    sources = [program for program in missing if program.source]
    if sources:
        with step("check that Go modules can be fetched"):
            _download(go, sources[0])
    for program in missing:
        with _one_at_a_time(paths, program):
            if not _is_built(paths, program):  # another process may have built it meanwhile
                with step(f"build {program.name} {program.version}"):
                    _build(go, paths, program)


def source_folder(paths: Paths, name: str) -> Path:
    """The folder of the Go module that a program is built from, for its other files, for example CRDs."""
    program = next(program for program in PROGRAMS + CHECKERS if program.name == name)
    return Path(json.loads(_download(ensure_go(paths), program))["Dir"])


def _download(go: str, program: Program) -> str:
    """Fetch the source module of a program. Return what `go mod download -json` prints about it."""
    return run(
        [go, "mod", "download", "-json", f"-modfile={program.modfile}", program.source],
        cwd=SOURCES / program.module,
        fix=NO_MODULES,
    )


@contextmanager
def _one_at_a_time(paths: Paths, program: Program) -> Iterator[None]:
    """Let one process build a program, while others wait for it."""
    folder = _folder(paths, program)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{program.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(go: str, paths: Paths, program: Program) -> None:
    folder = _folder(paths, program)
    target, new = folder / program.name, folder / f".{program.name}.new"
    linker = " ".join(["-s", "-w", *(f"-X {variable}" for variable in program.variables)])
    run(
        [
            *(go, "build", f"-modfile={program.modfile}", "-trimpath", "-buildvcs=false"),
            *("-tags", ",".join(program.tags), "-ldflags", linker, "-o", str(new), program.package),
        ],
        cwd=SOURCES / program.module,
        environment={"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"},
        fix=NO_MODULES,
    )
    new.replace(target)
    for link in program.links:
        (folder / link).unlink(missing_ok=True)
        (folder / link).symlink_to(program.name)
    _stamp(paths, program).write_text(build_key(program))


def _folder(paths: Paths, program: Program) -> Path:
    return paths.bin / program.folder


def _stamp(paths: Paths, program: Program) -> Path:
    return _folder(paths, program) / f".{program.name}.key"


def _is_built(paths: Paths, program: Program) -> bool:
    stamp = _stamp(paths, program)
    files = (_folder(paths, program) / name for name in (program.name, *program.links))
    return all(file.exists() for file in files) and stamp.exists() and stamp.read_text() == build_key(program)
