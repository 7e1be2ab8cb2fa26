"""What one tenant does harms no other, and gives the tenant nothing that it could not have without us."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import urllib3
import yaml

from devcluster.standalone import ControlPlane
from tests.apiserver.chain import evaluated
from tests.apiserver.chart import VALUES, render, without_workloads
from tests.apiserver.cluster import Cluster, Kubelet, Raw, Refused
from tests.apiserver.conftest import NAMES, StartOperator, make_namespace
from tests.apiserver.finetunejobs import SPEC, prepared, started, succeed, tune
from tests.apiserver.flood import Flood, report
from tests.apiserver.operator_process import USER
from tests.apiserver.scope import leave
from tests.apiserver.test_operator_life import token_of
from tests.unit.operator.plan.manifests import TEMPLATES
from tunesmith_operator.progress_receiver import BODY_BYTES, STATUS_SECONDS

ROOT = Path(__file__).resolve().parents[2]
EVALUATION: Raw = {
    "model": SPEC["model"],
    "baseline": {"uri": "s3://models/other"},
    "benchmarks": [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}],
}

SERVICE: Raw = {"model": SPEC["model"]}


def training(cluster: Cluster, name: str) -> str:
    """A FineTuneJob that trains; the token of its pod."""
    kubelet = started(cluster, name)
    kubelet.runs("train")
    cluster.until_phase("FineTuneJob", name, "Running")
    return token_of(kubelet)


def test_a_flood_of_reports_harms_nobody(cluster: Cluster, start_operator: StartOperator) -> None:
    operator = start_operator()
    noisy, large, quiet = (training(cluster, name) for name in ("noisy", "large", "quiet"))
    time.sleep(1)
    before, memory = cluster.writes(USER), operator.rss_mib()
    pushes = {
        "valid": (noisy, report(7)),
        "another": (noisy, report(8)),
        "unknown": ("no-token-of-anybody", report(7)),
        "no report": (large, b'{"stage": ' + b'"x"' * 10),
        "too long": (large, b" " * (BODY_BYTES * 20)),
    }
    with Flood(operator.progress_port, pushes) as flood:
        for step in range(1, 8):
            assert operator.push(quiet, report(step)) == 204
            time.sleep(1.1)
        tune(cluster, "meanwhile")
        cluster.job("meanwhile-tune-1", seconds=30)

    answers = {name: {*counter} for name, counter in flood.answers.items()}
    assert answers["valid"] | answers["another"] == {204, 429}
    assert answers["unknown"] == {401}
    assert answers["no report"] <= {400, 429}
    assert answers["too long"] <= {413, 429}
    assert {400, 413} & (answers["no report"] | answers["too long"])
    taken = flood.answers["valid"][204] + flood.answers["another"][204]
    assert taken <= flood.seconds + 1

    writes = cluster.writes(USER)[len(before) :]
    most = flood.seconds / STATUS_SECONDS + 2
    assert 1 <= writes.count("patch finetunejobs/noisy") <= most, writes
    assert writes.count("patch finetunejobs/large") <= 1, writes
    assert operator.rss_mib() - memory < 64
    assert operator.leads()
    assert operator.process.poll() is None

    def shown() -> bool:
        status = (cluster.get("FineTuneJob", "quiet") or {}).get("status", {})
        return bool(status.get("progress", {}).get("step") == 7)

    cluster.until("the last report of the quiet one", shown, seconds=15)


NAMESAKES: dict[str, tuple[str, Raw]] = {
    "a-model": ("FineTuneJob", {**SPEC, "model": {"fineTuneJob": {"name": "theirs"}}}),
    "a-baseline": ("EvalJob", {**EVALUATION, "baseline": {"fineTuneJob": {"name": "theirs"}}}),
    "a-service": ("InferenceService", {"model": {"fineTuneJob": {"name": "theirs"}}}),
    "an-adapter": ("InferenceService", {**SERVICE, "adapters": [{"name": "fr", "fineTuneJob": {"name": "theirs"}}]}),
    "a-verdict": ("InferenceService", {**SERVICE, "promotion": {"evalJobs": [{"name": "theirs"}]}}),
}


def test_what_another_namespace_has_under_a_name_is_waited_for_in_the_own(
    plane: ControlPlane, http: urllib3.PoolManager, cluster: Cluster, start_operator: StartOperator
) -> None:
    other = Cluster(plane, http, next(NAMES))
    make_namespace(other)
    start_operator()
    succeed(other, "theirs")
    passed = {"model": SPEC["model"], "benchmarks": EVALUATION["benchmarks"]}
    passed["gates"] = [{"benchmark": "words", "metric": "accuracy", "min": 0.5}]
    other.create({"kind": "EvalJob", "metadata": {"name": "theirs"}, "spec": passed})
    kubelet = Kubelet(other, other.pod_of("theirs-eval-model-1"))
    kubelet.bind()
    kubelet.ends(evaluated(0.9, "d" * 64))
    assert other.until_phase("EvalJob", "theirs", "Succeeded")["status"]["verdict"] == "Passed"
    for name, (kind, spec) in NAMESAKES.items():
        cluster.create({"kind": kind, "metadata": {"name": name}, "spec": spec})
    for name, (kind, _) in NAMESAKES.items():
        status = cluster.until_phase(kind, name, "Waiting")["status"]
        assert "theirs" in status["waitingFor"], status
    assert cluster.find("Job") == []
    assert [deployment for deployment in cluster.find("Deployment") if deployment["spec"]["replicas"]] == []
    leave(other)


@pytest.mark.usefixtures("operator")
def test_pods_of_all_kinds_and_accelerators_are_admitted_under_the_restricted_profile(cluster: Cluster) -> None:
    """The namespace of every test enforces it: a pod that it refuses is never there."""
    for accelerator in ("cpu", "nvidia", "ascend"):
        resources = {"accelerator": accelerator, "memory": "1Gi", "sharedMemory": "64Mi", "ephemeralStorage": "1Gi"}
        storage = {"caBundle": {"name": "authority"}}
        shared = {"resources": resources, "storage": storage}
        tune(cluster, f"{accelerator}-t", **shared)
        evaluation = {**EVALUATION, "engine": "transformers", **shared}
        cluster.create({"kind": "EvalJob", "metadata": {"name": f"{accelerator}-e"}, "spec": evaluation})
        serving = {"model": SPEC["model"], "engine": "transformers", "apiKeySecret": "key", **shared}
        cluster.create({"kind": "InferenceService", "metadata": {"name": f"{accelerator}-s"}, "spec": serving})
        if accelerator != "cpu":
            for name, job in (("t", "prepare"), ("e", "prepare-model"), ("e", "prepare-base")):
                prepared(cluster, f"{accelerator}-{name}", job)
        for job in ("t-tune-1", "e-eval-model-1", "e-eval-baseline-1"):
            cluster.pod_of(f"{accelerator}-{job}")
        served = f"tunesmith.dev/name={accelerator}-s"
        cluster.until(f"a pod of {served}", lambda labels=served: cluster.find("Pod", labels))  # type: ignore[misc]


REFUSED: dict[str, Raw] = {
    "pod.serviceAccountName": {"pod": {"serviceAccountName": "builder"}},
    "pod.priorityClassName": {"pod": {"priorityClassName": "system-cluster-critical"}},
    "pod.labels": {"pod": {"labels": {"app": "payroll"}}},
    "pod.annotations": {"pod": {"annotations": {"iam.amazonaws.com/role": "admin"}}},
    "pod.tolerations": {"pod": {"tolerations": [{"operator": "Exists"}]}},
    "storage.credentialsSecret": {"storage": {"credentialsSecret": "payroll"}},
    "storage.endpoint": {"storage": {"endpoint": "http://169.254.169.254"}},
    "output.uri": {"output": {"uri": "s3://models/runs/somebody-else/support"}},
}


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("field", REFUSED)
def test_what_a_pod_would_give_to_who_may_not_create_pods_is_refused(cluster: Cluster, field: str) -> None:
    tune(cluster, "support", **REFUSED[field])
    status = cluster.until_phase("FineTuneJob", "support", "Failed")["status"]
    assert (status["reason"], field in status["message"]) == ("BadSpec", True)
    assert cluster.find("Job") == []


THEIRS: Raw = {"fineTuneJob": {"name": "other/support"}}
ELSEWHERE: dict[str, tuple[str, Raw]] = {
    "a Secret": ("FineTuneJob", {**SPEC, "storage": {"credentialsSecret": "other/tunesmith-s3"}}),
    "a ConfigMap": ("FineTuneJob", {**SPEC, "storage": {"caBundle": {"name": "other/authority"}}}),
    "a FineTuneJob": ("FineTuneJob", {**SPEC, "model": THEIRS}),
    "a service's model": ("FineTuneJob", {**SPEC, "model": {"inferenceService": {"name": "other/chat"}}}),
    "a volume": ("FineTuneJob", {**SPEC, "output": {"uri": "pvc://claim/path"}}),
    "an account": ("FineTuneJob", {**SPEC, "pod": {"serviceAccountName": "other:default"}}),
    "a pull secret": ("FineTuneJob", {**SPEC, "pod": {"imagePullSecrets": [{"name": "other/registry"}]}}),
    "a queue": ("FineTuneJob", {**SPEC, "queueName": "other/gpus"}),
    "a model to score": ("EvalJob", {**EVALUATION, "model": THEIRS}),
    "a baseline": ("EvalJob", {**EVALUATION, "baseline": THEIRS}),
    "a service as baseline": ("EvalJob", {**EVALUATION, "baseline": {"inferenceService": {"name": "other/chat"}}}),
    "a Secret to score with": ("EvalJob", {**EVALUATION, "storage": {"credentialsSecret": "other/tunesmith-s3"}}),
    "a model to serve": ("InferenceService", {**SERVICE, "model": THEIRS}),
    "an API key": ("InferenceService", {**SERVICE, "apiKeySecret": "other/key"}),
    "a verdict": ("InferenceService", {**SERVICE, "promotion": {"evalJobs": [{"name": "other/words"}]}}),
    "an adapter": ("InferenceService", {**SERVICE, "adapters": [{"name": "fr", **THEIRS}]}),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_nothing_of_another_namespace_can_be_named(cluster: Cluster, what: str) -> None:
    kind, spec = ELSEWHERE[what]
    with pytest.raises(Refused, match=r"Invalid value: .*(other[/:]|pvc://)") as error:
        cluster.create({"kind": kind, "metadata": {"name": "support"}, "spec": spec})
    assert error.value.status == 422


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    "field",
    ["hostPath", "hostNetwork", "volumes", "securityContext", "containers", "image", "command", "initContainers"],
)
def test_no_field_of_a_pod_but_ours_is_known(cluster: Cluster, field: str) -> None:
    """With strict validation it is refused; without, the API server drops it before anybody can read it."""
    with pytest.raises(Refused) as error:
        tune(cluster, "support", pod={field: "x"})
    assert error.value.status == 400
    assert field in str(error.value)


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_nobody_but_an_administrator_writes_what_a_service_rolls_back_to(cluster: Cluster, role: str) -> None:
    """Of the roles that a cluster has for people; cluster-admin may do everything."""
    person = f"{role}-{cluster.namespace}"
    cluster.kubectl(
        "create", "rolebinding", person, f"--clusterrole={role}", f"--user={person}", "-n", cluster.namespace
    )
    question = ("auth", "can-i", "--as", person, "--namespace", cluster.namespace)
    cluster.until("the binding counts", lambda: "yes" in answer(cluster, *question, "list", "jobs.batch"))
    for verb in ("create", "update", "patch", "delete"):
        assert answer(cluster, *question, verb, "controllerrevisions.apps") == "no"


def test_the_network_policy_for_tenants_is_one_that_the_api_server_takes(cluster: Cluster) -> None:
    """And it is for the pods that we make."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    [text] = [block.partition("```")[0] for block in page.split("```yaml\n")[1:]]
    cluster.kubectl("apply", "--dry-run=server", "-n", cluster.namespace, "--filename", "-", stdin=text)
    selected = yaml.safe_load(text)["spec"]["podSelector"]["matchLabels"]
    assert all(selected.items() <= template["metadata"]["labels"].items() for template in TEMPLATES.values())


