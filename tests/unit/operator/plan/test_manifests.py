"""Manifests of children against golden files; `TUNESMITH_UPDATE_GOLDENS=1 pytest …` rewrites them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.operator.plan.manifests import CHILDREN, POD, RESOURCES, TEMPLATES
from tests.unit.operator.plan.world import Cluster, eval_job, fine_tune_job, inference_service, token
from tunesmith_operator.plan import KINDS

GOLDENS = Path(__file__).parent / "goldens"
UPDATE = os.environ.get("TUNESMITH_UPDATE_GOLDENS") == "1"


class Plain(yaml.SafeDumper):
    """YAML without anchors, and text of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize("name", CHILDREN)
def test_the_children_are_as_in_the_golden_file(name):
    text = yaml.dump_all(CHILDREN[name], Dumper=Plain, sort_keys=False, width=1_000_000)
    golden = GOLDENS / f"{name}.yaml"
    if UPDATE:
        GOLDENS.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text, "changed on purpose? TUNESMITH_UPDATE_GOLDENS=1"


def test_every_golden_file_has_a_resource():
    assert {path.stem for path in GOLDENS.glob("*.yaml")} == set(CHILDREN)


def test_a_preparation_pod_runs_on_any_node():
    spec = TEMPLATES["finetunejob-nvidia/support-prepare-1"]["spec"]
    assert not {"initContainers", "runtimeClassName", "affinity", "subdomain"} & set(spec)
    assert spec["tolerations"] == POD["tolerations"]


def test_a_job_has_the_hash_of_its_token_and_only_its_pod_the_token():
    (job,) = CHILDREN["finetunejob-cpu"]
    secret = token("uid-of-support", "support-tune-1")
    assert job["metadata"]["annotations"]["tunesmith.dev/progress-token-sha256"] == (
        hashlib.sha256(secret.encode()).hexdigest()
    )
    assert secret not in json.dumps(job["metadata"])
    assert secret not in json.dumps(job["spec"]["template"]["metadata"])


def test_a_service_has_no_progress_token_which_would_create_a_version_at_each_restart():
    assert "TUNESMITH_PROGRESS_TOKEN" not in json.dumps(CHILDREN["inferenceservice-cpu"])


@pytest.mark.parametrize("name", CHILDREN)
def test_a_child_is_owned_and_labelled(name):
    for child in CHILDREN[name]:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("uid-of-support", True, True)
        assert child["metadata"]["labels"]["tunesmith.dev/uid"] == "uid-of-support"
        assert child["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "tunesmith"
        assert child["metadata"]["namespace"] == "team"


def test_the_longest_name_leaves_room_for_its_children():
    name = "a" * 45
    for thing in (fine_tune_job(name), eval_job(name, baseline={"uri": "s3://m/b"}), inference_service(name)):
        cluster = Cluster(thing)
        cluster.settle()
        for child in [*cluster.jobs, *cluster.deployments, *cluster.services]:
            assert len(f"{child.removesuffix('1')}999" if child in cluster.jobs else child) <= 63, child


@pytest.mark.parametrize("name", RESOURCES)
def test_the_selector_of_a_child_matches_its_pods(name):
    for child in CHILDREN[name]:
        wanted = child["spec"].get("selector", {})
        wanted = wanted.get("matchLabels", wanted)
        manifests = (child, *CHILDREN[name])
        templates = [manifest["spec"]["template"] for manifest in manifests if "template" in manifest["spec"]]
        assert any(wanted.items() <= template["metadata"]["labels"].items() for template in templates)


def test_a_kind_reads_every_kind_of_child_that_it_creates():
    for name, manifests in CHILDREN.items():
        kind = KINDS[RESOURCES[name]["kind"]]
        fixed = {key.kind for key in kind.gets(RESOURCES[name])}
        assert {child["kind"] for child in manifests} <= fixed | set(kind.lists)
