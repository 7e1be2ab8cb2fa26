"""What a real operator exposes: figures that are right, also after a restart, and all that alerts and dashboards ask for."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.apiserver.chain import evaluated
from tests.apiserver.cluster import Cluster, Kubelet, Raw
from tests.apiserver.conftest import StartOperator
from tests.apiserver.finetunejobs import MESSAGES, REPORTS, started, tune, tune_on_devices
from tests.apiserver.operator_process import OperatorProcess
from tests.apiserver.test_operator_life import token_of
from tests.unit.chart.monitoring import ALERTS, METRIC, TARGET, exposed, promtool, queries, unknown
from tests.unit.chart.test_monitoring import TESTS

REPORT = {
    "stage": "train",
    "step": 3,
    "totalSteps": 30,
    "epoch": 0.1,
    "loss": 2.5,
    "evalLoss": 2.75,
    "tokensPerSecond": 900.0,
    "etaSeconds": 60,
}
TOKENS = {
    **MESSAGES,
    "train": json.dumps({**REPORTS["train"], "metrics": {"trainLoss": 0.5, "steps": 30, "tokens": 4096}}),
}
TOKENS["export"] = json.dumps({**REPORTS["export"], "metrics": {"trainLoss": 0.5, "steps": 30, "tokens": 4096}})
BAD_ROW = json.dumps({"verb": "fetch", "outcome": "Failed", "failure": {"class": "BadRow", "message": "line 17"}})
EVAL: Raw = {
    "model": {"uri": "s3://models/base"},
    "benchmarks": [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}],
    "gates": [{"benchmark": "words", "metric": "accuracy", "min": 0.5}],
}
SERVE: Raw = {"model": {"uri": "s3://models/base"}, "promotion": {"evalJobs": [{"name": "evaluated"}]}}
DEVICE = {"resources": {"accelerator": "nvidia", "count": 2}}


def populate(cluster: Cluster, operator: OperatorProcess) -> None:
    """A little of everything, while the operator watches."""
    running = started(cluster, "running")
    running.runs("train")
    tune(cluster, "waiting", model={"fineTuneJob": {"name": "absent"}})
    tune(cluster, "unplaced")
    Kubelet(cluster, cluster.pod_of("unplaced-tune-1")).unschedulable("0/3 nodes are available: 3 Insufficient cpu.")
    tune_on_devices(cluster, "done", **DEVICE)
    done = Kubelet(cluster, cluster.pod_of("done-tune-1"))
    done.bind()
    done.runs("train")
    cluster.until_phase("FineTuneJob", "done", "Running")
    done.ends(TOKENS)
    started(cluster, "failed").ends({}, {"fetch": {"exitCode": 65, "message": BAD_ROW}})
    for kind, name, spec in (("EvalJob", "evaluated", EVAL), ("InferenceService", "served", SERVE)):
        cluster.create({"kind": kind, "metadata": {"name": name}, "spec": spec})
    scored = Kubelet(cluster, cluster.pod_of("evaluated-eval-model-1"))
    scored.bind()
    scored.ends(evaluated(0.9, "d" * 64))
    labels = "tunesmith.dev/role=serve"
    [served] = cluster.until("a pod that serves", lambda: cluster.find("Pod", labels))
    Kubelet(cluster, served).bind()
    Kubelet(cluster, served).ready()
    cluster.until_phase("InferenceService", "served", "Ready")
    cluster.until_phase("FineTuneJob", "running", "Running")
    assert operator.push(token_of(running), REPORT) == 204
    cluster.until("progress", lambda: (cluster.get("FineTuneJob", "running") or {})["status"].get("progress"))
    for name, phase in (("done", "Succeeded"), ("failed", "Failed")):
        cluster.until_phase("FineTuneJob", name, phase)
    cluster.until(
        "a pod without a node",
        lambda: (cluster.get("FineTuneJob", "unplaced") or {})["status"].get("reason") == "Unschedulable",
    )


def series(text: str, namespace: str) -> dict[str, float]:
    """The gauges of the resources of a namespace: `name{labels}` and value."""
    return {
        f"{sample.name}{json.dumps({**sample.labels, 'namespace': ''}, sort_keys=True)}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.type == "gauge" and sample.labels.get("namespace") == namespace
    }


def value_of(text: str, name: str, /, **labels: str) -> float | None:
    """The value of one series."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return next((sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)), None)


