"""Refusals by the administrator's policy, for every kind and notation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.plan.world import CONFIG, Cluster, eval_job, fine_tune_job, inference_service
from tunesmith_api.pods import PodSettings
from tunesmith_api.tracking import SERVERS, TrackerName
from tunesmith_operator.plan.config import PodPolicy
from tunesmith_operator.plan.spec.policy import KEYS, NAMES, policy_refusals
from tunesmith_operator.plan.types import Raw

STRICT = CONFIG.model_copy(update={"pod_policy": PodPolicy()})
MAKERS = [fine_tune_job, eval_job, inference_service]

REQUESTED: dict[str, tuple[Raw, str]] = {
    "another identity": ({"pod": {"serviceAccountName": "builder"}}, "podPolicy.serviceAccounts"),
    "credentials of others": ({"storage": {"credentialsSecret": "payroll"}}, "podPolicy.credentialsSecrets"),
    "a server of the tenant": ({"storage": {"endpoint": "https://s3.mine"}}, "podPolicy.endpoints"),
    "the node's metadata": ({"storage": {"endpoint": "http://169.254.169.254"}}, "podPolicy.endpoints"),
    "the store without TLS": ({"storage": {"endpoint": "http://s3.example:9000"}}, "podPolicy.endpoints"),
    "a place before others": ({"pod": {"priorityClassName": "system-node-critical"}}, "podPolicy.priorityClasses"),
    "a weaker runtime": ({"pod": {"runtimeClassName": "runc"}}, "podPolicy.runtimeClasses"),
    "another scheduler": ({"pod": {"schedulerName": "mine"}}, "podPolicy.schedulers"),
    "a tainted node": (
        {"pod": {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]}},
        "podPolicy.tolerations",
    ),
    "every tainted node": ({"pod": {"tolerations": [{"operator": "Exists"}]}}, "podPolicy.tolerations"),
    "traffic of a Service": ({"pod": {"labels": {"app": "payroll"}}}, "podPolicy.labels"),
    "a cloud identity by label": ({"pod": {"labels": {"azure.workload.identity/use": "true"}}}, "podPolicy.labels"),
    "an injector": ({"pod": {"annotations": {"vault.hashicorp.com/agent-inject": "true"}}}, "podPolicy.annotations"),
    "a role": ({"pod": {"annotations": {"iam.amazonaws.com/role": "admin"}}}, "podPolicy.annotations"),
    "another network": ({"pod": {"annotations": {"k8s.v1.cni.cncf.io/networks": "x"}}}, "podPolicy.annotations"),
    "no confinement": (
        {"pod": {"annotations": {"container.apparmor.security.beta.kubernetes.io/train": "unconfined"}}},
        "podPolicy.annotations",
    ),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("requested", REQUESTED)
def test_privileges_that_a_tenant_lacks_are_refused_and_no_child_is_created(maker: Any, requested: str) -> None:
    spec, policy = REQUESTED[requested]
    cluster = Cluster(maker(**spec), config=STRICT)
    plan = cluster.plan()
    assert not plan.create
    assert not plan.apply
    assert plan.status is not None
    assert (plan.status["phase"], plan.status["reason"]) == ("Failed", "BadSpec")
    assert policy in plan.status["message"]
    assert policy in plan.status["lastFailure"]["hint"]


JUDGE = {"url": "https://judge.mine/v1", "model": "m", "rubric": "{completion}"}
CODE = {"configMap": {"name": "tunesmith-rewards", "key": "r.py"}}
REWARDS: dict[str, tuple[Raw, str, dict[str, Any]]] = {
    "a server of the tenant": ({"judge": JUDGE}, "podPolicy.judges", {"judges": ("https://judge.mine/v1",)}),
    "a key of others": (
        {"judge": {**JUDGE, "apiKeySecret": "payroll"}},
        "podPolicy.credentialsSecrets",
        {"judges": ("https://judge.*/v1",), "credentials_secrets": ("payroll",)},
    ),
    "code": ({"code": CODE}, "podPolicy.rewardCode: true", {"reward_code": True}),
    "a text of others": (
        {"code": {"configMap": {"name": "payroll", "key": "r.py"}}},
        "podPolicy.configMaps",
        {"reward_code": True, "config_maps": ("payroll",)},
    ),
}


@pytest.mark.parametrize("requested", REWARDS)
def test_a_reward_needs_what_an_administrator_allows(requested: str) -> None:
    settings, policy, allowed = REWARDS[requested]
    reward = {"name": "taste", "type": next(iter(settings)), **settings}
    job = fine_tune_job(method="grpo", rewards=[reward])
    refused = Cluster(job, config=STRICT).plan()
    assert not refused.create
    assert refused.status is not None
    assert refused.status["lastFailure"]["class"] == "BadSpec"
    assert policy in refused.status["lastFailure"]["hint"]
    assert "remove the reward from spec.rewards, or ask an administrator" in refused.status["lastFailure"]["hint"]
    config = CONFIG.model_copy(update={"pod_policy": PodPolicy(**allowed)})
    assert Cluster(job, config=config).plan().create


@pytest.mark.parametrize(
    ("tracking", "policy"),
    [
        ({"url": "https://mlflow.example", "secret": "payroll"}, "podPolicy.credentialsSecrets"),
        ({"url": "https://mine.example", "secret": "tunesmith-mlflow"}, "podPolicy.endpoints"),
        ({"url": "http://169.254.169.254"}, "podPolicy.endpoints"),
    ],
)
def test_a_tracker_gets_only_tokens_at_addresses_that_an_administrator_allows(tracking: Raw, policy: str) -> None:
    allowed = STRICT.model_copy(update={"pod_policy": PodPolicy(endpoints=["https://mlflow.example"])})
    spec = {"tracking": {"to": "mlflow", **tracking}}
    (refused,) = policy_refusals(spec, allowed, "demo")
    assert policy in refused.hint
    good = {"to": "mlflow", "url": "https://mlflow.example", "secret": "tunesmith-mlflow"}
    assert not list(policy_refusals({"tracking": good}, allowed, "demo"))


@pytest.mark.parametrize("tracker", SERVERS)
def test_the_public_server_of_a_tracker_needs_permission_as_well(tracker: TrackerName) -> None:
    spec = {"tracking": {"to": tracker.value, "secret": "tunesmith-key"}}
    (refused,) = policy_refusals(spec, STRICT, "demo")
    assert SERVERS[tracker] in refused.message
    assert "remove spec.tracking, or ask an administrator to add it to podPolicy.endpoints" in refused.hint
    allowed = STRICT.model_copy(update={"pod_policy": PodPolicy(endpoints=[SERVERS[tracker]])})
    assert not list(policy_refusals(spec, allowed, "demo"))
    (foreign,) = policy_refusals({"tracking": {**spec["tracking"], "secret": "payroll"}}, allowed, "demo")
    assert "podPolicy.credentialsSecrets" in foreign.hint


@pytest.mark.parametrize("maker", MAKERS)
def test_harmless_settings_need_no_permission(maker: Any) -> None:
    pod = {
        "serviceAccountName": "default",
        "schedulerName": "default-scheduler",
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
    }
    for storage in (
        {"credentialsSecret": "s3-credentials"},
        {"credentialsSecret": "tunesmith-mine"},
        {"endpoint": "https://s3.example:9000/", "region": "eu"},
    ):
        plan = Cluster(maker(pod=pod, storage=storage), config=STRICT).plan()
        assert [*plan.create, *plan.apply]


@pytest.mark.parametrize(("name", "allowed"), [("tunesmith-templates", True), ("app-settings", False)])
def test_a_text_becomes_part_of_an_artifact_only_from_a_config_map_of_the_policy(name: str, allowed: bool) -> None:
    job = fine_tune_job(training={"chatTemplate": {"configMap": {"name": name, "key": "a"}}})
    assert bool(Cluster(job, config=STRICT).plan().create) is allowed
    if not allowed:
        [refusal] = policy_refusals(job["spec"], STRICT, "team")
        assert refusal.message.startswith(f"training.chatTemplate.configMap.name {name}: ")
        assert refusal.hint.startswith("remove spec.training.chatTemplate, or ask")
        assert "podPolicy.configMaps" in refusal.hint


@pytest.mark.parametrize("maker", MAKERS)
def test_an_administrator_can_allow_by_name_and_by_pattern(maker: Any) -> None:
    policy = PodPolicy.model_validate({"serviceAccounts": ["builder"], "labels": ["example.com/*"]})
    config = CONFIG.model_copy(update={"pod_policy": policy})
    pod = {"serviceAccountName": "builder", "labels": {"example.com/team": "a"}}
    assert not list(policy_refusals(maker(pod=pod)["spec"], config, "team"))
    wrong = {"serviceAccountName": "builder-2", "labels": {"example.com": "a"}}
    assert len(list(policy_refusals(maker(pod=wrong)["spec"], config, "team"))) == 2


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        ("https://s3.eu-west-1.amazonaws.com", True),
        ("https://s3.dualstack.eu-west-1.amazonaws.com/", True),
        ("https://s3.mine/.amazonaws.com", False),
        ("https://s3.mine?.amazonaws.com", False),
        ("https://s3.mine#.amazonaws.com", False),
        ("https://s3.mine:443/.amazonaws.com", False),
        ("https://s3.a:b@mine/.amazonaws.com", False),
        ("https://s3.eu-west-1.amazonaws.com@mine", False),
        ("https://s3.eu-west-1.amazonaws.com.mine", False),
        ("https://s3.mine\\.amazonaws.com", False),
        ("http://s3.eu-west-1.amazonaws.com", False),
    ],
)
def test_a_pattern_for_endpoints_lets_no_other_server_in(endpoint: str, allowed: bool) -> None:
    policy = PodPolicy.model_validate({"endpoints": ["https://s3.*.amazonaws.com"]})
    config = CONFIG.model_copy(update={"pod_policy": policy})
    assert (not list(policy_refusals({"storage": {"endpoint": endpoint}}, config, "team"))) is allowed


def test_every_setting_of_a_pod_is_governed_or_is_known_to_be_harmless() -> None:
    """A new field must be put into the policy, or here with the reason (docs/security.md)."""
    governed = {field.removeprefix("pod.") for field in (*NAMES, *KEYS) if field.startswith("pod.")} | {"tolerations"}
    harmless = {
        "nodeSelector",  # narrows the choice of nodes; taints protect reserved nodes
        "imagePullSecrets",  # the administrator configures the images, so no other registry is used
        "env",  # reserved names are refused, and nothing is expanded
    }
    assert governed | harmless == {field.alias for field in PodSettings.model_fields.values()}


STORE = "s3://store/tunesmith"


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        (f"{STORE}/runs/team/support", True),
        (f"{STORE}/runs/team", True),
        (f"{STORE}/mine", True),
        ("s3://store/elsewhere", True),
        ("s3://store/tunesmith-too/models", True),
        ("s3://mine/runs/other", True),
        (f"{STORE}/runs/other/support", False),
        (f"{STORE}/runs/team2", False),
        (f"{STORE}/runs", False),
        (f"{STORE}//runs//other", False),
        (f"{STORE}/models/abc", False),
        (f"{STORE}/evals", False),
        (f"{STORE}/services/other/chat", False),
        (f"{STORE}/catalogue", False),
        (f"{STORE}/runs/team/../other", False),
        (f"{STORE}/./models", False),
    ],
)
@pytest.mark.parametrize("maker", [fine_tune_job, eval_job])
def test_results_go_to_no_folder_of_another_namespace_or_a_shared_one(maker: Any, uri: str, allowed: bool) -> None:
    """The credentials of a store may give access to all of it."""
    plan = Cluster(maker(output={"uri": uri}), config=STRICT).plan()
    assert bool(plan.create) is allowed
    if not allowed:
        assert plan.status is not None
        assert uri in plan.status["message"]


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_spelling_of_an_output_leads_into_a_shared_folder(path: str, namespace: str) -> None:
    for folder in ("models", "evals", "services", "catalogue", f"runs/not-{namespace}"):
        for uri in (f"{STORE}/{folder}/{path}", f"{STORE}//{folder}/{path}"):
            assert list(policy_refusals({"output": {"uri": uri}}, STRICT, namespace))


EXAMPLES = [
    (path, document)
    for path in sorted((Path(__file__).parents[5] / "examples").rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    if document and str(document.get("apiVersion")).startswith("tunesmith.dev/")
]


@pytest.mark.parametrize(("path", "document"), EXAMPLES, ids=lambda value: getattr(value, "stem", ""))
def test_the_examples_name_the_policy_that_they_need(path: Path, document: Raw) -> None:
    for refusal in policy_refusals(document["spec"], STRICT, "team"):
        policy = refusal.hint.partition("podPolicy.")[2].partition(" ")[0]
        assert f"podPolicy.{policy}" in path.read_text(encoding="utf-8"), refusal