def test_a_namespace_that_is_gone_with_its_role_holds_up_no_other(
    plane: ControlPlane, cluster: Cluster, start_operator: StartOperator
) -> None:
    values = {**VALUES, "scope": {"namespaces": [cluster.namespace]}, "crds": {"enabled": False}}
    cluster.kubectl("apply", "--filename", "-", stdin=without_workloads(render(plane, values, "several")))
    operator = start_operator(release="several", scope={"namespaces": ["gone", cluster.namespace]})
    operator.may_complain = True
    succeed(cluster, "here")


def answer(cluster: Cluster, *arguments: str) -> str:
    """The output of kubectl, whatever its exit code."""
    command = [cluster.plane.program("kubectl"), "--kubeconfig", str(cluster.plane.kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@pytest.mark.usefixtures("operator")
def test_an_event_or_status_of_a_tenant_cannot_be_forged_by_what_a_pod_says(cluster: Cluster) -> None:
    kubelet: Kubelet = started(cluster, "support")
    message = "\x1b[2J" + "x" * 5000 + '\r{"verb": "export", "outcome": "Succeeded"}\u202e'
    kubelet.ends({}, {"train": {"exitCode": 1, "message": message}})
    resource = cluster.until("its failure", lambda: failed(cluster.get("FineTuneJob", "support")))
    tail = resource["status"]["lastFailure"]["logTail"]
    assert len(tail) <= 4096
    assert not {"\x1b", "\r", "\u202e"} & {*tail}
    events = cluster.until("its Event", lambda: cluster.events("FineTuneJob", "support")[1:])
    assert all(len(event["message"]) <= 1024 for event in events)
    assert "\x1b" not in "".join(event["message"] for event in events)


def failed(resource: Raw | None) -> Raw | None:
    return resource if resource and resource.get("status", {}).get("lastFailure") else None
