"""Two pods that train together: two processes, each with a work directory, a shared store, and gloo between them."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.servers import free_port
from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.methods.texts import labelled, pairs
from tests.unit.runtime.train.support import Run, again, fetched, make_run
from tests.unit.runtime.train.worlds import Forked, Patch
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.run import INDEX_VARIABLE, Outcome, RunReport, World
from tunesmith_runtime import train
from tunesmith_runtime.rundirectory import RunDirectory
from tunesmith_runtime.train.losses import cross_entropy
from tunesmith_runtime.train.world import rendezvous

ROWS = tinymodel.rows(90, seed=1)
STEPS_PER_EPOCH = 6  # the last batch of an epoch has ten rows
FP32: dict[str, Any] = {"microBatchSize": 4, "precision": "fp32"}
DROPOUT: dict[str, Any] = {
    "tuner": "lora",
    "lora": {"dropout": 0.1},
    "validation": {"fraction": 0.1},
    "checkpoint": {"everySteps": 20, "keep": 1},
}
LONG: dict[str, Any] = {**FP32, "epochs": 12}
PATIENCE = 300
PREEMPTED = FAILURES[FailureClass.PREEMPTED].exit_code
LOST = FAILURES[FailureClass.COLLECTIVE_FAILED].exit_code


@dataclass
class Pods:
    """The pods of one attempt."""

    runs: list[Run]
    processes: list[Forked]

    def reports(self) -> list[RunReport]:
        """Wait for the pods and return their reports."""
        printed = [process.communicate(timeout=PATIENCE)[0] for process in self.processes]
        return [RunReport.model_validate_json(text.splitlines()[-1]) for text in printed]

    def exit_codes(self) -> list[int | None]:
        """Return the exit code of each pod."""
        return [process.returncode for process in self.processes]

    def signal_when(self, number: signal.Signals, text: str) -> None:
        """Send a signal to the last pod when the first has printed `text`."""
        printed = []
        for line in self.processes[0].stdout:
            printed.append(line)
            if text in line:
                self.processes[-1].send_signal(number)
                return
        raise AssertionError(f"{text!r} was not printed: {''.join(printed)}")


def lose_by_trl() -> None:
    cross_entropy.LOGITS_BYTES = 0


def publish_in_vain() -> None:
    RunDirectory.publish = lambda *_: print("publishing", flush=True) or time.sleep(600)  # type: ignore[assignment,method-assign,func-returns-value]


def look_often() -> None:
    rendezvous.TRAINED_POLL_SECONDS = 1


def start(
    run: Run,
    model: Path,
    attempt: int,
    nodes: int = 2,
    processes: int = 1,
    started: int | None = None,
    rows: list[dict[str, Any]] = ROWS,
    patch: Patch | None = None,
) -> Pods:
    """Start an attempt at `run` with `nodes` pods, or only the first `started` of them; each begins with `patch`."""
    world = World(nodes=nodes, processes=processes, port=free_port())
    spec = run.spec.model_copy(update={"world": world, "attempt": attempt})
    folders = [run.work.root.with_name(f"pod-{attempt}-{index}") for index in range(started or nodes)]
    works = [fetched(folder, spec, model, rows) for folder in folders]
    runs = [Run(spec, work) for work in works]
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "7"}
    pods = [Forked(each, "train", environment | {INDEX_VARIABLE: str(index)}, patch) for index, each in enumerate(runs)]
    return Pods(runs, pods)


def curve(run: Run, metric: str = "loss") -> list[tuple[int, float]]:
    return [(entry["step"], entry[metric]) for entry in run.log_history(metric)]


def losses(run: Run) -> Sequence[float]:
    return [entry for _, entry in curve(run)]


def test_two_pods_compute_the_steps_of_one(tiny: Path, tmp_path: Path) -> None:
    """The last batch of an epoch is incomplete: no row is repeated or left out."""
    settings = {**FP32, "epochs": 2}
    alone = make_run(tmp_path / "one", tiny, ROWS, settings, tuner="full")
    expected = alone.do(train.run)
    together = make_run(tmp_path / "two", tiny, ROWS, settings, tuner="full")
    leader, other = start(together, tiny, 1).reports()
    assert losses(together) == pytest.approx(losses(alone), abs=2e-5)
    assert leader.metrics
    assert expected.metrics
    assert (leader.metrics.steps, leader.metrics.tokens) == (2 * STEPS_PER_EPOCH, expected.metrics.tokens)
    assert leader.artifacts
    assert other == RunReport(verb=other.verb, outcome=Outcome.SUCCEEDED, run_uri=together.directory.uri)


@pytest.mark.deep
def test_two_pods_compute_the_steps_of_one_with_packed_rows(tiny: Path, tmp_path: Path) -> None:
    """The last batch of an epoch lacks sequences, and is filled up with those that have no label."""
    settings = {"precision": "fp32", "packing": True, "globalBatchSize": 4, "microBatchSize": 1, "epochs": 2}
    alone = make_run(tmp_path / "one", tiny, ROWS, settings, tuner="full")
    expected = alone.do(train.run)
    together = make_run(tmp_path / "two", tiny, ROWS, settings, tuner="full")
    leader, _ = start(together, tiny, 1).reports()
    assert losses(together) == pytest.approx(losses(alone), abs=2e-5)
    assert leader.metrics
    assert expected.metrics
    assert (leader.metrics.steps, leader.metrics.tokens) == (expected.metrics.steps, expected.metrics.tokens)


@pytest.mark.deep
def test_two_pods_compute_the_steps_of_one_with_the_loss_for_gpus(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's loss gathers metrics from all processes in each micro batch; activations are computed twice."""
    monkeypatch.setattr(cross_entropy, "LOGITS_BYTES", 0)
    settings = {**FP32, "epochs": 1, "gradientCheckpointing": True}
    alone = make_run(tmp_path / "one", tiny, ROWS, settings, tuner="lora")
    alone.do(train.run)
    together = make_run(tmp_path / "two", tiny, ROWS, settings, tuner="lora")
    assert start(together, tiny, 1, patch=lose_by_trl).reports()[0].outcome is Outcome.SUCCEEDED
    assert losses(together) == pytest.approx(losses(alone), abs=2e-5)


