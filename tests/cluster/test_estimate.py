"""A FineTuneJob's estimate, its refusal and its rows with real pods and the real store, before any device is requested."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devcluster.kubectl import Kubectl
from tests import tinymodel
from tests.cluster.conftest import BUCKET, fine_tune_job
from tests.cluster.test_bad_input import Wait

ROWS = 512
BATCH = {"epochs": 3, "globalBatchSize": ROWS, "microBatchSize": ROWS, "maxLength": 64}
GPU: dict[str, Any] = {"resources": {"accelerator": "nvidia", "deviceMemory": "1Gi"}, "training": BATCH}
"""A device that has not enough memory for all rows at a time."""


@pytest.fixture(scope="module")
def broken(data: str, s3: Any) -> str:
    """URI of rows of which every eighth is broken."""
    lines = [
        json.dumps(row) if (at + 1) % 8 else '{"messages": 1}' for at, row in enumerate(tinymodel.rows(64, seed=5))
    ]
    key = f"{data.removeprefix(f's3://{BUCKET}/')}/every-eighth.jsonl"
    s3.put_object(Bucket=BUCKET, Key=key, Body="\n".join(lines).encode())
    return f"s3://{BUCKET}/{key}"


@pytest.fixture(scope="module")
def statuses(kubectl: Kubectl, namespace: str, data: str, broken: str, wait_for: Wait) -> dict[str, dict[str, Any]]:
    """The final status of each job. All are applied together."""
    dropped = {"datasets": [{"uri": broken}], "onBadRow": "Drop", "maxBadShare": 0.2}
    specs: dict[str, dict[str, Any]] = {
        "estimated": {**GPU, "until": "estimate"},
        "refused": {**GPU, "fit": "Refuse"},
        "dropped": {**dropped, "until": "data"},
    }
    kubectl.apply(*(fine_tune_job(name, namespace, data, **spec) for name, spec in specs.items()))
    return {name: wait_for(f"finetunejob/{name}", minutes=4) for name in specs}


def test_the_estimate_is_in_the_status_the_wide_table_and_the_description(
    statuses: dict[str, dict[str, Any]], kubectl: Kubectl, namespace: str
) -> None:
    status = statuses["estimated"]
    assert (status["phase"], status["reason"]) == ("Succeeded", "Completed"), status
    found = status["estimate"]
    assert found["summary"].startswith("will not fit: needs ")
    assert (found["rows"], found["steps"], found["deviceMemoryBytes"]) == (ROWS, 3, 1 << 30)
    assert found["changes"][0].startswith("spec.training.microBatchSize: ")
    wide = kubectl("get", "finetunejob/estimated", f"--namespace={namespace}", "--output=wide")
    assert "ESTIMATE" in wide.splitlines()[0]
    assert found["summary"] in wide
    assert found["summary"] in kubectl("describe", "finetunejob/estimated", f"--namespace={namespace}")


def test_a_job_that_will_not_fit_fails_with_its_changes_and_never_requests_a_device(
    statuses: dict[str, dict[str, Any]], kubectl: Kubectl, namespace: str
) -> None:
    status = statuses["refused"]
    failure = status["lastFailure"]
    assert (status["phase"], failure["class"]) == ("Failed", "WillNotFit"), status
    assert "on each device, which has 1 GiB" in failure["message"]
    assert failure["hint"].startswith("set spec.training.microBatchSize: ")
    selector = "--selector=tunesmith.dev/name=refused"
    jobs = json.loads(kubectl("get", "jobs", f"--namespace={namespace}", selector, "--output=json"))["items"]
    assert [job["metadata"]["name"] for job in jobs] == ["refused-prepare-1"]
    assert "nvidia.com/gpu" not in json.dumps([job["spec"] for job in jobs])


def test_a_job_that_ends_with_its_data_counts_the_rows_and_leaves_no_run(
    statuses: dict[str, dict[str, Any]], s3: Any, namespace: str
) -> None:
    status = statuses["dropped"]
    assert (status["phase"], status["rows"]["kept"]) == ("Succeeded", 56), status
    assert status["rows"]["dropped"] == [{"reason": "BadRow", "count": 8}]
    assert status["message"].endswith("; 56 rows kept, 8 dropped")
    left = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"store/runs/{namespace}/").get("Contents", [])
    assert [entry["Key"] for entry in left] == []
