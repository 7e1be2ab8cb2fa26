"""kustomize renames our references with the objects that they name, by examples/kustomize/tunesmith-names.yaml."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.paths import cache_paths
from tests.manifests import load_all

ROOT = Path(__file__).resolve().parents[2]
NAMES = ROOT / "examples" / "kustomize" / "tunesmith-names.yaml"
Manifest = dict[str, Any]

CATALOGUE = {
    *("model/name", "baseline/name", "datasets/name", "validation/datasets/name"),
    *("decontaminate/name", "benchmarks/dataset/name", "gkd/teacher/name", "rewards/model/name"),
}
NO_REFERENCES = {
    *(
        "benchmarks/name",
        "adapters/name",
        "pod/env/name",
        "autoscaling/metric/name",
        "pod/schedulerName",
        "rewards/name",
    ),
    *CATALOGUE,
}
"""Names that no manifest has."""
POD = {
    "serviceAccountName": "account",
    "imagePullSecrets": [{"name": "pull"}],
    "priorityClassName": "batch",
    "runtimeClassName": "gpu",
}
STORAGE = {"credentialsSecret": "store", "caBundle": {"name": "ca"}}
COMMON = {"pod": POD, "storage": STORAGE}
TUNED = {"fineTuneJob": {"name": "tune"}}
SERVED = {"inferenceService": {"name": "serve"}}


def ours(kind: str, name: str, **spec: Any) -> Manifest:
    return {"apiVersion": "tunesmith.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def other(api_version: str, kind: str, name: str, **fields: Any) -> Manifest:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **fields}


RESOURCES = [
    ours("FineTuneJob", "tune", model={"uri": "s3://models/base"}, queueName="gpus", **COMMON),
    ours("FineTuneJob", "again", model=TUNED, training={"chatTemplate": {"configMap": {"name": "ca", "key": "t"}}}),
    ours(
        "FineTuneJob",
        "sampled",
        model=TUNED,
        rewards=[
            {"judge": {"apiKeySecret": "key"}},
            {"code": {"configMap": {"name": "ca", "key": "t"}}},
            {"model": TUNED},
        ],
    ),
    ours("EvalJob", "score", model=TUNED, baseline=SERVED, benchmarks=[{"name": "tune"}], queueName="gpus", **COMMON),
    ours("EvalJob", "score-served", model=SERVED, baseline=TUNED),
    ours(
        "InferenceService",
        "serve",
        model=TUNED,
        promotion={"evalJobs": [{"name": "score"}, {"name": "score-served"}]},
        adapters=[{"name": "tune", **TUNED}, {"name": "fr", "fineTuneJob": {"name": "again"}}],
        apiKeySecret="key",
        **COMMON,
    ),
    *(other("v1", "Secret", name) for name in ("store", "pull", "key")),
    other("v1", "ConfigMap", "ca"),
    other("v1", "ServiceAccount", "account"),
    other("scheduling.k8s.io/v1", "PriorityClass", "batch"),
    other("node.k8s.io/v1", "RuntimeClass", "gpu"),
    other("kueue.x-k8s.io/v1beta1", "LocalQueue", "gpus"),
]


def kustomize(folder: Path) -> list[Manifest]:
    command = [cache_paths().program("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_all(done.stdout)


def leaves(thing: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Paths without the positions in lists, and their values."""
    if isinstance(thing, dict):
        for name, below in thing.items():
            yield from leaves(below, f"{path}/{name}" if path else name)
    elif isinstance(thing, list):
        for below in thing:
            yield from leaves(below, path)
    else:
        yield path, thing


def spec_of(manifest: Manifest) -> list[tuple[str, Any]]:
    return sorted(leaves(manifest.get("spec", {})))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The manifests, with the configuration beside them as its header describes."""
    shutil.copy(NAMES, tmp_path)
    (tmp_path / "resources.yaml").write_text("\n---\n".join(map(json.dumps, RESOURCES)))
    return tmp_path


def built(folder: Path, **settings: Any) -> list[Manifest]:
    content = {"resources": ["resources.yaml"], "configurations": [NAMES.name], **settings}
    (folder / "kustomization.yaml").write_text(json.dumps(content))
    return kustomize(folder)


@pytest.mark.parametrize(
    "settings", [{"namePrefix": "dev-"}, {"nameSuffix": "-v2"}, {"namePrefix": "a-", "nameSuffix": "-b"}]
)
def test_every_reference_follows_the_name_of_its_object(folder: Path, settings: dict[str, str]) -> None:
    def renamed(name: str) -> str:
        return f"{settings.get('namePrefix', '')}{name}{settings.get('nameSuffix', '')}"

    made = {(each["kind"], each["metadata"]["name"]): each for each in built(folder, **settings)}
    for before in RESOURCES:
        after = made[before["kind"], renamed(before["metadata"]["name"])]
        expected = [(path, renamed(value) if path in REFERENCES else value) for path, value in spec_of(before)]
        assert spec_of(after) == sorted(expected), before["kind"]


def test_generated_objects_are_referenced_by_their_hashed_names(folder: Path) -> None:
    (folder / "resources.yaml").write_text(json.dumps(RESOURCES[0]))
    generator = [{"name": "store", "literals": ["AWS_ACCESS_KEY_ID=k"]}]
    job, secret = sorted(built(folder, secretGenerator=generator), key=lambda manifest: manifest["kind"])
    assert secret["metadata"]["name"].startswith("store-")
    assert job["spec"]["storage"]["credentialsSecret"] == secret["metadata"]["name"]


def named_in_the_crds() -> set[str]:
    """Every field of a spec that may be the name of something."""
    found: set[str] = set()

    def walk(schema: Manifest, path: list[str]) -> None:
        properties = schema.get("items", schema).get("properties", {})
        for name, below in properties.items():
            walk(below, [*path, name])
        if not properties and (path[-1] in ("name", "queueName") or path[-1].endswith(("Secret", "Name"))):
            found.add("/".join(path))

    for file in (ROOT / "crds").glob("*.yaml"):
        [crd] = load_all(file.read_text())
        version = crd["spec"]["versions"][0]
        for name, below in version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].items():
            walk(below, [name])
    return found


REFERENCES = named_in_the_crds() - NO_REFERENCES


def test_the_configuration_lists_every_reference_field() -> None:
    configured = yaml.safe_load(NAMES.read_text())["nameReference"]
    paths = {spec["path"].removeprefix("spec/") for rule in configured for spec in rule["fieldSpecs"]}
    assert paths == REFERENCES


def test_the_example_builds_with_its_references_intact() -> None:
    built = {manifest["kind"]: manifest for manifest in kustomize(NAMES.parent)}
    name = built["FineTuneJob"]["metadata"]["name"]
    assert name == "nightly-words"
    assert built["EvalJob"]["spec"]["model"]["fineTuneJob"]["name"] == name
    assert built["InferenceService"]["spec"]["promotion"]["evalJobs"] == [
        {"name": built["EvalJob"]["metadata"]["name"]}
    ]
