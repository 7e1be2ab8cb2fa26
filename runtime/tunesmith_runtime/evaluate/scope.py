"""EvalScope: runs a benchmark, relays its log, reports progress, and reads its reports."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from tunesmith_api.catalogue.entries import HUBS
from tunesmith_api.evaljob import Generation, Result
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Hub, HubName
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate.benchmarks import Task
from tunesmith_runtime.evaluate.endpoint import Endpoint
from tunesmith_runtime.evaluate.results import completeness, disagreement, own_scores, refusal, scores, unreadable
from tunesmith_runtime.evaluate.samples import write_samples
from tunesmith_runtime.fetch.hub import REDIRECTIONS

log = logging.getLogger(__name__)

SEED = 42
REQUEST_SECONDS = 3600
"""An answer may take long if many requests share a CPU."""
PROGRESS_SECONDS = 2.0
CONSOLE = Path("logs", "console.log")

DEFAULT_HUB = Hub()

OnProgress = Callable[[int], None]
"""Called with the number of answered questions."""


def hub_variables(hub: Hub) -> dict[str, str]:
    """The variables that make EvalScope's libraries read the first server of each list in the chart's values."""
    servers = {name: urls[0] for name, urls in hub.endpoints.items() if urls}
    variables = {REDIRECTIONS[HUBS[name]][0]: url for name, url in servers.items()}
    scheme, _, domain = servers.get(HubName.MODEL_SCOPE, "").rstrip("/").partition("://")
    return {**variables, "MODELSCOPE_DOMAIN": domain} if scheme == "https" else variables


def data_hub(hub: Hub) -> str:
    """The hub of EvalScope's benchmarks: ModelScope, which has all of them, unless the chart's values leave it out."""
    return str(HubName.MODEL_SCOPE if HubName.MODEL_SCOPE in hub.order else HubName.HUGGING_FACE)


def quiet_imports(offline: bool, hub: Hub = DEFAULT_HUB) -> None:
    """Import EvalScope without its changes to our logging. `offline`: hubs must not be contacted.

    The libraries read their environment variables when they are imported, so these are set first.
    """
    os.environ.pop("TQDM_DISABLE", None)  # EvalScope's progress bars fail if disabled; here they go to a file
    if offline:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ |= hub_variables(hub)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    import evalscope  # noqa: F401

    import tunesmith_runtime.evaluate.adapter  # registers our benchmark and our parsers of answers
    import tunesmith_runtime.evaluate.picture_adapter  # noqa: F401  # registers our benchmarks of pictures

    root.handlers[:], root.level = handlers, level


class Relay(logging.Handler):
    """Copies the first line of EvalScope's warnings to our log, and keeps the first error for the report."""

    def __init__(self) -> None:
        super().__init__()
        self.first_error: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage().strip().partition("\n")[0]
        if record.levelno >= logging.ERROR and self.first_error is None:
            self.first_error = line
        if record.levelno >= logging.WARNING:
            log.log(record.levelno, "evalscope: %s", line)


@contextmanager
def relayed(console: Path) -> Iterator[Relay]:
    """Relay EvalScope's warnings to our log, and write its progress bars to the file `console`."""
    relay, logger = Relay(), logging.getLogger("evalscope")
    logger.handlers[:] = [relay]
    console.parent.mkdir(parents=True, exist_ok=True)
    try:
        with console.open("a", encoding="utf-8") as file, redirect_stderr(file):
            yield relay
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:] = [logging.NullHandler()]


def configuration(task: Task, generation: Generation, endpoint: Endpoint, folder: Path, hub: Hub = DEFAULT_HUB) -> Any:
    """Return EvalScope's TaskConfig. Raises RunFailure (BadSpec) if EvalScope refuses the settings."""
    from evalscope import TaskConfig

    settings = {
        "max_tokens": answer_tokens(generation.max_tokens, endpoint.max_length),
        "temperature": generation.temperature,
        "timeout": REQUEST_SECONDS,
        "retries": 3,
        "retry_interval": 2,
    }
    settings |= {"top_p": generation.top_p} if generation.top_p is not None else {}
    settings |= {"seed": SEED} if generation.temperature > 0 else {}
    try:
        return TaskConfig(
            model=endpoint.model,
            model_id=endpoint.model,
            eval_type="openai_api",
            api_url=endpoint.url,
            api_key=endpoint.key,
            datasets=[task.dataset],
            dataset_hub=data_hub(hub),
            dataset_args={task.dataset: task.arguments},
            limit=task.limit,
            eval_batch_size=generation.concurrency,
            generation_config=settings,
            judge={"strategy": "rule"},
            work_dir=str(folder),
            no_timestamp=True,
            ignore_errors=True,  # so that all questions are counted; `score` fails if any of them failed
            seed=SEED,
        )
    except ValueError as error:
        raise RunFailure(FailureClass.BAD_SPEC, f"benchmark {task.name}: {error}") from error


