"""A status of every phase, as a real API server stores it, in kubectl's tables, `kubectl wait` and kstatus."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import urllib3

from devcluster.builds import ensure_programs
from devcluster.standalone import ControlPlane
from tests.apiserver.cluster import KINDS, Cluster, Raw
from tests.apiserver.conftest import NAMES, make_namespace
from tests.apiserver.scope import leave
from tests.unit.operator.plan.recorded import SUMMARY, scenes

OURS = ("FineTuneJob", "EvalJob", "InferenceService")
EACH_KIND = pytest.mark.parametrize("kind", OURS)
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
Judge = Callable[[Iterable[Raw]], list[str]]


@pytest.fixture(scope="module")
def kstatus(plane: ControlPlane) -> Judge:
    """The kstatus of objects, by the library that Flux uses."""
    ensure_programs(plane.paths, ["kstatus"])

    def judge(objects: Iterable[Raw]) -> list[str]:
        text = "\n".join(json.dumps({"apiVersion": "tunesmith.dev/v1alpha1", **each}) for each in objects)
        done = subprocess.run([plane.program("kstatus")], input=text, capture_output=True, text=True, check=True)
        return [json.loads(line)["status"] for line in done.stdout.splitlines()]

    return judge


@pytest.fixture(scope="module")
def shelf(plane: ControlPlane, http: urllib3.PoolManager) -> Iterator[Cluster]:
    """A namespace with the resource of every scene and without an operator."""
    cluster = Cluster(plane, http, next(NAMES))
    make_namespace(cluster)
    for name, scene in scenes().items():
        kind, spec, status = (scene.resource[part] for part in ("kind", "spec", "status"))
        cluster.create({"kind": kind, "metadata": {"name": slug(name)}, "spec": spec})
        if scene.phase:
            kept = cluster.patch(kind, slug(name), {"status": status}, "status")["status"]
            assert kept == status, f"{name}: the API server has dropped fields"
    yield cluster
    leave(cluster)


def slug(name: str) -> str:
    """The name of a scene's resource."""
    return re.sub(r"[^a-z]+", "-", name.lower())


def table(cluster: Cluster, kind: str, wide: bool = False) -> dict[str, dict[str, Any]]:
    """The table that `kubectl get` prints: name of the resource -> column -> cell, without ages."""
    url = f"{cluster.plane.url}{KINDS[kind].path(cluster.namespace)}"
    answer = json.loads(cluster.http.request("GET", url, headers={"Accept": TABLE}).data)
    columns = answer["columnDefinitions"]
    hidden = {"AGE", "Name", *(column["name"] for column in columns if column["priority"] and not wide)}
    return {
        row["object"]["metadata"]["name"]: {
            column["name"]: cell
            for column, cell in zip(columns, row["cells"], strict=True)
            if column["name"] not in hidden
        }
        for row in answer["rows"]
    }


def test_flux_judges_each_phase_correctly(kstatus: Judge) -> None:
    verdicts = kstatus(scene.resource for scene in scenes().values())
    assert dict(zip(scenes(), verdicts, strict=True)) == {name: scene.kstatus for name, scene in scenes().items()}


@EACH_KIND
def test_flux_does_not_take_a_resource_without_status_for_complete(shelf: Cluster, kstatus: Judge, kind: str) -> None:
    spec = next(scene.resource["spec"] for scene in scenes().values() if scene.resource["kind"] == kind)
    shelf.create({"kind": kind, "metadata": {"name": "no-status"}, "spec": spec})
    try:
        assert kstatus([shelf.get(kind, "no-status") or {}]) == ["InProgress"]
    finally:
        shelf.delete(kind, "no-status")


@EACH_KIND
def test_every_line_has_phase_and_reason(shelf: Cluster, kind: str) -> None:
    shown = {name: (cells["PHASE"] or "", cells["REASON"] or "") for name, cells in table(shelf, kind).items()}
    assert shown == {
        slug(name): (scene.phase, scene.reason) for name, scene in scenes().items() if scene.resource["kind"] == kind
    }


@EACH_KIND
def test_the_wide_table_has_the_message(shelf: Cluster, kind: str) -> None:
    for name, cells in table(shelf, kind, wide=True).items():
        assert cells["MESSAGE"] or name.endswith("-new"), name


