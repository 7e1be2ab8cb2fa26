"""The verb evaluate with an engine of scripted answers, which looks at pictures: which answers are right, wrong and unreadable."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tests.tinyvision import COLOURS, make_model, picture
from tests.unit.runtime.evaluate.test_pictures import encoded
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


def see(parts: list[dict[str, Any]]) -> str:
    """The answer to a question about a picture."""
    (url,) = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    text = "".join(part.get("text", "") for part in parts)
    pixels = numpy.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))
    height, width, _ = pixels.shape
    distances = [numpy.abs(pixels - numpy.array(colour)).sum(axis=2) for colour in COLOURS.values()]
    nearest = numpy.argmin(distances, axis=0)
    colour = list(COLOURS)[nearest[0, 0]]
    if text.startswith("repeat "):
        return text.removeprefix("repeat ")
    if text == "size?":
        return f"{width} x {height}"
    if text.startswith("where"):
        rows, columns = numpy.nonzero(nearest == 0)
        corners = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
        return f"It is at {[round(1000 * corner) for corner in corners]}."
    letters = {choice: letter for letter, choice in re.findall(r"^([A-D])\) (\w+)", text, re.MULTILINE)}
    return f"ANSWER: {letters[colour]}" if letters else colour


class Engine(BaseHTTPRequestHandler):
    """Answers the question whose name is in the prompt, or what it sees in a picture."""

    def do_GET(self) -> None:
        self._send({"data": [{"id": "scores", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        lines = [line.removeprefix("问题\uff1a") for line in str(content).splitlines()]
        found = next(((ANSWERS | WORDS)[line] for line in lines if line in ANSWERS | WORDS), None)
        text, reason = found or (see(content), "stop")
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


@dataclass(frozen=True)
class Scored:
    """What an evaluation reports and stores."""

    results: dict[tuple[str, str], tuple[float, int]]
    """Value and samples by benchmark and metric."""
    folder: Path

    def rows(self, benchmark: str, kind: str) -> list[dict[str, Any]]:
        """Stored rows of a benchmark: predictions or reviews."""
        files = (self.folder / benchmark / kind).rglob("*.jsonl")
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def own_pictures(folder: Path) -> list[dict[str, Any]]:
    """Benchmarks of each type of rows with pictures."""
    folder.mkdir()
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(picture(colour))
    two = Image.new("RGB", (40, 20), COLOURS["red"])
    two.paste(COLOURS["blue"], (20, 0, 40, 20))
    (folder / "turned.jpg").write_bytes(encoded(two, "JPEG", orientation=6))
    typed = [{"type": "text", "text": "repeat <image 1>"}, {"type": "image", "image": "red.png"}]
    right = {"role": "assistant", "content": "<image 1>"}
    box = {"answer": "<bbox>", "objects": {"bbox": [[0, 0, 20, 20]]}}
    rows: dict[str, list[dict[str, Any]]] = {
        "vqa": [
            {"image_path": "red.png", "text": "colour?", "answer": ["crimson", "Red."]},
            {"image_path": "turned.jpg", "text": "size?", "answer": "20 x 40"},
            {"messages": [{"role": "user", "content": typed}, right]},
            {"image_path": "blue.png", "text": "colour?", "answer": "red"},
        ],
        "caption": [
            {"image": "green.png", "caption": ["the green one", "green"]},
            {"image": "red.png", "caption": "a ball"},
        ],
        "ocr": [{"image": "blue.png", "text": "blue"}, {"image": "green.png", "text": "greed"}],
        "grounding": [
            {"image_path": "turned.jpg", "text": "where is it?", **box},
            {"image_path": "red.png", "text": "where is it?", **box},
            {"image_path": "red.png", "text": "repeat this", **box},
        ],
    }
    return [
        {"name": kind, "dataset": {"uri": write_lines(folder / f"{kind}.jsonl", lines), "type": kind}}
        for kind, lines in rows.items()
    ]


def write_mm_bench(folder: Path) -> str:
    """A folder of MMBench as the hub has it."""
    names = dict(zip("ABCD", COLOURS, strict=True))
    rows = [
        {
            "index": index, "question": "colour?", "hint": "nan", **names, "answer": answer, "category": "c", "L2-category": "d",
            "source": "s", "comment": "nan", "split": "dev", "image": {"bytes": picture(colour), "path": None},
        }
        for index, (colour, answer) in enumerate([("green", "B"), ("blue", "C"), ("red", "D")])
    ]  # fmt: skip
    folder.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "dev.parquet")
    config = README.replace("main", "en").replace("split: test, path: test.jsonl", "split: dev, path: dev.parquet")
    (folder / "README.md").write_text(config)
    return folder.as_uri()


@pytest.fixture(scope="module")
def scored(port: int, tmp_path_factory: pytest.TempPathFactory) -> Scored:
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
        {
            "name": "mm_bench",
            "dataset": {"uri": write_mm_bench(folder / "mm_bench"), "type": "benchmark"},
            "subsets": ["en"],
        },
        *own_pictures(folder / "pictures"),
    ]
    spec, message = spec_of(folder, benchmarks), folder / "report"
    make_model(folder / "model", "qwen3_vl")
    settings = {
        "TUNESMITH_PORT": str(port),
        "TUNESMITH_TERMINATION_LOG": str(message),
        "HF_HOME": str(folder / "cache"),
    }
    code, _, log = run_verb("fetch", spec, folder / "work", message, settings)
    assert code == 0, log
    code, report, log = run_verb("evaluate", spec, folder / "work", message, settings)
    assert code == 0, log
    (artifact,) = report["artifacts"]
    return Scored(
        {(each["benchmark"], each["metric"]): (each["value"], each["samples"]) for each in report["results"]},
        Path(artifact["uri"].removeprefix("file://")),
    )


@pytest.fixture(scope="module")
def results(scored: Scored) -> dict[tuple[str, str], tuple[float, int]]:
    return scored.results


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


@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        ("vqa", {"accuracy": (0.75, 4), "unreadable": (0.0, 4)}),
        ("ocr", {"editSimilarity": (0.9, 2), "characterErrorRate": (0.1111, 2), "unreadable": (0.0, 2)}),
        ("grounding", {"iou50": (0.3333, 3), "iou": (0.4635, 3), "unreadable": (0.3333, 3)}),
    ],
)
def test_rows_with_pictures_are_asked_and_scored(
    results: dict[tuple[str, str], tuple[float, int]], kind: str, scores: dict[str, tuple[float, int]]
) -> None:
    assert {metric: score for (name, metric), score in results.items() if name == kind} == scores


def test_captions_are_scored_with_the_closest_and_with_all(results: dict[tuple[str, str], tuple[float, int]]) -> None:
    found = {metric: value for (name, metric), (value, _) in results.items() if name == "caption"}
    assert [*found] == ["cider", "rougeL", "bleu", "unreadable"]
    assert found["rougeL"] == 0.5
    assert found["cider"] > 0


def test_evalscopes_benchmarks_of_pictures_are_read_from_a_folder_and_stored_without_the_pictures(
    scored: Scored,
) -> None:
    assert scored.results["mm_bench", "accuracy"] == (0.6667, 3)
    for kind in ("predictions", "reviews"):
        rows = scored.rows("mm_bench", kind)
        assert len(rows) == 3
        assert all("image/jpeg, " in str(row["messages"]) and "base64" not in str(row) for row in rows)


def test_answers_about_pictures_are_shown_beside_them(scored: Scored) -> None:
    for benchmark, questions in {"vqa": 4, "grounding": 3, "mm_bench": 3}.items():
        page = (scored.folder / benchmark / "reports" / "samples.html").read_text()
        assert page.count("<img ") == page.count("<tr><td>") == questions
    assert "turned.jpg" in (scored.folder / "vqa" / "reports" / "samples.html").read_text()
    assert not (scored.folder / "words" / "reports" / "samples.html").exists()
