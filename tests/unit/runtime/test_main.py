"""The command line: report and exit code of a verb for each outcome."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.servers import run_spec
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.run import RunReport
from tunesmith_runtime.__main__ import main

VERB = """
import os, signal, sys, time
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome, RunReport, Verb
from tunesmith_runtime.errors import RunFailure

def run(spec, work, progress):
    {body}
    return RunReport(verb=Verb.EXPORT, outcome=Outcome.SUCCEEDED)
"""


def job(**spec: Any) -> dict[str, Any]:
    return run_spec("FineTuneJob", "demo", {"datasets": [{"uri": "s3://data/train.jsonl"}], **spec})


def start(tmp_path: Path, body: str, spec: dict[str, Any] | None = None) -> tuple[subprocess.Popen[str], Path]:
    """Start a process in which the verb export runs `body`."""
    (tmp_path / "run.json").write_text(json.dumps(spec or job()))
    (tmp_path / "verb.py").write_text(VERB.format(body=body))
    code = "import sys, importlib; sys.modules['tunesmith_runtime.export'] = importlib.import_module('verb'); import runpy; runpy.run_module('tunesmith_runtime', run_name='__main__', alter_sys=True)"
    message = tmp_path / "termination-log"
    environment = {**os.environ, "TUNESMITH_TERMINATION_LOG": str(message)}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *(entry for entry in sys.path if entry)])
    command = [
        sys.executable,
        "-c",
        code,
        "export",
        "--spec",
        str(tmp_path / "run.json"),
        "--work",
        str(tmp_path / "work"),
    ]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ), message


def finish(process: subprocess.Popen[str], message: Path) -> tuple[int, RunReport, str]:
    output, _ = process.communicate(timeout=120)
    return process.returncode, RunReport.model_validate_json(message.read_bytes()), output


def test_a_verb_that_succeeds_exits_with_zero(tmp_path: Path) -> None:
    code, report, output = finish(*start(tmp_path, "pass"))
    assert (code, report.outcome, report.failure) == (0, "Succeeded", None)
    assert json.loads(output.splitlines()[-1]) == report.to_dict()


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        (
            {"tuner": "qlora", "qlora": {"quantization": "hqq"}},
            "qlora.quantization hqq: not available in this version",
            "use nf4 or int8",
        ),
        ({"export": {"quantize": {"method": "awq"}}}, "export.quantize: not available", "remove the block"),
        (
            {"parallelism": {"tensorParallel": 2, "nodes": 2}, "tuner": "dora"},
            "parallelism.tensorParallel > 1 with tuner ",
            "use tuner lora or full, or remove",
        ),
    ],
    ids=["method", "block", "combination"],
)
def test_a_local_run_is_refused_as_the_operator_refuses_it(
    tmp_path: Path, spec: dict[str, Any], message: str, hint: str
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(job(**spec)))
    report_file = tmp_path / "termination-log"
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith_runtime", "train", "--spec", tmp_path / "run.json", "--work", tmp_path],
        env={**os.environ, "TUNESMITH_TERMINATION_LOG": str(report_file)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    failure = RunReport.model_validate_json(report_file.read_bytes()).failure
    assert done.returncode == FAILURES[FailureClass.BAD_SPEC].exit_code
    assert failure is not None
    assert failure.class_ is FailureClass.BAD_SPEC
    assert failure.message.startswith(f"{tmp_path / 'run.json'}: {message}")
    assert str(failure.hint).startswith(hint)


def test_a_known_failure_exits_with_its_code(tmp_path: Path) -> None:
    code, report, _ = finish(
        *start(tmp_path, "raise RunFailure(FailureClass.BAD_ROW, 'train.jsonl line 17', 'mend it')")
    )
    assert code == 65
    assert report.failure is not None
    assert (report.failure.class_, report.failure.message, report.failure.hint) == (
        "BadRow",
        "train.jsonl line 17",
        "mend it",
    )


def test_an_unknown_error_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    code, report, output = finish(*start(tmp_path, "raise ZeroDivisionError('surprise')"))
    assert code == 1
    assert report.failure is not None
    assert (report.failure.class_, report.failure.message) == ("ProcessError", "ZeroDivisionError: surprise")
    assert "Traceback" in output
    assert "verb.py" in str(report.failure.log_tail)


def test_credentials_are_trimmed_for_the_verb_and_redacted_in_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-token-of-a-hub\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", " a/secret+key ")
    lines = [
        "token, secret = os.environ['HF_TOKEN'], os.environ['AWS_SECRET_ACCESS_KEY']",
        "import logging, threading, urllib.parse",
        "logging.getLogger('tunesmith_runtime').info('%d %d', len(token), len(secret))",
        "thread = threading.Thread(target=int, args=[secret])",
        "thread.start()",
        "thread.join()",
        "raise RuntimeError(f'sent Bearer {token} for {urllib.parse.quote(secret, safe=str())}, Signature=0123abcd')",
    ]
    process, message = start(tmp_path, "\n    ".join(lines))
    output, errors = process.communicate(timeout=120)
    everything = message.read_text() + output + errors
    assert "16 12" in everything
    assert "RuntimeError: sent Bearer *** for ***, Signature=***" in everything
    assert "invalid literal for int" in everything
    assert not any(secret in everything for secret in ("a-token-of-a-hub", "a/secret+key", "a%2Fsecret", "0123abcd"))


@pytest.mark.parametrize(
    ("error", "failure", "code"),
    [
        ("OSError(28, 'No space left on device', '/work/run/x')", "DiskFull", 73),
        ("type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory')", "DeviceOutOfMemory", 71),
        ("MemoryError()", "OOMKilled", 137),
        ("RuntimeError('NPU out of memory. Tried to allocate 2.00 GiB')", "DeviceOutOfMemory", 71),
        ("RuntimeError('NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled system error')", "CollectiveFailed", 86),
        ("RuntimeError('CUDA error: uncorrectable ECC error encountered')", "DeviceFailed", 87),
        (
            "RuntimeError('unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)')",
            "SharedMemoryFull",
            88,
        ),
    ],
)
def test_an_error_that_every_library_raises_gets_its_class(tmp_path: Path, error: str, failure: str, code: int) -> None:
    found, report, _ = finish(*start(tmp_path, f"raise {error}"))
    assert report.failure is not None
    assert (report.failure.class_, found) == (failure, code)


def test_a_full_disk_has_its_own_class(tmp_path: Path) -> None:
    """The error is the kernel's."""
    code, report, _ = finish(*start(tmp_path, "open('/dev/full', 'wb', buffering=0).write(b'x')"))
    assert report.failure is not None
    assert (report.failure.class_, code) == ("DiskFull", 73)


