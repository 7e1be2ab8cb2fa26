"""Takes the network from a process and from all that it starts, by a seccomp filter, which needs no privilege and cannot be undone.

With it, socket(2) fails with EACCES for every family, and so does what would get around the filter: io_uring, whose requests are not
filtered, and the file descriptors and memory of other processes. socketpair(2), which connects to nothing else, is left. System calls
of another architecture end the process. Linux: Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from dataclasses import dataclass

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
"""Instructions of BPF: load a word of the call, compare it, return."""
NUMBER, ARCHITECTURE = 0, 4
"""Offsets in struct seccomp_data."""
KILL, REFUSE, ALLOW = 0x80000000, 0x00050000 | errno.EACCES, 0x7FFF0000
X32 = 0x40000000
"""First number of the calls of the x32 ABI."""


@dataclass(frozen=True)
class Machine:
    """The calls of an architecture."""

    audit: int
    """Its number in linux/audit.h."""
    refused: tuple[int, ...]
    """socket, io_uring_setup, io_uring_enter, io_uring_register, pidfd_getfd, ptrace, process_vm_readv, process_vm_writev."""


MACHINES = {
    "x86_64": Machine(0xC000003E, (41, 425, 426, 427, 438, 101, 310, 311)),
    "aarch64": Machine(0xC00000B7, (198, 425, 426, 427, 438, 117, 270, 271)),
}


class NotIsolated(Exception):
    """The network cannot be taken from this process."""


def refuse_sockets() -> None:
    """Refuse sockets to this process, its threads to come and its children. Raises NotIsolated where the kernel does not."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise NotIsolated(f"the calls of a {platform.machine()} are not known")
    code = program(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    zero, one, mode = (ctypes.c_ulong(each) for each in (0, 1, SECCOMP_MODE_FILTER))
    for call in ((PR_SET_NO_NEW_PRIVS, one, zero, zero, zero), (PR_SET_SECCOMP, mode, filter_, zero, zero)):
        if libc.prctl(*call) != 0:
            raise NotIsolated(f"the kernel refuses a seccomp filter: {os.strerror(ctypes.get_errno())}")
    check_refused()


def program(machine: Machine) -> bytes:
    """Return the filter: instructions of struct sock_filter."""
    refused = machine.refused
    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, len(refused) + 1, 0, X32),
        *((EQUAL, len(refused) - at, 0, number) for at, number in enumerate(refused)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def check_refused() -> None:
    """Raise NotIsolated if this process can open a socket."""
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        try:
            socket.socket(family).close()
        except PermissionError:
            continue
        except OSError:  # a family that this machine does not have
            continue
        raise NotIsolated(f"a socket of family {family.name} can be opened in spite of the filter")
