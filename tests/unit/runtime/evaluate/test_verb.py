"""fetch, serve and evaluate as the pod runs them, each in a process of its own, on a tiny model and files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests import tinyvision
from tests.servers import Server, free_port, run_spec
from tests.tinymodel import rows

PICTURES = {colour: tinyvision.picture(colour) for colour in tinyvision.COLOURS}
QUESTIONS = [row["messages"][0]["content"] for row in rows(6, seed=3)]
TOKENS = 8
README = """---
configs:
- config_name: main
  data_files:
  - {split: test, path: test.jsonl}
---
"""


@dataclass(frozen=True)
class Pod:
    """A work directory whose fetch has run, and the server beside it."""

    folder: Path
    spec: Path
    server: Server

    def run(self, verb: str, work: Path | None = None, **environment: str) -> tuple[int, dict[str, Any], str]:
        """Run a verb; its exit code, report and log."""
        report = self.folder / f"{verb}.report"
        settings = {"TUNESMITH_PORT": str(self.server.port), "TUNESMITH_TERMINATION_LOG": str(report), **environment}
        return run_verb(verb, self.spec, work or self.folder / "work", report, settings)


def run_verb(
    verb: str, spec: Path, work: Path, report: Path, settings: dict[str, str]
) -> tuple[int, dict[str, Any], str]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-m", "tunesmith_runtime", verb, "--spec", str(spec), "--work", str(work)]
    done = subprocess.run(
        command,
        env=os.environ | settings | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    return done.returncode, json.loads(report.read_text()), done.stdout + done.stderr


def write_lines(file: Path, lines: list[dict[str, Any]]) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file.as_uri()


def spec_of(folder: Path, benchmarks: list[dict[str, Any]], **generation: Any) -> Path:
    evaluation = {"benchmarks": benchmarks, "generation": {"maxTokens": TOKENS, "concurrency": 4, **generation}}
    model = {"uri": (folder / "model").as_uri()}
    store = (folder / "store").as_uri()
    spec = run_spec(
        "EvalJob", "scores", evaluation, models={"base": model}, store={"uri": store}, outputUri=f"{store}/evals"
    )
    file = folder / "run.json"
    file.write_text(json.dumps(spec))
    return file


def answers(server: Server, contents: list[Any]) -> list[str]:
    """The model's answer to each question."""
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    replies = []
    for content in contents:
        message: Any = {"role": "user", "content": content}
        answer = client.chat.completions.create(model="scores", messages=[message], temperature=0, max_tokens=TOKENS)
        replies.append(answer.choices[0].message.content or "")
    return replies


def about(picture: bytes) -> list[dict[str, Any]]:
    """A question about a picture, as in a request."""
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is it?"}]


def write_pictures(folder: Path, replies: list[str]) -> str:
    """Rows that ask for what pictures show, whose references are `replies`."""
    folder.mkdir()
    for colour, content in PICTURES.items():
        (folder / f"{colour}.png").write_bytes(content)
    pairs = zip(PICTURES, replies, strict=True)
    rows = [{"image_path": f"{name}.png", "text": "what is it?", "answer": reply} for name, reply in pairs]
    return write_lines(folder / "rows.jsonl", rows)


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod that scores a model on four sets. The model's answer is the reference of four of six questions, and of all about pictures."""
    folder = tmp_path_factory.mktemp("pod")
    tinyvision.add_processor(tinyvision.make_model(folder / "model", "qwen3_vl", seed=1), "qwen3_vl")
    (folder / "work").mkdir()
    (folder / "work" / "model").symlink_to(folder / "model")
    (folder / "work" / "fetch.json").write_text("{}")
    server = Server(spec_of(folder, [{"name": "none"}]), folder / "work").wait_ready()
    replies, seen = answers(server, QUESTIONS), answers(server, [about(each) for each in PICTURES.values()])
    assert len({*seen}) > 1, "the model does not tell the pictures apart"
    (folder / "work" / "model").unlink()
    references = [f" **{text.upper()}**.\n" if index < 4 else "something else" for index, text in enumerate(replies)]
    qa = [{"query": question, "response": reference} for question, reference in zip(QUESTIONS, references, strict=True)]
    choices = [{"question": question, "A": "fruit", "B": "tool", "answer": "A"} for question in QUESTIONS]
    write_lines(folder / "gsm8k" / "test.jsonl", [{"question": "1 + 1?", "answer": "It is two.\n#### 2"}] * 5)
    (folder / "gsm8k" / "README.md").write_text(README)
    benchmarks: list[dict[str, Any]] = [
        {"name": "words", "dataset": {"uri": write_lines(folder / "words.jsonl", qa)}},
        {
            "name": "letters",
            "dataset": {"uri": write_lines(folder / "letters.jsonl", choices), "type": "multipleChoice"},
        },
        {
            "name": "gsm8k",
            "dataset": {"uri": (folder / "gsm8k").as_uri(), "type": "benchmark"},
            "fewShot": 0,
            "limit": 3,
        },
        {"name": "pictures", "dataset": {"uri": write_pictures(folder / "pictures", seen), "type": "ocr"}},
    ]
    spec = spec_of(folder, benchmarks)
    yield Pod(folder, spec, server)
    server.stop()