@pytest.mark.parametrize(
    ("cause", "class_", "code"),
    [
        ("RuntimeError('CUDA out of memory. Tried to allocate 1 GiB')", "DeviceOutOfMemory", 71),
        ("OSError(28, 'No space left on device')", "DiskFull", 73),
        ("ValueError('a row of the data says: No space left on device')", "BadSpec", 64),
        ("RunFailure(FailureClass.STORAGE_403, 'denied')", "BadSpec", 64),
    ],
)
def test_a_failure_takes_the_class_of_its_known_cause(tmp_path: Path, cause: str, class_: str, code: int) -> None:
    body = f"raise RunFailure(FailureClass.BAD_SPEC, 'adapter fr does not go on this model') from {cause}"
    found, report, _ = finish(*start(tmp_path, body))
    assert report.failure is not None
    assert (report.failure.class_, found) == (class_, code)
    assert "adapter fr does not go on this model" in report.failure.message


def test_an_engine_failure_takes_the_class_of_a_known_error_in_its_log(tmp_path: Path) -> None:
    """The cause is far above the end of the log, as in engines whose other processes log at shutdown."""
    body = """import logging
    log = logging.getLogger("tunesmith_runtime.serve.engines.process")
    log.info("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 is full")
    for number in range(100):
        log.info("worker %d is shut down %s", number, "." * 80)
    raise RunFailure(FailureClass.ENGINE_FAILED, "the engine ended with exit code 1")"""
    code, report, _ = finish(*start(tmp_path, body))
    assert report.failure is not None
    assert (report.failure.class_, code) == ("DeviceOutOfMemory", 71)
    assert "the engine ended with exit code 1: " in report.failure.message
    assert "Tried to allocate 1.50 GiB" in report.failure.message


def test_sigterm_is_reported_as_preempted(tmp_path: Path) -> None:
    """Also if a library catches every Exception and continues."""
    body = f"""open({str(tmp_path / "started")!r}, 'w').close()
    while True:
        try:
            time.sleep(100)
        except Exception:
            pass"""
    process, message = start(tmp_path, body)
    deadline = time.monotonic() + 100
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    code, report, _ = finish(process, message)
    assert (code, report.outcome) == (75, "Preempted")


def run_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> tuple[int, RunReport]:
    monkeypatch.setenv("TUNESMITH_TERMINATION_LOG", str(tmp_path / "log"))
    (tmp_path / "run.json").write_text(content)
    before = signal.getsignal(signal.SIGTERM)
    try:
        code = main(["fetch", "--spec", str(tmp_path / "run.json"), "--work", str(tmp_path / "work")])
    finally:
        signal.signal(signal.SIGTERM, before)
    return code, RunReport.model_validate_json((tmp_path / "log").read_bytes())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "Invalid JSON"),
        (json.dumps({**job(), "kind": "Job"}), "kind 'Job' is not FineTuneJob, EvalJob or InferenceService"),
        (json.dumps(job(training={"epochs": -1})), "training.epochs"),
    ],
)
def test_an_invalid_spec_is_refused_with_the_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, sentence: str
) -> None:
    code, report = run_main(tmp_path, monkeypatch, content)
    assert code == 64
    assert report.failure is not None
    assert report.failure.class_ == "BadSpec"
    assert sentence in report.failure.message


def test_fetch_of_plain_files_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys, tunesmith_runtime.__main__, tunesmith_runtime.fetch, tunesmith_runtime.storage.s3; print([m for m in ('torch', 'transformers', 'datasets', 'huggingface_hub') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"
