"""Every child has the structure that the operator gives it: random specs of all kinds, under a policy that allows all."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.apiserver.specs import specs
from tests.examples import examples
from tests.unit.operator.plan.world import CONFIG, Cluster, condition, ended, fine_tune_job, resource, tuned, waiting
from tunesmith_api.crdgen.crd import KINDS as TYPES
from tunesmith_api.tracking import CREDENTIALS
from tunesmith_api.uris import MODEL
from tunesmith_operator.client import RESOURCES
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.types import Raw

POD_FIELDS = frozenset(
    {"restartPolicy", "terminationGracePeriodSeconds", "automountServiceAccountToken", "enableServiceLinks"}
    | {"securityContext", "initContainers", "containers", "volumes", "nodeSelector", "tolerations", "affinity"}
    | {"serviceAccountName", "imagePullSecrets", "priorityClassName", "runtimeClassName", "schedulerName", "subdomain"}
    | {"setHostnameAsFQDN", "topologySpreadConstraints"}
)
"""Fields of a pod's spec. None gives access to the host: no hostNetwork, hostPID, hostIPC, nodeName, shareProcessNamespace, hostAliases."""
VOLUMES = frozenset({"downwardAPI", "emptyDir", "configMap", "persistentVolumeClaim"})
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
IMAGES = {CONFIG.images.runtime, CONFIG.images.engines.lmdeploy}
HOSTILE = ["$(id)", "`id`", "; rm -rf /", "a b", "--spec", "-x", "'", '"', "\\", "|", "&&", "$HOME", "*", "~", "%n"]
TRIED = examples(40)
"""Number of random specs of each kind."""
ADMITTED = [text for text in HOSTILE if MODEL.admits(f"s3://bucket/{text.replace(' ', '+')}")]
"""The texts that the URI of a model may contain."""
VARIABLES = [
    {"name": "V1", "value": "".join(HOSTILE)},
    {"name": "PATH", "value": "/x"},
    {"name": "V2", "value": "$(V1)"},
]


def children(kind: str, spec: Raw) -> list[Raw]:
    """The children that the first plan of a resource writes; all of its references exist."""
    thing = resource(kind, spec)
    cluster = Cluster(thing)
    for reference in KINDS[kind].references(thing):
        cluster.others[reference] = tuned(reference.name)
    plan = cluster.plan()
    return [*plan.create, *plan.apply]


def keys(thing: Any) -> Iterator[str]:
    if isinstance(thing, dict):
        yield from thing
    for below in thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list) else ():
        yield from keys(below)


def assert_structure(child: Raw) -> None:
    """Assert that a child is in the namespace of its resource, and that its pods have no field of another origin."""
    assert child["kind"] in RESOURCES
    assert child["metadata"]["namespace"] == "team"
    template = (child.get("spec") or child.get("data") or {}).get("template")
    if template is None:
        return
    pod = template["spec"]
    assert {*pod} <= POD_FIELDS
    assert "namespace" not in template["metadata"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": 65532}.items()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for volume in pod["volumes"]:
        assert len({*volume} & VOLUMES) == len({*volume} - {"name"}) == 1, volume
        claim = volume.get("persistentVolumeClaim")
        assert claim is None or claim == {"claimName": claim["claimName"], "readOnly": True}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        assert container["securityContext"] == CONTAINER_SECURITY
        assert container["image"] in IMAGES
        assert container["args"] == [container["name"], "--spec", "/etc/tunesmith/run.json"]
        assert not {"command", "stdin", "tty", "volumeDevices"} & {*container}
        assert "hostPort" not in keys(container.get("ports", []))
        for variable in container["env"]:
            source = variable.get("valueFrom") or {}
            assert {*source} <= {"fieldRef", "secretKeyRef"}
            if "secretKeyRef" in source:
                assert source["secretKeyRef"]["key"] in {*CREDENTIAL_KEYS, "api-key"}


CREDENTIAL_KEYS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *(key for keys in CREDENTIALS.values() for key in keys),
)


