"""Loads the user's code and calls its function `reward`; started by __main__.py, without network, with bounds of time and memory."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from tunesmith_runtime.rewardcode.protocol import FUNCTION, encode, error

SHOWN = 500
"""Characters of the message of an exception."""


class OutOfTime(BaseException):
    """A call takes longer than it may. No `except Exception` of the code catches it."""


class Code:
    """The user's code."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._text = path.read_bytes()
        self._function: Callable[..., Any] | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the rewards of a request, or why there are none."""
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            answer = self._rewards(request)
        except OutOfTime as problem:
            answer = error("timeout", f"no answer within {self._seconds:g} s", self._line(problem))
        except MemoryError as problem:
            answer = error("memory", "MemoryError", self._line(problem))
        except BaseException as problem:  # noqa: BLE001  # SystemExit too: the training receives every error
            kind = "exception" if self._function else "load"
            answer = error(kind, f"{type(problem).__name__}: {problem}"[:SHOWN], self._line(problem))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return {**answer, "sha256": sha256(self._text).hexdigest()}

    def _rewards(self, request: Mapping[str, Any]) -> dict[str, Any]:
        function = self._function or self._load()
        self._function = function
        found = function(request["prompts"], request["completions"], request["columns"])
        line = getattr(getattr(function, "__code__", None), "co_firstlineno", None)
        try:
            return {"rewards": [float(each) for each in found], "line": line}
        except (TypeError, ValueError) as problem:
            return error("value", f"it returns {type(found).__name__}: {problem}"[:SHOWN], line)

    def _load(self) -> Callable[..., Any]:
        loader = SourceFileLoader("reward_code", str(self._path))
        module = ModuleType(loader.name)
        module.__file__ = str(self._path)
        sys.modules[loader.name] = module
        loader.exec_module(module)
        function = getattr(module, FUNCTION, None)
        if not callable(function):
            raise NameError(f"there is no function {FUNCTION}(prompts, completions, columns)")  # noqa: TRY004  # nothing has a wrong type
        return function

    def _line(self, problem: BaseException) -> int | None:
        """Return the line of the code at which an exception was raised: the last one in its file."""
        if isinstance(problem, SyntaxError) and problem.filename == str(self._path):
            return problem.lineno
        frames = traceback.extract_tb(problem.__traceback__)
        return next((frame.lineno for frame in reversed(frames) if frame.filename == str(self._path)), None)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise OutOfTime


def main(path: str, seconds: str, memory: str) -> None:
    """Answer the requests at stdin. What the code prints is the log of the container."""
    answers = os.dup(1)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if int(memory):
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    signal.signal(signal.SIGALRM, _stop)
    sys.dont_write_bytecode = True
    code = Code(Path(path), float(seconds))
    for line in sys.stdin.buffer:
        answer = encode(code.answer(json.loads(line)))
        sys.stdout.flush()  # a pod that ends would take with it what the code has printed
        while answer:
            answer = answer[os.write(answers, answer) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
