"""A missing precondition is a message with the fix, before anything starts."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from devcluster import preflight
from devcluster.components import addresses
from devcluster.preflight import Listener
from devcluster.processes import Component

ETCD = Component(name="etcd", argv=("etcd",), ready=lambda: "", ports=(("127.0.0.1", 2379),))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (lambda: preflight.check_machine("Linux", "x86_64", 1000), "sudo"),
        (lambda: preflight.check_machine("Darwin", "arm64", 0), "virtual machine"),
        (lambda: preflight.check_tools(None, ["runc"]), "use Debian"),
        (lambda: preflight.check_kernel("nodev\tproc\n\text4\n", ("cpu", "memory", "pids")), "modprobe overlay"),
        (lambda: preflight.check_kernel("nodev\toverlay\n", ("cpu", "pids")), "controllers memory"),
        (lambda: preflight.check_disk(Path("/x"), 1 << 30, 12 << 30), "12 GB are needed"),
        (lambda: preflight.check_ports([ETCD], [Listener("127.0.0.1", 2379, 77, "etcd")], set()), "process 77"),
        (lambda: preflight.check_routes([("10.188.4.0/24", "docker0")]), "take docker0 away"),
    ],
)
def test_a_missing_precondition_is_a_message_with_the_fix(found: Callable[[], list[str]], wanted: str) -> None:
    sentences = found()
    assert len(sentences) == 1
    assert wanted in sentences[0]
    assert ": " in sentences[0]
    assert "\n" not in sentences[0]


@pytest.mark.parametrize(
    "found",
    [
        lambda: preflight.check_machine("Linux", "aarch64", 0),
        lambda: preflight.check_tools(None, []),
        lambda: preflight.check_tools("/usr/bin/apt-get", ["runc"]),
        lambda: preflight.check_kernel("nodev\toverlay\n", ("cpu", "memory", "pids", "cpuset")),
        lambda: preflight.check_disk(Path("/x"), 12 << 30, 12 << 30),
        lambda: preflight.check_routes([("10.188.0.0/16", addresses.BRIDGE), ("192.0.2.0/24", "eth0")]),
    ],
)
def test_a_machine_that_meets_the_preconditions_gets_no_message(found: Callable[[], list[str]]) -> None:
    assert found() == []


@pytest.mark.parametrize(("address", "conflicts"), [("127.0.0.1", 1), ("0.0.0.0", 1), ("::", 1), ("192.0.2.2", 0)])
def test_a_port_is_taken_by_a_listener_on_its_address_or_on_all(address: str, conflicts: int) -> None:
    listeners = [Listener(address, 2379, 77, "etcd")]
    assert len(preflight.check_ports([ETCD], listeners, own=set())) == conflicts


def test_our_own_process_may_hold_its_port() -> None:
    assert preflight.check_ports([ETCD], [Listener("127.0.0.1", 2379, 77, "etcd")], own={77}) == []


def test_a_real_listener_is_seen_with_the_process_that_holds_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        seen = [listener for listener in preflight.tcp_listeners() if listener.port == port]
    assert [(listener.address, listener.command.startswith("py")) for listener in seen] == [("127.0.0.1", True)]


def test_the_kernel_table_of_sockets_is_read() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1\n"
        "   1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4243 1\n"
    )
    assert preflight.parse_listeners(table) == [("127.0.0.1", 2379, "4242")]


def test_the_kernel_table_of_sockets_is_read_for_the_next_protocol_too() -> None:
    table = "header\n 0: 00000000000000000000000000000000:1389 0:0 0A 0 0 0 0 0 77 1\n"
    assert preflight.parse_listeners(table) == [("::", 5001, "77")]


def test_the_routing_table_is_read_without_the_default_route() -> None:
    table = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "podman0\t0000BC0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    assert preflight.routes(table) == [("10.188.0.0/16", "podman0")]
