"""EvalScope reads benchmarks from the hub and the server that the chart's values name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import hub_server
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