def answer_tokens(requested: int, max_length: int | None) -> int:
    """Return the maximum length of an answer: as requested, but at most half of the model's, to leave room for the question."""
    return requested if max_length is None else min(requested, max(1, max_length // 2))


def count_questions(task: Task, config: Any, trust_code: bool) -> int:
    """Load a benchmark's data, so that errors show before the first question, and return the number of questions.

    Raises RunFailure: BadSpec for an unknown benchmark or setting, and for a benchmark that runs code without `trust_code`;
    DatasetNotFound; EmptyDataset.
    """
    from evalscope.api.registry import BENCHMARK_REGISTRY, get_benchmark

    where = task.benchmark.dataset.source if task.benchmark.dataset else "the hub"
    try:
        adapter = get_benchmark(task.dataset, config)
        adapter.validate_judge_strategy()
    except ValueError as error:
        known = task.dataset in BENCHMARK_REGISTRY
        hint = (
            None
            if known
            else "use one of EvalScope's names, or set spec.benchmarks[].dataset with a type of your own rows"
        )
        raise RunFailure(FailureClass.BAD_SPEC, f"benchmark {task.name}: {error}", hint) from error
    except ImportError as error:  # packages of single benchmarks, which the image leaves out
        message = f"benchmark {task.name} needs packages that the runtime image does not have: {error}"
        raise RunFailure(FailureClass.BAD_SPEC, message, "use another benchmark") from error
    if _runs_code(adapter) and not trust_code:
        message = f"benchmark {task.name} runs code from the model or the data in a process that holds the store's credentials"
        raise RunFailure(FailureClass.BAD_SPEC, message, _TRUST)
    try:
        with relayed(Path(config.work_dir) / CONSOLE):
            questions = sum(len(subset) for subset in adapter.load_dataset().values())
    except RunFailure:
        raise
    except ConnectionError as error:
        raise RunFailure(FailureClass.HUB_UNREACHABLE, f"benchmark {task.name}: {error}", _LOCAL) from error
    except Exception as error:
        message = f"benchmark {task.name}: its data at {where} cannot be read: {type(error).__name__}: {error}"
        raise RunFailure(FailureClass.DATASET_NOT_FOUND, message, _LOCAL) from error
    if not questions:
        raise RunFailure(FailureClass.EMPTY_DATASET, f"benchmark {task.name}: there is no question in {where}")
    return questions


def _runs_code(adapter: Any) -> bool:
    """Whether scoring runs code that a model wrote, in this process or by tools. EvalScope's sandboxes need Docker."""
    from evalscope.api.benchmark import AgentAdapter
    from evalscope.api.mixin import CodeExecutionSandboxMixin

    return isinstance(adapter, AgentAdapter | CodeExecutionSandboxMixin)


_TRUST = "use another benchmark, or set spec.model.trustRemoteCode: true (and spec.baseline.trustRemoteCode), which allowTrustRemoteCode in the chart's values must allow"
_UNANSWERED = "remove the cause, for example a question longer than the model's limit; a score over the other questions would mislead"
_MISCOUNTED = "run the evaluation again; if the counts disagree again, report a bug"
_LOCAL = "copy the benchmark's folder from the hub into the store, and set spec.benchmarks[].dataset: {type: benchmark, uri: s3://…}"


def score(task: Task, config: Any, questions: int, on_progress: OnProgress) -> list[Result]:
    """Ask all questions, score the answers, and call `on_progress` every few seconds.

    Raises RunFailure (EvaluationFailed) if a question has no answer or the report does not account for all questions: a
    score over the rest would be another score.
    """
    from evalscope import run_task

    folder = Path(config.work_dir)
    with relayed(folder / CONSOLE) as relay, _watched(folder / "predictions", on_progress):
        try:
            run_task(config)
        except RunFailure:
            raise
        except Exception as error:
            message = f"benchmark {task.name}: EvalScope failed: {type(error).__name__}: {error}"
            raise RunFailure(FailureClass.EVALUATION_FAILED, message) from error
    report = _report(task, folder, relay)
    predictions = list(_rows(folder / "predictions"))
    counts = completeness(report, predictions)
    if counts.failed:
        cause = next(filter(None, map(refusal, predictions)), relay.first_error or "see the log")
        message = f"benchmark {task.name}: {counts.failed} of {counts.asked} questions got no answer; the first cause: {cause}"
        raise RunFailure(FailureClass.EVALUATION_FAILED, message, _UNANSWERED)
    if difference := disagreement(report, len(predictions), questions):
        message = f"benchmark {task.name}: EvalScope's counts do not agree: {difference}"
        raise RunFailure(FailureClass.EVALUATION_FAILED, message, _MISCOUNTED)
    found = own_scores(task.name, report) if task.is_own else scores(task.name, report)
    write_samples(folder, task.name, _rows(folder / "reviews"))
    return found + unreadable(task.name, _rows(folder / "reviews"))


def _report(task: Task, folder: Path, relay: Relay) -> Mapping[str, Any]:
    files = list((folder / "reports").glob(f"*/{task.dataset}.json"))
    if not files:
        message = f"benchmark {task.name}: EvalScope left no report: {relay.first_error or 'see the log'}"
        raise RunFailure(FailureClass.EVALUATION_FAILED, message)
    report: Mapping[str, Any] = json.loads(files[0].read_text(encoding="utf-8"))
    return report


def _rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    for file in sorted(folder.rglob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


@contextmanager
def _watched(folder: Path, on_progress: OnProgress) -> Iterator[None]:
    """Count the answers that EvalScope has written and report them, every few seconds."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(PROGRESS_SECONDS):
            on_progress(_count_lines(folder))

    watcher = threading.Thread(target=watch, name="progress of the evaluation", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _count_lines(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.rglob("*.jsonl"))
