"""The contestants, and the environment of each: packages of its own below the cache folder, with the torch of our lock."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("TUNESMITH_CACHE") or Path.home() / ".cache" / "tunesmith")
UV = CACHE / "tools" / "bin" / "uv"
OURS = re.compile(r"^(?:torch|triton|nvidia-(?!ml-py)[\w-]+|cuda-\w+)==\S+", re.MULTILINE)
"""Packages that all contestants share with our lock."""


@dataclass(frozen=True)
class Contestant:
    """A trainer."""

    name: str
    """Its function in contestant.py."""
    title: str
    requirements: tuple[str, ...] = ()
    """Empty: this environment."""
    python: str = "3.11"


def locked(*names: str) -> tuple[str, ...]:
    """Return requirements at the versions of our lock."""
    text = (ROOT / "locks" / "dev.txt").read_text()
    return tuple(re.search(rf"^{name}==\S+", text, re.MULTILINE).group() for name in names)  # type: ignore[union-attr]


AXOLOTL = (
    ("axolotl 0.21.0", ("axolotl==0.21.0",), "3.12")
    if shutil.which("python3.12")
    and not subprocess.run(["python3.12", "--version"], check=False, capture_output=True).returncode
    else ("axolotl 0.19.0, as later ones need Python 3.12", ("axolotl==0.19.0",), "3.11")
)
CONTESTANTS: tuple[Contestant, ...] = (
    Contestant("tunesmith", "Tunesmith"),
    Contestant("bare", "bare PyTorch loop, peft", locked("torch", "transformers", "peft", "accelerate")),
    Contestant("trl", "TRL", locked("trl", "transformers", "peft", "accelerate", "datasets")),
    Contestant("swift", "ms-swift 4.6.0", ("ms-swift==4.6.0",)),
    Contestant("llamafactory", "LLaMA-Factory 0.9.5", ("llamafactory==0.9.5", "peft==0.18.1")),
    Contestant("axolotl", *AXOLOTL),
)


def interpreter(contestant: Contestant) -> Path:
    """Return the Python of a contestant, in an environment that is made where it is missing. Raises CannotInstall."""
    if not contestant.requirements:
        return Path(sys.executable)
    folder = CACHE / "bench" / contestant.name
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.is_file() and ready.read_text() == " ".join(contestant.requirements):
        return python
    folder.mkdir(parents=True, exist_ok=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(OURS.findall((ROOT / "locks" / "dev.txt").read_text())) + "\n")
    _run(UV, "--no-config", "venv", "--quiet", "--allow-existing", "--python", contestant.python, folder)
    _run(
        UV, "--no-config", "pip", "install", "--quiet", "--python", python, "-c", constraints, *contestant.requirements
    )
    ready.write_text(" ".join(contestant.requirements))
    return python


class CannotInstall(Exception):
    """Why a contestant is not there."""


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        cause = next((line for line in done.stderr.splitlines() if "Because" in line), done.stderr[-300:])
        raise CannotInstall(cause.strip())
