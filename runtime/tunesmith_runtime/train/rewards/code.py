"""Reward by the user's code, which runs in a separate container (rewardcode/) and answers at a Unix socket.

The answers are not trusted: their size, their form and each number are checked.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith_api.base import parse_duration
from tunesmith_api.failures import FailureClass
from tunesmith_api.rewards import Reward, RewardCode, RewardType
from tunesmith_api.run import REWARD_SOCKET
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.reward_code import FINGERPRINT, source_of
from tunesmith_runtime.rewardcode.protocol import GRACE_SECONDS, MOST_BYTES, encode
from tunesmith_runtime.train.rewards.base import Completion, Rate, Scorer

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup

SOCKET = REWARD_SOCKET
START_SECONDS = 60.0
"""Time that the container may take to listen."""
CORRECT = "correct the code in the ConfigMap, and create the job again"
HINTS: Mapping[str, str] = {
    "load": CORRECT,
    "exception": CORRECT,
    "value": "let reward return a list with a finite number for each completion",
    "memory": "raise code.memory in spec.rewards, or let the code take less",
    "timeout": "raise code.timeout in spec.rewards, or let the code take less time",
    "ended": "read the log of the container reward-code; a process that is killed has most often taken too much memory: raise "
    "code.memory in spec.rewards",
    "changed": "create the job again, which is a run of its own with the other code",
}
"""Kind of failure -> what to do."""


class CodeClient:
    """Asks the user's code for rewards."""

    def __init__(self, name: str, code: RewardCode, digest: str | None, callers: int = 1) -> None:
        """`name`: name of the reward. `digest`: sha256 of the code, as the identity of the run has it. `callers`:
        processes of the pod."""
        self._where = f"rewards[].code of {name} ({source_of(code)}"
        self._digest = digest
        self._seconds = callers * (parse_duration(code.timeout) + GRACE_SECONDS) + START_SECONDS

    def rate(self, completions: Sequence[Completion]) -> list[float]:
        """Return the reward of each completion. Raises RunFailure (RewardCodeFailed)."""
        answer = self._parse(self._ask(encode(request_of(completions))))
        if self._digest and answer.get("sha256") not in (None, self._digest):
            raise self._failed("changed", "is another code than the run began with")
        problem = answer.get("error")
        if isinstance(problem, dict):
            kind = str(problem.get("kind"))
            raise self._failed(kind, str(problem.get("message"))[:1000], problem.get("line"))
        rewards = answer.get("rewards")
        if not isinstance(rewards, list):
            raise self._failed("value", "the answer has no rewards")
        return self._checked(rewards, len(completions), answer.get("line"))

    def _checked(self, rewards: list[Any], wanted: int, line: object) -> list[float]:
        if len(rewards) != wanted:
            raise self._failed("value", f"returns {len(rewards)} rewards for {wanted} completions", line)
        for at, reward in enumerate(rewards):
            if isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward):
                raise self._failed(
                    "value", f"returns {str(reward)[:80]} for completion {at}, which is no finite number", line
                )
        return [float(reward) for reward in rewards]

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._failed("value", f"the answer is no object: {line[:80]!r}")
        return answer

    def _ask(self, request: bytes) -> bytes:
        """Send a request and return the line of its answer."""
        with self._connection() as connection:
            try:
                connection.settimeout(self._seconds)
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                with connection.makefile("rb") as file:
                    line = file.readline(MOST_BYTES + 1)
            except TimeoutError as error:
                raise self._failed("timeout", f"no answer within {self._seconds:.0f} s") from error
            except OSError as error:
                raise self._failed("ended", f"the connection has ended: {error}") from error
        if not line.endswith(b"\n"):
            raise self._failed("ended", "the container has ended, or its answer is too long")
        return line

    def _connection(self) -> socket.socket:
        """Connect to the container, which may still be starting."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(SOCKET)
            except OSError as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise self._failed("ended", f"nothing listens at {SOCKET}: {error}") from error
                time.sleep(0.2)
            else:
                return connection

    def _failed(self, kind: str, problem: str, line: object = None) -> RunFailure:
        at = f", line {line})" if isinstance(line, int) else ")"
        return RunFailure(FailureClass.REWARD_CODE_FAILED, f"{self._where}{at}: {problem}", HINTS.get(kind, CORRECT))


def request_of(completions: Sequence[Completion]) -> dict[str, Any]:
    """Return the arguments of the function reward: prompts as in the rows, completions as text, and columns by name."""
    names = sorted({name for each in completions for name in each.columns})
    return {
        "prompts": [each.prompt.prompt for each in completions],
        "completions": [each.text for each in completions],
        "columns": {name: [each.columns.get(name) for each in completions] for name in names},
    }


def open_code(reward: Reward, setup: Setup) -> Rate:
    """Return the client of the container that runs the code."""
    assert reward.code is not None, "a rule of Reward"
    digest = setup.work.fetched().fingerprints.get(FINGERPRINT)
    return CodeClient(reward.name, reward.code, digest, setup.job.resources.processes).rate


CODE = Scorer(RewardType.CODE, open_code)
