"""The user's code of a reward: run by the real server in a process of its own, asked by the real client."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_api.rewards import RewardCode
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rewards import Completion
from tunesmith_runtime.train.rewards import code as module

COMPLETIONS = [
    Completion(text, 1, 8, Prompt([{"role": "user", "content": "A metal?"}], columns={"answer": text[:1]}))
    for text in ("iron", "tin")
]
Ask = Callable[..., list[float]]
ENVIRONMENT = {**os.environ, "AWS_SECRET_ACCESS_KEY": "a-key-that-is-not-passed-on"}


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Return the rewards of COMPLETIONS by a code, of which each call starts a server."""
    servers: list[subprocess.Popen[bytes]] = []

    def rewards(
        text: str, seconds: float = 20, memory: int = 0, calls: int = 1, digest: str | None = None
    ) -> list[float]:
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        file, socket = folder / "reward.py", folder / "socket"
        file.write_text(textwrap.dedent(text))
        arguments = ["--code", str(file), "--socket", str(socket), "--seconds", str(seconds), "--memory", str(memory)]
        servers.append(
            subprocess.Popen([sys.executable, "-m", "tunesmith_runtime.rewardcode", *arguments], env=ENVIRONMENT)
        )
        monkeypatch.setattr(module, "SOCKET", str(socket))
        code = RewardCode.model_validate(
            {"configMap": {"name": "tunesmith-rewards", "key": "r.py"}, "timeout": f"{seconds}s"}
        )
        client = module.CodeClient("tests", code, digest or sha256(file.read_bytes()).hexdigest())
        return [client.rate(COMPLETIONS) for _ in range(calls)][-1]

    yield rewards
    for server in servers:
        server.terminate()
        server.wait(10)


def test_code_gets_prompts_completions_and_columns_and_keeps_its_state(ask: Ask) -> None:
    code = """
    calls = []

    def reward(prompts, completions, columns):
        calls.append(1)
        print("a line of the log")
        assert prompts[0] == [{"role": "user", "content": "A metal?"}]
        return [len(calls) + len(text) + (first == text[0]) for text, first in zip(completions, columns["answer"])]
    """
    assert ask(code, calls=2) == [2 + 4 + 1, 2 + 3 + 1]