@pytest.fixture(scope="module")
def scored(pod: Pod) -> tuple[int, dict[str, Any], str]:
    code, _, log = pod.run("fetch")
    assert code == 0, log
    return pod.run("evaluate")


def test_a_model_is_scored_on_own_rows_choices_a_benchmark_and_pictures(
    scored: tuple[int, dict[str, Any], str],
) -> None:
    code, report, log = scored
    assert code == 0, log
    found = {
        (result["benchmark"], result["metric"]): (result["value"], result["samples"]) for result in report["results"]
    }
    assert found[("words", "accuracy")] == (0.6667, 6)
    assert found[("letters", "accuracy")] == (0.0, 6)
    assert found[("gsm8k", "accuracy")] == (0.0, 3)
    assert found[("words", "unreadable")] == (0.3333, 6)
    assert found[("letters", "unreadable")] == (1.0, 6)
    assert found[("pictures", "editSimilarity")] == (1.0, 4)
    assert found[("pictures", "characterErrorRate")] == (0.0, 4)
    assert found[("pictures", "unreadable")] == (0.0, 4)
    assert len(found) == 9


def test_the_log_has_scores_and_neither_tracebacks_nor_http_requests(scored: tuple[int, dict[str, Any], str]) -> None:
    _, _, log = scored
    assert "words accuracy: 0.6667 over 6 questions" in log
    assert "Traceback" not in log
    assert "HTTP Request" not in log


def test_reports_and_answers_are_stored_and_the_run_is_finished(
    pod: Pod, scored: tuple[int, dict[str, Any], str]
) -> None:
    _, report, _ = scored
    (artifact,) = report["artifacts"]
    stored = Path(artifact["uri"].removeprefix("file://"))
    assert (artifact["name"], len(artifact["digest"])) == ("report", 64)
    for benchmark in ("words", "letters", "gsm8k"):
        assert (stored / benchmark / "reports" / "report.html").stat().st_size > 10_000
        assert list((stored / benchmark / "predictions").rglob("*.jsonl"))
    record = json.loads((Path(report["runUri"].removeprefix("file://")) / "run.json").read_text())
    assert record["results"] == report["results"]
    assert record["versions"]["evalscope"]


def test_a_finished_evaluation_is_adopted_with_its_scores(pod: Pod, scored: tuple[int, dict[str, Any], str]) -> None:
    again = pod.folder / "again"
    assert pod.run("fetch", again)[1]["outcome"] == "Adopted"
    code, report, _ = pod.run("evaluate", again, TUNESMITH_PORT=str(free_port()))
    assert (code, report["outcome"], report["results"]) == (0, "Adopted", scored[1]["results"])


def test_a_question_longer_than_the_model_fails_the_evaluation(pod: Pod, tmp_path: Path) -> None:
    long = [{"query": "What is a kiwi? " * 200, "response": "fruit"}, {"query": "What is a kiwi?", "response": "fruit"}]
    code, report = evaluate_rows(pod, tmp_path, long)
    assert (code, report["failure"]["class"]) == (84, "EvaluationFailed")
    assert (
        "1 of 2 questions got no answer; the first cause: This model's maximum context length is 512"
        in report["failure"]["message"]
    )
    assert not list((tmp_path / "store").rglob("run.json"))


def evaluate_rows(pod: Pod, folder: Path, lines: list[dict[str, Any]], **settings: str) -> tuple[int, dict[str, Any]]:
    """fetch and evaluate a set of rows, with a store of its own."""
    (folder / "model").symlink_to(pod.folder / "model")
    spec = spec_of(folder, [{"name": "words", "dataset": {"uri": write_lines(folder / "words.jsonl", lines)}}])
    environment = {
        "TUNESMITH_PORT": str(pod.server.port),
        "TUNESMITH_TERMINATION_LOG": str(folder / "report"),
        **settings,
    }
    code, report, log = run_verb("fetch", spec, folder / "work", folder / "report", environment)
    assert code == 0, log
    code, report, _ = run_verb("evaluate", spec, folder / "work", folder / "report", environment)
    return code, report


def test_a_broken_row_fails_before_anything_is_asked(pod: Pod, tmp_path: Path) -> None:
    code, report = evaluate_rows(pod, tmp_path, [{"query": "What is a kiwi?"}], TUNESMITH_PORT=str(free_port()))
    assert (code, report["failure"]["class"]) == (65, "BadRow")
    assert "words.jsonl line 1" in report["failure"]["message"]


def test_a_missing_engine_is_reported(pod: Pod, tmp_path: Path) -> None:
    row = {"query": "What is a kiwi?", "response": "fruit"}
    code, report = evaluate_rows(pod, tmp_path, [row], TUNESMITH_PORT=str(free_port()))
    assert (code, report["failure"]["class"]) == (83, "EngineFailed")
    assert "no engine answers at http://127.0.0.1:" in report["failure"]["message"]
