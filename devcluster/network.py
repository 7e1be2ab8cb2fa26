"""Network and kernel settings of the machine: set them for the cluster, and restore them.

Before anything is touched, what is there is written down (`Before`). `restore` goes back to that: what was there stays,
what came with the cluster goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from devcluster.commands import run, succeeds
from devcluster.components import addresses
from devcluster.errors import ClusterError

FIREWALLS = ("iptables", "ip6tables")
OUR_CHAINS = re.compile(r"^(KUBE|CNI)-")

# Set by us.
WANTED_SETTINGS: dict[str, str] = {
    "net/ipv4/ip_forward": "1",
    # Without it, replies between pods of the bridge bypass the translation of Service addresses.
    "net/bridge/bridge-nf-call-iptables": "1",
}
# Set by kubelet, kube-proxy and the CNI plugins.
CHANGED_SETTINGS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
# Folders that programs make at places which can't be configured.
STRAY_FOLDERS = (
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/containers",
    "/run/containerd",
    "/var/run/netns",
)


@dataclass(frozen=True)
class Before:
    """State of the machine before the cluster."""

    settings: dict[str, str]
    chains: dict[str, list[str]]
    folders: list[str]
    root_is_shared: bool


def remember(path: Path) -> Before:
    """The state of the machine before the cluster: recorded by the first call, read from the file until `down`."""
    if not path.exists():
        before = Before(
            settings={name: _setting(name).read_text().strip() for name in _changed_settings()},
            chains={name: _our_chains(_saved_rules(name)) for name in FIREWALLS if succeeds([f"{name}-save"])},
            folders=[folder for folder in STRAY_FOLDERS if Path(folder).exists()],
            root_is_shared=_root_is_shared(),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_suffix(".tmp")  # `down` could not restore anything from half a file
        whole.write_text(json.dumps(asdict(before), indent=2))
        whole.replace(path)
    return Before(**json.loads(path.read_text()))


def prepare() -> None:
    """Set up forwarding, shared mounts, and the bridge with the host's address. Idempotent."""
    succeeds(["modprobe", "--all", "overlay", "br_netfilter"])  # fails where they are built in, which is no error
    for name, value in WANTED_SETTINGS.items():
        if not _setting(name).exists():
            raise ClusterError(f"the kernel has no setting {name}: load its module (modprobe br_netfilter)")
        _setting(name).write_text(value)
    if not _root_is_shared():
        run(["mount", "--make-rshared", "/"])
    if not _bridge_is_there():
        run(["ip", "link", "add", addresses.BRIDGE, "type", "bridge"])
    run(["ip", "address", "replace", f"{addresses.HOST}/{addresses.POD_NETWORK_PREFIX}", "dev", addresses.BRIDGE])
    run(["ip", "link", "set", addresses.BRIDGE, "up"])


def restore(before: Before) -> None:
    """Remove the bridge and the firewall chains, and restore the kernel settings."""
    if _bridge_is_there():
        run(["ip", "link", "delete", addresses.BRIDGE])
    for firewall, chains in before.chains.items():
        script = removal_script(_saved_rules(firewall), keep=chains)
        if script:
            run([f"{firewall}-restore", "--noflush"], stdin=script)
    for name, value in before.settings.items():
        if _setting(name).exists():
            _setting(name).write_text(value)
    if not before.root_is_shared:
        run(["mount", "--make-rprivate", "/"])


def removal_script(saved: str, keep: Collection[str]) -> str:
    """Input for iptables-restore that removes the chains of kube-proxy, kubelet and CNI and every jump to them.

    `saved`: what iptables-save prints. `keep`: chains that are somebody else's. Empty if there is nothing to remove.
    """
    lines: list[str] = []
    for table, rules in _tables(saved):
        chains = [name for name in _our_chains(rules) if name not in keep]
        if not chains:
            continue
        lines.append(f"*{table}")
        lines += [f"-D{rule[2:]}" for rule in rules.splitlines() if _is_jump_from_outside(rule, chains)]
        lines += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def _tables(saved: str) -> list[tuple[str, str]]:
    return re.findall(r"^\*(\w+)\n(.*?)^COMMIT$", saved, flags=re.MULTILINE | re.DOTALL)


def _our_chains(rules: str) -> list[str]:
    names = re.findall(r"^:(\S+)", rules, flags=re.MULTILINE)
    return [name for name in dict.fromkeys(names) if OUR_CHAINS.match(name)]


def _is_jump_from_outside(rule: str, chains: Collection[str]) -> bool:
    match = re.match(r"-A (\S+) .*-[jg] (\S+)", rule)
    return match is not None and match[1] not in chains and match[2] in chains


def _saved_rules(firewall: str) -> str:
    return run([f"{firewall}-save"])


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name


def _changed_settings() -> list[str]:
    return [name for name in (*WANTED_SETTINGS, *CHANGED_SETTINGS) if _setting(name).exists()]


def _bridge_is_there() -> bool:
    return succeeds(["ip", "link", "show", addresses.BRIDGE])


def _root_is_shared() -> bool:
    return run(["findmnt", "--noheadings", "--output", "PROPAGATION", "/"]).strip() == "shared"