@pytest.mark.deep
@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_two_pods_compute_the_steps_of_one_with_preferences(method: str, tiny: Path, tmp_path: Path) -> None:
    """The last batch of an epoch is filled up with blank pairs."""
    rows, settings = preferences(22), {**FP32, "globalBatchSize": 8, "microBatchSize": 2, "epochs": 2}
    alone = make_run(tmp_path / "one", tiny, rows, settings, method=method, tuner="full")
    expected = alone.do(train.run)
    together = make_run(tmp_path / "two", tiny, rows, settings, method=method, tuner="full")
    leader, _ = start(together, tiny, 1, rows=rows).reports()
    assert losses(together) == pytest.approx(losses(alone), abs=2e-5)
    assert [value for _, value in curve(together, "rewards/margins")] == pytest.approx(
        [value for _, value in curve(alone, "rewards/margins")], abs=2e-5
    )
    assert leader.metrics
    assert expected.metrics
    assert (leader.metrics.steps, leader.metrics.tokens) == (expected.metrics.steps, expected.metrics.tokens)


@pytest.mark.deep
@pytest.mark.parametrize("method", ["classify", "embed"])
def test_two_pods_compute_the_steps_of_one_with_texts(method: str, tiny: Path, tmp_path: Path) -> None:
    """Texts are compared with those of the other pod too; the last batch of an epoch is filled up with blank rows."""
    rows = pairs(22, negatives=True) if method == "embed" else labelled(22)
    found = []
    for folder, devices in (("one", 1), ("two", 2)):
        settings = {**FP32, "globalBatchSize": 8, "microBatchSize": 8 // devices, "epochs": 2}
        run = make_run(tmp_path / folder, tiny, rows, settings, method=method, tuner="full")
        report = run.do(train.run) if devices == 1 else start(run, tiny, 1, rows=rows).reports()[0]
        assert report.metrics
        shown = curve(run, "recall" if method == "embed" else "accuracy")
        found.append((losses(run), shown, (report.metrics.steps, report.metrics.tokens)))
    alone, together = found
    assert together[0] == pytest.approx(alone[0], abs=2e-5)
    assert together[1:] == alone[1:]


@pytest.mark.deep
def test_two_pods_compute_the_steps_of_one_with_passages(tiny: Path, tmp_path: Path) -> None:
    """Each pod compares the rows of its own forward pass; the last batch of an epoch is filled up with blank rows."""
    rows, settings = pairs(22, negatives=True), {**FP32, "globalBatchSize": 8, "microBatchSize": 4, "epochs": 2}
    alone = make_run(tmp_path / "one", tiny, rows, settings, method="rerank", tuner="full")
    expected = alone.do(train.run)
    together = make_run(tmp_path / "two", tiny, rows, settings, method="rerank", tuner="full")
    leader, _ = start(together, tiny, 1, rows=rows).reports()
    assert losses(together) == pytest.approx(losses(alone), abs=2e-5)
    assert [value for _, value in curve(together, "mrr")] == pytest.approx([value for _, value in curve(alone, "mrr")])
    assert leader.metrics
    assert expected.metrics
    assert (leader.metrics.steps, leader.metrics.tokens) == (expected.metrics.steps, expected.metrics.tokens)


def test_all_pods_report_nothing_learned(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny, ROWS, {**FP32, "maxSteps": 1, "learningRate": 1e-30})
    reports = start(run, tiny, 1).reports()
    assert [report.failure and report.failure.class_ for report in reports] == [FailureClass.NOTHING_LEARNED] * 2


@pytest.fixture(scope="module")
def uninterrupted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunReport]:
    """An uninterrupted run of two pods."""
    run = make_run(tmp_path_factory.mktemp("whole"), tiny, ROWS, LONG, **DROPOUT)
    return run, start(run, tiny, 1).reports()[0]


