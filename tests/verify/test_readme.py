"""The operator of the README's install accepts the README's resources."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import yaml

from devcluster.paths import cache_paths
from tests.commands import commands
from tests.unit.operator.plan.world import Cluster, resource
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.pods.storage import resolve

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def configured() -> OperatorConfig:
    """The operator's configuration after the install command of the README."""
    [install] = [each.text for each in commands("README.md", README) if each.text.startswith("helm install ")]
    arguments = [each for each in shlex.split(install)[2:] if each != "--create-namespace"]
    command = [cache_paths().program("helm"), "template", *arguments, "--show-only", "templates/configmap.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return OperatorConfig.model_validate(yaml.safe_load(yaml.safe_load(done.stdout)["data"]["config.yaml"]))


def test_the_three_resources_start_under_the_readmes_install() -> None:
    """No engine has an image there, and the chain asks for GPUs."""
    [chain] = [text for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if text.count("kind:") == 3]
    phases = {}
    for manifest in yaml.safe_load_all(chain):
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        cluster = Cluster(resource(kind, manifest["spec"], name), config=configured())
        cluster.settle()
        phases[kind] = cluster.status["phase"]
    assert phases == {"FineTuneJob": "Preparing", "EvalJob": "Waiting", "InferenceService": "Waiting"}


def test_the_readmes_store_is_addressed_by_path() -> None:
    store = resolve(None, configured().store).store
    assert store.endpoint == "https://s3.example.com"
    assert store.path_style
