"""The command line: python3 -m devcluster up | down | status | env | logs | images | tools."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster import builds, cluster, preflight, toolchain
from devcluster.access import Environment, ensure_s3_credentials, environment, exports, is_external
from devcluster.commands import run
from devcluster.errors import ClusterError
from devcluster.images import build as build_images
from devcluster.images import room_for_images
from devcluster.paths import Paths, cache_paths
from devcluster.progress import elapsed, print_line

BROKEN = "broken; `python3 -m devcluster up` repairs it"


def main() -> int:
    parser = argparse.ArgumentParser(prog="devcluster", description="A real single-node Kubernetes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, help_text) in COMMANDS.items():
        command = commands.add_parser(name, help=help_text)
        if name == "logs":
            command.add_argument("component", nargs="?", help="a component that `status` lists")
            command.add_argument("--lines", type=int, default=100)
        if name == "tools":
            command.add_argument("names", nargs="*", help="such as helm or kubectl")
    arguments = parser.parse_args()
    try:
        return COMMANDS[arguments.command][0](cache_paths(), arguments)
    except ClusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndevcluster: interrupted; the next `up` goes on from here", file=sys.stderr)
        return 130


def up(paths: Paths, _: argparse.Namespace) -> int:
    if is_external(paths):
        return _use(paths, environment())
    start = time.monotonic()
    _check(paths)
    _warn_of_images(paths)
    with _one_at_a_time(paths):
        toolchain.ensure_debian(paths)
        builds.ensure_programs(paths)
        cluster.up(paths)
    print_line(f"the cluster is up ({elapsed(time.monotonic() - start)}); eval $(python3 -m devcluster env) to use it")
    return 0


def down(paths: Paths, _: argparse.Namespace) -> int:
    if is_external(paths):
        print_line(
            "KUBECONFIG names a cluster of yours, which is left alone; the embedded cluster is removed, if there is one"
        )
    if paths.cluster.exists():
        if os.geteuid():
            raise ClusterError("only root can remove the cluster: run the same command with sudo -E")
        with _one_at_a_time(paths):
            cluster.take_down(paths)
    print_line(f"the cluster is down; programs and pushed images stay in {paths.cache}")
    return 0


def status(paths: Paths, _: argparse.Namespace) -> int:
    if not paths.kubeconfig.exists():
        print_line("down")
        return 1
    found = cluster.health(paths)
    for name, complaint in found:
        record = cluster.supervisor(paths).record(name)
        process = f"process {record.identity.pid}" if record else ""
        print_line(f"{name:24} {complaint or 'healthy':24} {process}".rstrip())
    broken = any(complaint for _, complaint in found)
    print_line(BROKEN if broken else "healthy")
    return int(broken)


def env(paths: Paths, _: argparse.Namespace) -> int:
    """Print lines for the shell's eval; none for a cluster of the user."""
    if not is_external(paths):
        environment()
        for name, value in exports(paths).items():
            print_line(f'export {name}="{value}"')
    return 0


def logs(paths: Paths, arguments: argparse.Namespace) -> int:
    if arguments.component is None:
        for file in sorted(paths.logs.glob("*.log")):
            print_line(str(file))
        return 0
    file = cluster.supervisor(paths).log_file(arguments.component)
    if not file.exists():
        known = ", ".join(sorted(log.stem for log in paths.logs.glob("*.log"))) or "none yet"
        raise ClusterError(f"{arguments.component} has no log; there are logs of: {known}")
    for line in file.read_text(errors="replace").splitlines()[-arguments.lines :]:
        print_line(line)
    return 0


def tools(paths: Paths, arguments: argparse.Namespace) -> int:
    """Build programs only: kubectl and helm for a cluster of the user, or the programs of devcluster.standalone."""
    with _one_at_a_time(paths):
        if not arguments.names:
            toolchain.ensure_debian(paths)
        builds.ensure_programs(paths, arguments.names)
    return 0


def _use(paths: Paths, named: Environment) -> int:
    """Check that the user's cluster can be used, and report settings that later commands need."""
    absent = [name for name in ("kubectl", "helm") if not shutil.which(named.program(name))]
    if absent:
        raise ClusterError(
            f"{' and '.join(absent)} not found: install, or run `python3 -m devcluster tools kubectl helm`"
        )
    nodes = run([named.program("kubectl"), f"--kubeconfig={named.kubeconfig}", "get", "nodes", "--output=name"])
    print_line(f"using the cluster of KUBECONFIG={named.kubeconfig} ({len(nodes.split())} nodes)")
    missing = named.unnamed()
    if missing:
        print_line(f"not set: {', '.join(missing)}; images, the demo and the tests need them")
    else:
        print_line(f"images go to {named.registry}, models and data to {named.s3_endpoint}")
    _warn_of_images(paths)
    return 0


def _warn_of_images(paths: Paths) -> None:
    """Warn early if the disk has no room for the images, which the cluster itself does not need."""
    sentence = room_for_images(paths)
    if sentence and not paths.images.exists():
        print_line(f"warning: {sentence}")


def _check(paths: Paths) -> None:
    """Raise with a message for each precondition that is not met."""
    keys = ensure_s3_credentials(paths.s3_credentials) if paths.s3_credentials.exists() else ("", "")
    components = [stage.component for stage in cluster.stages(paths, *keys)]
    records = [cluster.supervisor(paths).record(component.name) for component in components]
    missing = [
        *toolchain.missing_installed(),
        *toolchain.missing_unpacked(paths),
        *(program.name for program in builds.missing_programs(paths)),
    ]
    own = {record.identity.pid for record in records if record}
    found = preflight.check(paths, components, own, missing)
    if found:
        raise ClusterError("nothing was started:\n" + "\n".join(f"  - {sentence}" for sentence in found))


@contextmanager
def _one_at_a_time(paths: Paths) -> Iterator[None]:
    """Let a second command wait for the first, which would otherwise start everything twice."""
    paths.cache.mkdir(parents=True, exist_ok=True)
    lock = Path(paths.cache / "devcluster.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_line("another devcluster command is running; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def images(paths: Paths, _: argparse.Namespace) -> int:
    for reference in build_images(paths, environment().registry).values():
        print_line(reference)
    return 0


COMMANDS: dict[str, tuple[Callable[[Paths, argparse.Namespace], int], str]] = {
    "up": (up, "bring the cluster up, or repair it"),
    "down": (down, "take it down and leave nothing behind"),
    "status": (status, "show the health of each component; exit code 1 if a component is not healthy"),
    "env": (env, "print what to export: eval $(python3 -m devcluster env)"),
    "logs": (logs, "show the log of a component, or the list of log files"),
    "images": (images, "build the operator's and the runtime's image and push them"),
    "tools": (tools, "build programs, all or those named, and start nothing"),
}