AT_A_GLANCE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "FineTuneJob Running": (
        {"PHASE": "Running", "REASON": "Running", "PROGRESS": 33, "LOSS": 0.7312},
        {"METHOD": "sft", "MODEL": "hf://Qwen/Qwen3-8B", "ETA": 260, "ESTIMATE": None, "MESSAGE": "running"},
    ),
    "FineTuneJob Pending, no node": (
        {"PHASE": "Pending", "REASON": "Unschedulable", "PROGRESS": None, "LOSS": None},
        {"METHOD": "sft", "MODEL": "hf://Qwen/Qwen3-8B", "ETA": None, "ESTIMATE": None},
    ),
    "FineTuneJob Failed": (
        {"PHASE": "Failed", "REASON": "BadRow", "PROGRESS": None, "LOSS": None},
        {"METHOD": "sft", "MODEL": "hf://Qwen/Qwen3-8B", "ETA": None, "ESTIMATE": None},
    ),
    "FineTuneJob Succeeded": (
        {"PHASE": "Succeeded", "REASON": "Completed", "PROGRESS": 100, "LOSS": None},
        {"METHOD": "sft", "MODEL": "hf://Qwen/Qwen3-8B", "ETA": None, "ESTIMATE": None},
    ),
    "FineTuneJob Succeeded, estimated": (
        {"PHASE": "Succeeded", "REASON": "Completed", "PROGRESS": None, "LOSS": None},
        {"METHOD": "sft", "MODEL": "hf://Qwen/Qwen3-8B", "ETA": None, "ESTIMATE": SUMMARY, "MESSAGE": SUMMARY},
    ),
    "EvalJob Running": (
        {"PHASE": "Running", "REASON": "Running", "SCORE": None, "VERDICT": None},
        {"PROGRESS": 30, "MODEL": "s3://store/m/1", "MESSAGE": "running"},
    ),
    "EvalJob Succeeded, not passed": (
        {"PHASE": "Succeeded", "REASON": "GatesFailed", "SCORE": "0.35", "VERDICT": "Failed"},
        {"PROGRESS": None, "MODEL": "s3://store/m/1"},
    ),
    "InferenceService Ready": (
        {"PHASE": "Ready", "REASON": "Serving", "READY": 2, "REPLICAS": 2, "URL": "http://support.team.svc/v1"},
        {"MODEL": "s3://models/a", "ENGINE": "transformers", "MESSAGE": "2 of 2 pods are ready"},
    ),
    "InferenceService Blocked": (
        {"PHASE": "Blocked", "REASON": "PromotionBlocked", "READY": 0, "REPLICAS": 0, "URL": None},
        {"MODEL": None, "ENGINE": None},
    ),
}


@pytest.mark.parametrize("name", AT_A_GLANCE)
def test_the_columns_show_the_progress_and_the_result(shelf: Cluster, name: str) -> None:
    narrow, more = AT_A_GLANCE[name]
    kind = scenes()[name].resource["kind"]
    assert table(shelf, kind)[slug(name)] == narrow
    wide = table(shelf, kind, wide=True)[slug(name)]
    assert {column: cell for column, cell in wide.items() if column != "MESSAGE" or column in more} == {
        **narrow,
        **more,
    }


READY, NOT_READY = (
    {"Succeeded", "Ready"},
    {"Waiting", "Queued", "Pending", "Preparing", "Running", "Suspended", "Blocked"},
)
"""Phases that determine whether a resource is ready; in the others an earlier version may still answer."""


@EACH_KIND
def test_kubectl_wait_returns_when_it_is_ready_and_not_before(shelf: Cluster, kind: str) -> None:
    scenes_of_kind = {
        slug(name): scene for name, scene in scenes().items() if scene.phase and scene.resource["kind"] == kind
    }
    command = [shelf.plane.program("kubectl"), "--kubeconfig", str(shelf.plane.kubeconfig)]
    command += ["--namespace", shelf.namespace, "wait", "--for=condition=Ready", "--timeout=0", kind.lower()]
    done = subprocess.run([*command, *scenes_of_kind], capture_output=True, text=True, check=False)
    ready = {name for name in scenes_of_kind if f"/{name} condition met\n" in done.stdout}
    not_yet = {name for name in scenes_of_kind if f"/{name}\n" in done.stderr}
    assert ready | not_yet == scenes_of_kind.keys(), done.stderr
    assert ready == {name for name, scene in scenes_of_kind.items() if scene.is_ready}
    assert {
        name for name, scene in scenes_of_kind.items() if scene.phase in READY and scene.reason != "ScaledToZero"
    } <= ready
    assert not {name for name, scene in scenes_of_kind.items() if scene.phase in NOT_READY} & ready