def assert_equal(run: Run, report: RunReport, whole: tuple[Run, RunReport]) -> None:
    """Losses and the bytes of the artifact equal those of the uninterrupted run: each rank has its own random states."""
    other, expected = whole
    assert curve(run) == curve(other)
    assert curve(run, "eval_loss") == curve(other, "eval_loss")
    assert report.artifacts
    assert expected.artifacts
    assert report.artifacts[0].digest == expected.artifacts[0].digest


def test_a_new_world_resumes_exactly_after_a_pod_was_stopped_or_killed(
    uninterrupted: tuple[Run, RunReport], tiny: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path, tiny, ROWS, LONG, **DROPOUT)

    # One pod receives SIGTERM: all stop after the same step with a checkpoint.
    pods = start(run, tiny, 1)
    pods.signal_when(signal.SIGTERM, "step 1/")
    first, second = pods.reports()
    assert pods.exit_codes() == [PREEMPTED, PREEMPTED]
    assert first.last_checkpoint
    assert second.last_checkpoint == first.last_checkpoint
    stopped_at = first.last_checkpoint.step

    # One pod is killed: the other ends soon and reports a secondary failure.
    pods = start(run, tiny, 2)
    pods.signal_when(signal.SIGKILL, "checkpoint of step 40")
    printed, _ = pods.processes[0].communicate(timeout=PATIENCE)
    pods.processes[1].wait(PATIENCE)
    assert pods.exit_codes() == [LOST, -signal.SIGKILL], printed
    report = RunReport.model_validate_json(printed.splitlines()[-1])
    assert report.failure
    assert report.failure.class_ is FailureClass.COLLECTIVE_FAILED

    # The next world resumes from the last checkpoint.
    leader, _ = start(run, tiny, 3).reports()
    assert leader.resumed_from_step
    assert stopped_at < 40 <= leader.resumed_from_step
    assert_equal(run, leader, uninterrupted)


@pytest.mark.deep
def test_pods_succeed_only_after_pod_0_has_published(
    uninterrupted: tuple[Run, RunReport], tiny: Path, tmp_path: Path
) -> None:
    """A pod that exits with 0 has completed its index for good, and a replacement of pod 0 would wait for it in vain."""
    run = make_run(tmp_path, tiny, ROWS, LONG, **DROPOUT)
    pods = start(run, tiny, 1, patch=publish_in_vain)
    pods.signal_when(signal.SIGTERM, "publishing")  # pod 1 receives SIGTERM and still waits for pod 0
    with pytest.raises(subprocess.TimeoutExpired):
        pods.processes[1].wait(5)
    pods.processes[0].kill()
    pods.processes[0].wait(PATIENCE)
    printed, _ = pods.processes[1].communicate(timeout=PATIENCE)
    assert pods.exit_codes() == [-signal.SIGKILL, LOST], printed

    leader, other = start(run, tiny, 2).reports()
    assert (leader.outcome, other.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    assert_equal(run, leader, uninterrupted)


def test_pod_0_that_restarts_after_training_does_not_wait_for_others(
    uninterrupted: tuple[Run, RunReport], tiny: Path, tmp_path: Path
) -> None:
    """A queue may stop it during export; the indexes of the other pods are complete and never start again."""
    run, trained = uninterrupted
    (report,) = start(run, tiny, 2, started=1, patch=look_often).reports()
    assert (report.outcome, report.artifacts) == (Outcome.SUCCEEDED, trained.artifacts)


def test_a_world_that_restarts_after_training_reports_the_result(
    uninterrupted: tuple[Run, RunReport], tiny: Path
) -> None:
    run, trained = uninterrupted
    reports = start(run, tiny, 3).reports()
    assert [(report.outcome, report.artifacts) for report in reports] == [(Outcome.SUCCEEDED, trained.artifacts)] * 2


@pytest.mark.deep
def test_two_devices_of_one_pod_compute_what_two_pods_do(
    uninterrupted: tuple[Run, RunReport], tiny: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path, tiny, ROWS, LONG, **DROPOUT)
    pods = start(run, tiny, 1, nodes=1, processes=2)
    pods.signal_when(signal.SIGTERM, "step 1/")
    (stopped,) = pods.reports()
    assert pods.exit_codes() == [PREEMPTED]
    assert stopped.last_checkpoint
    (report,) = start(run, tiny, 2, nodes=1, processes=2).reports()
    assert report.resumed_from_step == stopped.last_checkpoint.step
    assert_equal(run, report, uninterrupted)


@pytest.mark.deep
def test_a_single_pod_can_resume_the_run_of_two(tiny: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny, ROWS, LONG, **DROPOUT)
    pods = start(run, tiny, 1)
    pods.signal_when(signal.SIGTERM, "step 1/")
    stopped, _ = pods.reports()
    assert stopped.last_checkpoint
    report = again(run, tiny, ROWS, 2).do(train.run)
    assert report.resumed_from_step == stopped.last_checkpoint.step
    assert report.metrics
    assert report.metrics.steps == 12 * STEPS_PER_EPOCH