def test_what_code_prints_is_in_the_log_when_its_rewards_are_known(ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    code = """
    def reward(prompts, completions, columns):
        print("a line of the log")
        return [0.0] * len(completions)
    """
    ask(code)
    assert "a line of the log" in capfd.readouterr().err


ATTEMPTS = {
    "IPv4": "socket.socket(socket.AF_INET)",
    "IPv6": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "a Unix socket": "socket.socket(socket.AF_UNIX)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "a URL": "urllib.request.urlopen('http://127.0.0.1:1')",
    "a plain system call": "call(ctypes.CDLL(None, use_errno=True).socket(2, 1, 0))",
    "io_uring": "call(ctypes.CDLL(None, use_errno=True).syscall(425, 8, ctypes.create_string_buffer(128)))",
    "a child": "subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'], check=True)",
    "a thread": "concurrent.futures.ThreadPoolExecutor(1).submit(socket.socket).result()",
}


def test_code_opens_no_socket_by_any_way(ask: Ask) -> None:
    """Each attempt fails with EACCES; a server that lacked its filter would open most of them."""
    attempts = "".join(f"    lambda: {attempt},\n" for attempt in ATTEMPTS.values())
    code = f"""
import concurrent.futures, ctypes, errno, os, socket, subprocess, sys, urllib.request

def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")

ATTEMPTS = [
{attempts}]

def is_refused(attempt):
    try:
        attempt()
    except PermissionError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, PermissionError)
    except subprocess.CalledProcessError:
        return True
    return False

def reward(prompts, completions, columns):
    refused = [is_refused(attempt) for attempt in ATTEMPTS]
    pair = socket.socketpair()
    assert all(refused), refused
    return [len(refused)] * len(completions)
"""
    assert ask(code) == [len(ATTEMPTS)] * 2


def test_code_sees_no_variable_of_the_pod(ask: Ask) -> None:
    code = """
    import os

    def reward(prompts, completions, columns):
        assert not [name for name in os.environ if name.startswith(("AWS", "TUNESMITH", "HF"))], os.environ
        return [0.0, 1.0]
    """
    assert ask(code) == [0.0, 1.0]


FAILURES: dict[str, tuple[str, str, str]] = {
    "an exception": (
        "def reward(prompts, completions, columns):\n    return [1 / 0]\n",
        "line 2): ZeroDivisionError: division by zero",
        "correct the code in the ConfigMap",
    ),
    "an exception in a library": (
        "import json\n\ndef reward(*_):\n    return json.loads('x')\n",
        "line 4): JSONDecodeError",
        "correct the code in the ConfigMap",
    ),
    "no Python": ("def reward(:\n", "line 1): SyntaxError", "correct the code in the ConfigMap"),
    "no module": ("import absent\n", "line 1): ModuleNotFoundError", "correct the code in the ConfigMap"),
    "no function": ("x = 1\n", "there is no function reward", "correct the code in the ConfigMap"),
    "an exit": ("def reward(*_):\n    raise SystemExit(3)\n", "line 2): SystemExit: 3", "correct the code"),
    "a wrong length": (
        "\ndef reward(*_):\n    return [1, 2, 3]\n",
        "line 2): returns 3 rewards for 2 completions",
        "let reward return a list with a finite number for each completion",
    ),
    "NaN": (
        "def reward(*_):\n    return [1, float('nan')]\n",
        "line 1): returns nan for completion 1",
        "let reward return",
    ),
    "None": ("def reward(*_):\n    return None\n", "it returns NoneType", "let reward return a list"),
    "a dead process": ("import os\ndef reward(*_):\n    os._exit(7)\n", "exit code 7", "read the log of the container"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_names_the_line_and_what_to_do(ask: Ask, failure: str) -> None:
    code, message, hint = FAILURES[failure]
    with pytest.raises(RunFailure) as raised:
        ask(code)
    assert raised.value.failure is FailureClass.REWARD_CODE_FAILED
    assert raised.value.message.startswith("rewards[].code of tests (key r.py of ConfigMap tunesmith-rewards")
    assert message in raised.value.message
    assert (raised.value.hint or "").startswith(hint)


@pytest.mark.parametrize("caught", [True, False])
def test_code_that_takes_too_long_is_stopped(ask: Ask, caught: bool) -> None:
    """At the line where it is; code that goes on all the same is ended."""
    handler = (
        "    except BaseException:\n        time.sleep(60)\n" if caught else "    except Exception:\n        pass\n"
    )
    code = f"import time\n\ndef reward(*_):\n    try:\n        time.sleep(60)\n{handler}"
    began = time.monotonic()
    with pytest.raises(RunFailure, match=r"no answer within 0\.5 s") as failure:
        ask(code, seconds=0.5)
    assert ("line 5)" in failure.value.message) is not caught
    assert failure.value.hint == "raise code.timeout in spec.rewards, or let the code take less time"
    assert time.monotonic() - began < 20


def test_code_that_takes_too_much_memory_is_named(ask: Ask) -> None:
    with pytest.raises(RunFailure, match=r"line 2\): MemoryError") as failure:
        ask("def reward(*_):\n    return [len(bytearray(1 << 30))]\n", memory=256 << 20)
    assert failure.value.hint == "raise code.memory in spec.rewards, or let the code take less"


def test_other_code_than_that_of_the_run_is_refused(ask: Ask) -> None:
    with pytest.raises(RunFailure, match="is another code than the run began with"):
        ask("def reward(*_):\n    return [1, 2]\n", digest="0" * 64)


def test_a_container_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "SOCKET", str(tmp_path / "socket"))
    monkeypatch.setattr(module, "START_SECONDS", 0.2)
    code: Any = RewardCode.model_validate({"configMap": {"name": "tunesmith-rewards", "key": "r.py"}})
    with pytest.raises(RunFailure, match="nothing listens at"):
        module.CodeClient("tests", code, None).rate(COMPLETIONS)