@pytest.mark.hypothesis
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_no_spec_changes_the_structure_of_a_pod(kind: Any) -> None:
    counts: list[int] = []

    @settings(max_examples=TRIED, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(spec=specs(kind))
    def check(spec: Raw) -> None:
        spec.setdefault("pod", {})["env"] = VARIABLES
        spec.pop("engine", None)
        found = children(kind.name, kind.spec.model_validate(spec).to_dict())
        for child in found:
            assert_structure(child)
        counts.append(len(found))

    check()
    assert sum(map(bool, counts)) >= TRIED / 6, "too many specs were refused"


@given(
    folder=st.lists(st.sampled_from([*ADMITTED, "x", "/"]), min_size=1, max_size=6).map("".join),
    name=st.from_regex(r"\A[a-z]([-a-z0-9]{0,43}[a-z0-9])?\Z"),
)
def test_names_and_uris_are_data_in_one_file_and_no_part_of_a_command(folder: str, name: str) -> None:
    """Only the JSON of the run has them, unchanged. The arguments are the same for all resources."""
    uri = "s3://bucket/" + folder.replace(" ", "+")
    assume(MODEL.admits(uri))
    spec = {"model": {"uri": uri}, "datasets": [{"uri": uri}], "output": {"uri": uri}}
    cluster = Cluster(resource("FineTuneJob", spec, name))
    [job] = cluster.plan().create
    template = job["spec"]["template"]
    run = json.loads(template["metadata"]["annotations"]["tunesmith.dev/run"])
    assert (run["name"], run["models"]["base"]["uri"], run["outputUri"]) == (name, uri, uri)
    assert run["spec"]["datasets"][0]["uri"] == uri
    for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]:
        assert container["args"] == [container["name"], "--spec", "/etc/tunesmith/run.json"]
        assert uri not in json.dumps(container)


CPU_SECONDS = 20
"""CPU time of this process: far more than the texts below take, and far less than a pattern that backtracks."""


@contextmanager
def bounded() -> Iterator[None]:
    """Fail after CPU_SECONDS."""

    def stop(*_: object) -> None:
        raise AssertionError(f"still running after {CPU_SECONDS} s of CPU")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


LONG = 200_000
TEXTS = {
    "numbers": "9" * LONG,
    "dots": "Insufficient " + "a." * LONG,
    "many begins": "Insufficient " * (LONG // 10),
    "slashes": "couldn't find key a in Secret " + "/" * LONG,
    "no end": "couldn't find key " + "a" * LONG,
    "quotes": 'secret "' + "a" * LONG,
    "open braces": "{" * LONG,
    "nested": '{"verb": ' * 5000,
    "deep": '{"verb": "train", "outcome": ' + "[" * 4000,
    "no results": '{"verb": "evaluate", "outcome": "Succeeded", "results": [1, "x", null]}',
    "no report": '{"verb": ["train"], "outcome": {}, "results": {}}',
    "lines": "\n" * LONG,
    "spaces": " " * LONG + "x",
}


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_text_takes_linear_time(name: str) -> None:
    text = TEXTS[name]
    pods: list[tuple[str, Raw, list[Raw]]] = [
        ("Pending", {}, [condition("PodScheduled", False, "Unschedulable", text)]),
        ("Pending", {"fetch": waiting("CreateContainerConfigError", text)}, []),
        ("Failed", {"fetch": ended(1, text)}, []),
        ("Failed", {"fetch": ended(137, text, "OOMKilled")}, [condition("DisruptionTarget", True, text, text)]),
    ]
    with bounded():
        for phase, states, conditions in pods:
            cluster = Cluster(fine_tune_job())
            cluster.settle()
            cluster.start_pod("support-tune-1", phase, states, conditions=conditions)
            assert cluster.plan().status is not None
