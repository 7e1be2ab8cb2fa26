"""The verb evaluate with an engine of scripted answers: which of them are right, wrong and unreadable."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.tinymodel import make_model
from tests.unit.runtime.evaluate.test_verb import README, run_verb, spec_of, write_lines

CHOICES = {"A": "a metal", "B": "a fruit", "C": "a tool", "D": "an animal"}
CUT_OFF = "<think>Option A is a metal, so not that. Option B"
ANSWERS = {
    "prose": ("Bananas and kiwis are both eaten.", "stop"),
    "cut off": (CUT_OFF, "length"),
    "cut off, and the prompt begins the thought": ("Option A is a metal, so not that. Option B", "length"),
    "lower case": ("answer: b", "stop"),
    "a letter": ("b", "stop"),
    "the text": ("a fruit", "stop"),
    "after a thought": ("<think>A?</think>\n\nB", "stop"),
    "another": ("ANSWER: A", "stop"),
    "cut off behind the answer": ("ANSWER: B\n\nA kiwi grows", "length"),
    "nothing": ("", "stop"),
    "a thought that the engine sets apart": ("", "length"),
}
WORDS = {
    "right": ("Fruit.", "stop"),
    "wrong": ("tool", "stop"),
    "begins": ("<think>fruit", "stop"),
    "thinks": ("<think>It is eaten.</think>fruit", "stop"),
    "goes on": ("fruit fruit fruit", "length"),
    "ends in time": ("fruit", "length"),
}


class Engine(BaseHTTPRequestHandler):
    """Answers the question whose name is in the prompt."""

    def do_GET(self) -> None:
        self._send({"data": [{"id": "scores", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        lines = [line.removeprefix("问题\uff1a") for line in str(body["messages"][-1]["content"]).splitlines()]
        text, reason = next((ANSWERS | WORDS)[line] for line in lines if line in ANSWERS | WORDS)
        message = {"role": "assistant", "content": text or None, "reasoning_content": CUT_OFF}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "scores"}
        self._send(answer | {"choices": [choice], "usage": usage})

    def _send(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture(scope="module")
def results(port: int, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[float, int]]:
    folder = tmp_path_factory.mktemp("scoring")
    choices = [{"question": name, **CHOICES, "answer": "B"} for name in ANSWERS]
    words = [{"query": name, "response": "<think>Eaten.</think>fruit"} for name in WORDS]
    options = {"choices": {"text": [*CHOICES.values()], "label": [*CHOICES]}, "answerKey": "B"}
    named = [{"id": name, "question": name, **options} for name in ANSWERS]
    own = write_lines(folder / "letters.jsonl", choices)
    write_lines(folder / "arc" / "test.jsonl", named)
    write_lines(folder / "ceval" / "test.jsonl", choices)
    (folder / "arc" / "README.md").write_text(README.replace("main", "ARC-Easy"))
    (folder / "ceval" / "README.md").write_text(README.replace("main", "law").replace("split: test", "split: val"))
    benchmarks: list[dict[str, Any]] = [
        {"name": "letters", "dataset": {"uri": own, "type": "multipleChoice"}},
        {"name": "words", "dataset": {"uri": write_lines(folder / "words.jsonl", words)}},
        {
            "name": "ceval",
            "dataset": {"uri": (folder / "ceval").as_uri(), "type": "benchmark"},
            "fewShot": 0,
            "subsets": ["law"],
        },
        {
            "name": "arc",
            "dataset": {"uri": (folder / "arc").as_uri(), "type": "benchmark"},
            "fewShot": 0,
            "subsets": ["ARC-Easy"],
        },
    ]
    spec, message = spec_of(folder, benchmarks), folder / "report"
    make_model(folder / "model", seed=5)
    settings = {
        "TUNESMITH_PORT": str(port),
        "TUNESMITH_TERMINATION_LOG": str(message),
        "HF_HOME": str(folder / "cache"),
    }
    code, _, log = run_verb("fetch", spec, folder / "work", message, settings)
    assert code == 0, log
    code, report, log = run_verb("evaluate", spec, folder / "work", message, settings)
    assert code == 0, log
    return {(each["benchmark"], each["metric"]): (each["value"], each["samples"]) for each in report["results"]}


def test_only_an_answer_is_scored(results: dict[tuple[str, str], tuple[float, int]]) -> None:
    assert results["letters", "accuracy"] == (0.4545, 11)
    assert results["letters", "unreadable"] == (0.4545, 11)


def test_a_thought_without_an_end_and_an_answer_without_one_are_no_answers_to_a_question(
    results: dict[tuple[str, str], tuple[float, int]],
) -> None:
    assert results["words", "accuracy"] == (0.5, 6)
    assert results["words", "unreadable"] == (0.3333, 6)


def test_evalscopes_own_multiple_choice_is_read_the_same_way(
    results: dict[tuple[str, str], tuple[float, int]],
) -> None:
    for name in ("arc", "ceval"):
        assert results[name, "accuracy"] == results["letters", "accuracy"]
        assert results[name, "unreadable"] == results["letters", "unreadable"]
