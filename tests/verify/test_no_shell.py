"""No program of ours starts a shell or runs text as code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("crds", "operator", "runtime", "devcluster", "examples", "tools")
    for path in (ROOT / folder).rglob("*.py")
)
SHELLS = frozenset(
    {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"}
    | {"eval", "exec", "compile", "pickle.load", "pickle.loads", "marshal.loads", "yaml.load", "yaml.unsafe_load"}
    | {"torch.load", "__import__"}
)
"""Calls that pass text to a shell, or run data as code."""
STARTERS = frozenset(
    {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")}
    | {"asyncio.create_subprocess_exec", "os.execv", "os.execve", "os.execvp", "os.posix_spawn"}
)
SHELL_PROGRAMS = frozenset({"sh", "bash", "/bin/sh", "/bin/bash", "zsh", "dash", "env"})


OPENERS = frozenset(
    {"aiohttp.ClientSession", "RESTClientObject", "urllib.request.urlopen", "urlopen", "http.client.HTTPConnection"}
    | {"socket.create_connection", "socket.socket", "asyncio.open_connection", "urllib3.PoolManager", "requests.get"}
)
"""Calls that open a connection, or create an object that does."""
TO_THE_API_SERVER, TO_THE_LEADER = {"connection.py", "kubernetes_client.py"}, {"app.py"}


def name_of(node: ast.expr) -> str:
    """The dotted name of a call's function; empty if it has none."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(source: str) -> Iterator[str]:
    """Unsafe calls of a file, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = name_of(node.func)
        if called in SHELLS and not _is_safe_load(node, called):
            yield f"line {node.lineno}: {called}"
        if any(word.arg == "shell" and not _is_false(word.value) for word in node.keywords):
            yield f"line {node.lineno}: {called}(shell=...)"
        if called in STARTERS and node.args:
            yield from (f"line {node.lineno}: {called} of {wrong}" for wrong in _no_list(node.args[0]))


def _is_safe_load(node: ast.Call, called: str) -> bool:
    """torch.load(weights_only=True) runs no code."""
    flags = {word.arg: word.value for word in node.keywords}
    only = flags.get("weights_only")
    return called == "torch.load" and isinstance(only, ast.Constant) and only.value is True


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _no_list(argument: ast.expr) -> Iterator[str]:
    """Why the first argument of a call that starts a process is no list of arguments, by its syntax."""
    if isinstance(argument, ast.JoinedStr | ast.BinOp) and not _adds_lists(argument):
        yield "text put together"
    if isinstance(argument, ast.Constant):
        yield "a single string"
    first = argument.elts[0] if isinstance(argument, ast.List) and argument.elts else None
    if isinstance(first, ast.Constant) and first.value in SHELL_PROGRAMS:
        yield f"the shell {first.value}"


def _adds_lists(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _adds_lists(node.left) or _adds_lists(node.right)
    return isinstance(node, ast.List)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_passes_text_to_a_shell_or_runs_data_as_code(path: Path) -> None:
    assert list(offences(path.read_text(encoding="utf-8"))) == []


def test_the_operator_opens_connections_in_three_places_only() -> None:
    """To the API server and to the leader. The operator never requests an endpoint or URI of a user."""
    operator = ROOT / "operator" / "tunesmith_operator"
    opening = {
        str(path.relative_to(operator))
        for path in operator.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and name_of(node.func) in OPENERS
    }
    assert opening == TO_THE_API_SERVER | TO_THE_LEADER


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.system(x)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=flag)",
        "subprocess.run(f'tar {name}')",
        "subprocess.Popen('tar ' + name)",
        "subprocess.run(['bash', '-c', text])",
        "asyncio.create_subprocess_shell(text)",
        "eval(text)",
        "pickle.loads(data)",
        "yaml.load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_the_check_detects_unsafe_calls(source: str) -> None:
    assert list(offences(source))


@pytest.mark.parametrize(
    "source",
    ["subprocess.run(['tar', name])", "subprocess.run(['a'] + more, shell=False)", "torch.load(p, weights_only=True)"],
)
def test_lists_of_arguments_are_fine(source: str) -> None:
    assert not list(offences(source))
