"""EvalScope reads benchmarks from the hub and the server that the chart's values name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests import hub_server, tinyvision
from tunesmith_api.run import Hub
from tunesmith_runtime.evaluate.scope import DEFAULT_HUB, data_hub, hub_variables

LOAD = """
import json, sys
from pathlib import Path
from tunesmith_api.evaljob import Benchmark, Generation
from tunesmith_api.run import Hub
from tunesmith_runtime.evaluate import scope
from tunesmith_runtime.evaluate.benchmarks import Task
from tunesmith_runtime.evaluate.endpoint import Endpoint

hub = Hub.model_validate_json(sys.argv[1])
scope.quiet_imports(False, hub)
endpoint = Endpoint(url="http://127.0.0.1:9/v1", key="none", model="m", max_length=None)
config = scope.configuration(Task(Benchmark(name="gsm8k"), "gsm8k"), Generation(), endpoint, Path(sys.argv[2]), hub)
scope.count_questions(Task(Benchmark(name="gsm8k"), "gsm8k"), config, False)
"""


@pytest.mark.parametrize(
    ("values", "hub", "variables"),
    [
        ({}, "modelscope", {}),
        ({"order": ["modelscope", "huggingface"]}, "modelscope", {}),
        ({"order": ["huggingface"]}, "huggingface", {}),
        (
            {"endpoints": {"huggingface": ["https://a.example.com", "https://huggingface.co"]}},
            "modelscope",
            {"HF_ENDPOINT": "https://a.example.com"},
        ),
        (
            {"endpoints": {"modelscope": ["https://b.example.com/"]}},
            "modelscope",
            {"MODELSCOPE_ENDPOINT": "https://b.example.com/", "MODELSCOPE_DOMAIN": "b.example.com"},
        ),
        ({"endpoints": {"modelscope": []}}, "modelscope", {}),
    ],
)
def test_the_charts_values_decide_hub_and_server(values: dict[str, Any], hub: str, variables: dict[str, str]) -> None:
    found = Hub.model_validate(values)
    assert data_hub(found) == hub
    assert hub_variables(found) == variables
    assert hub_variables(DEFAULT_HUB) == {}


@pytest.mark.deep
@pytest.mark.parametrize(("name", "asked"), [("huggingface", "openai/gsm8k"), ("modelscope", "gsm8k")])
def test_a_benchmark_is_asked_of_the_server_of_the_values(tmp_path: Path, name: str, asked: str) -> None:
    with hub_server.hub({}) as server:
        hub = json.dumps({"order": [name], "endpoints": {name: [server.url]}})
        command = [sys.executable, "-c", LOAD, hub, str(tmp_path)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode != 0
        assert any(asked in request for request in server.asked), process.stderr[-2000:]


COUNT = """
import json, sys
from pathlib import Path
from tunesmith_api.evaljob import Benchmark, Generation
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate import scope
from tunesmith_runtime.evaluate.benchmarks import prepare
from tunesmith_runtime.evaluate.endpoint import Endpoint
from tunesmith_runtime.workdir import Work

work, found = Work(Path(sys.argv[1])), {}
scope.quiet_imports(True)
endpoint = Endpoint(url="http://127.0.0.1:9/v1", key="none", model="m", max_length=None)
for name, subsets in json.loads(sys.argv[2]).items():
    dataset = {"uri": "s3://data/" + name, "type": "benchmark"}
    task = prepare(Benchmark.model_validate({"name": name, "dataset": dataset, "subsets": subsets}), Generation(), work)
    try:
        found[name] = scope.count_questions(task, scope.configuration(task, Generation(), endpoint, work.run / name), False)
    except RunFailure as failure:
        found[name] = str(failure.message)
Path(sys.argv[3]).write_text(json.dumps(found))
"""
"""Counts the questions of benchmarks in a work directory, by name and subsets."""
PICTURE = {"bytes": tinyvision.picture("red"), "path": None}
HUB_FOLDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mmmu": (
        "Art",
        "validation",
        {
            "id": "1", "question": "<image 1> shows?", "options": "['red', 'blue']", "answer": "A", "question_type": "multiple-choice",
            "image_1": PICTURE, "subfield": "s", "explanation": "", "img_type": "['Photographs']", "topic_difficulty": "Easy",
        },
    ),
    "chartqa": ("default", "test", {"type": "human_test", "question": "How many?", "answer": "2", "image": PICTURE}),
    "docvqa": ("DocVQA", "validation", {"questionId": "1", "question": "Date?", "answers": ["1 May"], "image": PICTURE}),
    "ocr_bench": (
        "default",
        "test",
        {"dataset": "d", "question": "Text?", "question_type": "Regular Text Recognition", "answer": ["x"], "image": PICTURE},
    ),
    "math_vista": (
        "default",
        "testmini",
        {
            "question": "1 + 1?", "question_type": "free_form", "answer_type": "integer", "answer": "2", "precision": 0.0, "choices": None,
            "decoded_image": PICTURE, "metadata": {"task": "t"},
        },
    ),
}  # fmt: skip
"""Benchmarks of pictures: configuration, split and a row as their hubs have them."""


@pytest.mark.deep
def test_benchmarks_of_pictures_are_read_from_folders_or_refused(tmp_path: Path) -> None:
    for name, (configuration, split, row) in HUB_FOLDERS.items():
        folder = tmp_path / "benchmarks" / name
        folder.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / "rows.parquet")
        files = f"data_files: [{{split: {split}, path: rows.parquet}}]"
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {configuration}\n  {files}\n---\n")
    for name in ("mia_bench", "refcoco"):
        (tmp_path / "benchmarks" / name).mkdir()
    subsets = {"mmmu": ["Art"], "ocr_bench": ["Regular Text Recognition"], "chartqa": ["human_test"]}
    asked = json.dumps({name: subsets.get(name) for name in (*HUB_FOLDERS, "mia_bench", "refcoco")})
    settings = {"HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", COUNT, str(tmp_path), asked, str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | settings)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert {name: found[name] for name in HUB_FOLDERS} == dict.fromkeys(HUB_FOLDERS, 1)
    assert "has no usable rule-based scoring" in found["mia_bench"]
    assert "needs packages that the runtime image does not have" in found["refcoco"]