def test_figures_are_right_and_the_same_after_a_restart(cluster: Cluster, start_operator: StartOperator) -> None:
    first = start_operator("operator-0")
    populate(cluster, first)
    place: dict[str, str] = {"kind": "FineTuneJob", "namespace": cluster.namespace}
    status = (cluster.get("FineTuneJob", "done") or {})["status"]
    used = 3600 * status["acceleratorHours"]

    def figures(text: str) -> dict[str, Any]:
        return {
            "running": value_of(text, "tunesmith_resources", phase="Running", **place),
            "succeeded": value_of(text, "tunesmith_resources", phase="Succeeded", **place),
            "failed": value_of(text, "tunesmith_resources", phase="Failed", **place),
            "bad rows": value_of(text, "tunesmith_resources_last_failure", **place, **{"class": "BadRow"}),
            "device seconds": value_of(text, "tunesmith_resources_accelerator_seconds", accelerator="nvidia", **place),
            "tokens": value_of(text, "tunesmith_resources_trained_tokens", namespace=cluster.namespace),
            "passed": value_of(text, "tunesmith_resources_verdict", namespace=cluster.namespace, verdict="Passed"),
            "promoted": value_of(
                text, "tunesmith_resources_promotion", namespace=cluster.namespace, promotion="Promoted"
            ),
            "without answer": value_of(text, "tunesmith_resources_unavailable", namespace=cluster.namespace),
            "loss": value_of(text, "tunesmith_job_loss", name="running", **place),
        }

    wanted = {
        "running": 1,
        "succeeded": 1,
        "failed": 1,
        "bad rows": 1,
        "device seconds": pytest.approx(used),
        "tokens": 4096,
        "passed": 1,
        "promoted": 1,
        "without answer": 0,
        "loss": 2.5,
    }
    done = ("running", "succeeded", "failed", "loss")
    cluster.until("the streams", lambda: None not in [figures(first.probe("/metrics")[1])[name] for name in done])
    before = first.probe("/metrics")[1]
    assert figures(before) == wanted
    assert value_of(before, "tunesmith_finished_total", phase="Failed", **place) == 1
    assert value_of(before, "tunesmith_failures_total", **place, **{"class": "BadRow"}) == 1
    assert value_of(before, "tunesmith_trained_tokens_total", namespace=cluster.namespace) == 4096
    assert first.stop() == 0

    second = start_operator("operator-1")
    cluster.until("it leads", second.leads)
    same = series(before, cluster.namespace)
    cluster.until("the same figures", lambda: series(second.probe("/metrics")[1], cluster.namespace) == same)
    assert value_of(second.probe("/metrics")[1], "tunesmith_finished_total", phase="Failed", **place) == 0


@pytest.fixture(scope="module")
def scraped() -> dict[str, str]:
    """What the operator of the module exposed when there was a little of everything."""
    return {}


@pytest.fixture
def exposition(cluster: Cluster, operator: OperatorProcess, scraped: dict[str, str]) -> str:
    if not scraped:
        populate(cluster, operator)
        place = {"kind": "FineTuneJob", "namespace": cluster.namespace, "class": "Unschedulable"}
        last = "tunesmith_resources_not_starting_since_timestamp_seconds"
        scraped["text"] = cluster.until(
            "the streams", lambda: text if value_of(text := operator.probe("/metrics")[1], last, **place) else None
        )
    return scraped["text"]


def test_alerts_and_dashboards_ask_for_nothing_that_is_not_exposed(exposition: str) -> None:
    there = exposed(exposition)
    asked = [
        *queries(),
        *((f"alert {alert['alert']}", alert["expr"], alert["annotations"]["summary"]) for alert in ALERTS),
    ]
    missing = {where: lacks for where, query, legend in asked if (lacks := unknown(query, legend, there))}
    assert not missing


def test_the_alerts_are_tried_on_series_as_they_are_exposed(exposition: str) -> None:
    there = exposed(exposition)
    tried = [series["series"] for test in yaml.safe_load(TESTS.read_text())["tests"] for series in test["input_series"]]
    for line in tried:
        ((sample,),) = (family.samples for family in text_string_to_metric_families(f"{line} 1\n"))
        assert frozenset(sample.labels) - (TARGET - {"namespace"}) - there[sample.name] <= {"namespace"}, line
        assert there[sample.name] <= frozenset(sample.labels), line


def test_prometheus_answers_every_query_of_the_dashboards(exposition: str, tmp_path: Path) -> None:
    """By its own engine, on the series as they were scraped: an absent answer is an alert, and none may be."""
    asked = [(where, query) for where, query, _ in queries() if not query.startswith("label_values(")]
    rules = [{"alert": f"Q{number}", "expr": f"absent({filled(query)})"} for number, (_, query) in enumerate(asked)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    cases = [{"alertname": rule["alert"], "eval_time": "20m", "exp_alerts": []} for rule in rules]
    test = {"interval": "1m", "input_series": list(constant(exposition)), "alert_rule_test": cases}
    suite = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(suite))
    done: subprocess.CompletedProcess[str] = promtool("test", "rules", str(tmp_path / "test.yaml"))
    names = "\n".join(f"Q{number} {where}: {query}" for number, (where, query) in enumerate(asked))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{names}"


def filled(query: str) -> str:
    """A query with values for Grafana's variables: the fleet's and the operator's namespaces are patterns, a job's is one."""
    query = query.replace('="$namespace"', '=~".*"')
    values = {"namespace": ".*", "operator": ".*", "name": "running", "kind": "FineTuneJob"}
    times = {"__range": "10m", "__rate_interval": "5m"}
    return re.sub(r"\$(\w+)", lambda found: {**values, **times}[found[1]], query)


def constant(text: str) -> Iterator[dict[str, str]]:
    """The series of an exposition as promtool reads them: for twenty minutes as they are, from one pod."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {"namespace": "tunesmith-system", "pod": "operator-0", **sample.labels}
            inner = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
            yield {"series": f"{sample.name}{{{inner}}}", "values": f"{sample.value:f}x20"}


def test_the_names_keep_prometheus_conventions(exposition: str) -> None:
    """By promtool's own linter; the unit of time is the second, and only counters end in _total."""
    ours = "\n".join(
        line for line in exposition.splitlines() if METRIC.match(line.removeprefix("# HELP ").removeprefix("# TYPE "))
    )
    done = promtool("check", "metrics", stdin=ours + "\n")
    assert done.returncode == 0, done.stdout + done.stderr
