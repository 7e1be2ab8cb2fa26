"""The code of `rewards[].code`: its text, which identifies the run. It is parsed here, and runs in a container of its own."""

from __future__ import annotations

import ast
from hashlib import sha256
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_api.rewards import RewardCode
from tunesmith_api.run import RunSpec
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.rewardcode.protocol import FUNCTION

FINGERPRINT = "rewardCode"


def code_fingerprint(spec: RunSpec) -> dict[str, str]:
    """Return the fingerprint of the code of a reward: another text in the ConfigMap makes another run.

    Raises RunFailure (BadSpec) for code that is not Python, or has no function `reward`.
    """
    if spec.reward_code_file is None:
        return {}
    content = Path(spec.reward_code_file).read_bytes()
    _check(spec, content)
    return {FINGERPRINT: sha256(content).hexdigest()}


def source_of(code: RewardCode | None) -> str:
    """Return where the code is, for messages."""
    return f"key {code.config_map.key} of ConfigMap {code.config_map.name}" if code else "the code"


def _check(spec: RunSpec, content: bytes) -> None:
    where = source_of(spec.fine_tune_job().reward_code)
    hint = f"correct {where}, and apply the job again"
    try:
        parsed = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        raise RunFailure(FailureClass.BAD_SPEC, f"rewards[].code: {where} is not Python: {line}{text}", hint) from error
    if FUNCTION not in {name for statement in parsed.body for name in _bound(statement)}:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"rewards[].code: {where} has no function {FUNCTION}",
            f"define {FUNCTION}(prompts, completions, columns) there, which returns a number for each completion",
        )


def _bound(statement: ast.stmt) -> list[str]:
    """Return the names that a statement of a module binds, as far as the source shows."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return [name for part in ast.walk(statement) for name in ([part.name] if isinstance(part, ast.FunctionDef) else [])]
