"""What is built from source: the table of programs and their versions, and the building of what is missing or stale.

The Go modules are in devcluster/go; their go.mod and go.sum pin every dependency, so a build is the same everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
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
    """One executable. `module`: the folder below devcluster/go that it is built in. `source`: the Go module whose
    version is `version`. `links`: names by which the executable is called; the first is what the check looks for."""

    name: str
    version: str
    module: str
    package: str
    source: str = ""
    variables: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    """Go build tags."""


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="kubernetes",
        version="1.36.3",
        module="kubernetes",
        package=".",
        source="k8s.io/kubernetes",
        # Without them the server calls itself v0.0.0-master, and a chart's kubeVersion refuses it.
        variables=(
            "k8s.io/component-base/version.gitVersion=v1.36.3",
            "k8s.io/component-base/version.gitMajor=1",
            "k8s.io/component-base/version.gitMinor=36",
        ),
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
"""Programs that a cluster does not need; built when they are asked for by name."""


def build_key(program: Program, sources: Path = SOURCES) -> str:
    """Changes whenever a build would give another program."""
    digest = hashlib.sha256(json.dumps([program.package, program.variables, program.links, *program.tags]).encode())
    for path in sorted((sources / program.module).rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(sources)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def missing_programs(paths: Paths, wanted: Collection[str] = ()) -> list[Program]:
    """Programs that are not built, or are stale. `wanted`: their names, or names that they are called by; all if empty."""
    known = {name: program for program in PROGRAMS + CHECKERS for name in (program.name, *program.links)}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ClusterError(f"{', '.join(unknown)}: not built here; what is: {', '.join(known)}")
    chosen = [known[name] for name in wanted] or list(PROGRAMS)
    return [program for program in dict.fromkeys(chosen) if not _is_built(paths, program)]


def ensure_programs(paths: Paths, wanted: Collection[str] = ()) -> None:
    """Build what is missing or stale of them."""
    missing = missing_programs(paths, wanted)
    if not missing:
        return
    go = ensure_go(paths)
    sources = [program for program in missing if program.source]
    if sources:
        with step("check that Go modules can be fetched"):
            run([go, "mod", "download", sources[0].source], cwd=SOURCES / sources[0].module, fix=NO_MODULES)
    for program in missing:
        with step(f"build {program.name} {program.version}"):
            _build(go, paths, program)


def _build(go: str, paths: Paths, program: Program) -> None:
    paths.bin.mkdir(parents=True, exist_ok=True)
    target, new = paths.bin / program.name, paths.bin / f".{program.name}.new"
    linker = " ".join(["-s", "-w", *(f"-X {variable}" for variable in program.variables)])
    run(
        [
            *(go, "build", "-trimpath", "-buildvcs=false", "-tags", ",".join(program.tags)),
            *("-ldflags", linker, "-o", str(new), program.package),
        ],
        cwd=SOURCES / program.module,
        environment={"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"},
        fix=NO_MODULES,
    )
    new.replace(target)
    for link in program.links:
        (paths.bin / link).unlink(missing_ok=True)
        (paths.bin / link).symlink_to(program.name)
    _stamp(paths, program).write_text(build_key(program))


def source_folder(paths: Paths, name: str) -> Path:
    """The folder of the Go module that a program is built from, for what it holds besides: CRDs, say."""
    program = next(one for one in PROGRAMS + CHECKERS if one.name == name)
    told = run(
        [ensure_go(paths), "mod", "download", "-json", program.source], cwd=SOURCES / program.module, fix=NO_MODULES
    )
    return Path(json.loads(told)["Dir"])


def _stamp(paths: Paths, program: Program) -> Path:
    return paths.bin / f".{program.name}.key"


def _is_built(paths: Paths, program: Program) -> bool:
    stamp = _stamp(paths, program)
    files = (paths.bin / name for name in (program.name, *program.links))
    return all(file.exists() for file in files) and stamp.exists() and stamp.read_text() == build_key(program)
