"""kstatus and Argo CD judge the status of each phase correctly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from tests.unit.operator.plan.recorded import SCENES, scenes
from tests.unit.operator.plan.world import check_status
from tunesmith_operator.plan.phases import Phase
from tunesmith_operator.plan.types import Raw

ROOT = Path(__file__).parents[4]
HEALTH = yaml.safe_load((ROOT / "examples" / "gitops" / "argocd-health.yaml").read_text())["data"]
EACH = pytest.mark.parametrize("name", SCENES)


@EACH
def test_each_scene_has_its_phase_and_reason(name: str) -> None:
    scene = scenes()[name]
    status = scene.resource["status"]
    assert (status.get("phase", ""), status.get("reason", "")) == (scene.phase, scene.reason)
    if scene.phase:
        check_status(scene.resource["kind"], status)


def test_every_phase_has_a_scene() -> None:
    assert {scene.phase for scene in scenes().values()} - {""} == {*Phase}


def judge(resource: Raw) -> Any:
    """The result of the health script in Argo CD's Lua: version 5.1 without libraries except `table`."""
    lua = LuaRuntime(register_eval=False, unpack_returned_tuples=True)
    for library in ("string", "math", "io", "os", "debug", "coroutine", "package", "python"):
        lua.globals()[library] = None
    lua.globals().obj = lua.table_from(resource, recursive=True)
    return lua.execute(HEALTH[f"resource.customizations.health.tunesmith.dev_{resource['kind']}"])


@EACH
def test_argo_cd_shows_the_health(name: str) -> None:
    scene = scenes()[name]
    health = judge(scene.resource)
    assert health.status == scene.health
    assert health.message


@pytest.mark.parametrize("status", [None, {}, {"observedGeneration": 1}, {"observedGeneration": 1, "conditions": []}])
def test_argo_cd_does_not_take_a_resource_without_status_for_healthy(status: Raw | None) -> None:
    resource = {"kind": "FineTuneJob", "metadata": {"generation": 1}, **({} if status is None else {"status": status})}
    assert judge(resource).status == "Progressing"


def test_argo_cd_shows_a_deletion_as_progressing() -> None:
    resource = dict(scenes()["FineTuneJob Succeeded"].resource)
    resource["metadata"] = {**resource["metadata"], "deletionTimestamp": "2026-11-22T12:00:00Z"}
    assert judge(resource).status == "Progressing"


@EACH
def test_ready_and_current_agree_except_at_rest_and_during_a_rollout(name: str) -> None:
    scene = scenes()[name]
    at_rest = scene.reason in ("Suspended", "ScaledToZero")
    still_answers = scene.phase in ("RollingOut", "RolledBack") and scene.reason != "RolloutTimeout"
    assert scene.is_ready == ((scene.kstatus == "Current" and not at_rest) or still_answers)


@EACH
def test_every_condition_is_about_the_observed_generation(name: str) -> None:
    status = scenes()[name].resource["status"]
    observed = {condition["observedGeneration"] for condition in status.get("conditions", [])}
    assert observed <= {status["observedGeneration"]}
