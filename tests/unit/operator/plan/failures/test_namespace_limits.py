"""Refusals by quotas and ranges name the field of the spec that leads out, and the direction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hints import fields_in
from tests.unit.api.test_hints import has_field
from tunesmith_api.failures import EVAL, SERVE, TUNE, FailureClass
from tunesmith_operator.plan.failures.namespace_limits import divisor, interpret

QUOTA = "exceeded quota: all, requested: {requested}, used: {used}, limited: {limited}"
RAISED = "ask for a higher quota (kubectl --namespace team describe quota all)"
ROOM = "ResourceQuota all has no room: "
ALONE = "ResourceQuota all is smaller than the request of this pod alone: "
WAIT = "wait until other work of the namespace ends"
RANGE = "a LimitRange of namespace team sets a "


def quota(requested: str, used: str, limited: str) -> str:
    return QUOTA.format(requested=requested, used=used, limited=limited)


CASES: dict[str, tuple[str, str, str]] = {
    "cores": (
        TUNE,
        quota("requests.cpu=4", "requests.cpu=6", "requests.cpu=8"),
        f"{ROOM}lower spec.resources.cpu, {WAIT} or {RAISED}",
    ),
    "more cores than there ever are": (
        SERVE,
        quota("cpu=16", "cpu=0", "cpu=8"),
        f"{ALONE}lower spec.resources.cpu or {RAISED}",
    ),
    "limits of cores, which a LimitRange sets": (
        TUNE,
        quota("limits.cpu=4", "limits.cpu=6", "limits.cpu=8"),
        f"{ROOM}{WAIT} or {RAISED}",
    ),
    "memory and disk": (
        EVAL,
        quota(
            "limits.memory=4Gi,requests.ephemeral-storage=20Gi",
            "limits.memory=2Gi,requests.ephemeral-storage=0",
            "limits.memory=5Gi,requests.ephemeral-storage=10Gi",
        ),
        f"{ALONE}lower spec.resources.memory and lower spec.resources.ephemeralStorage or {RAISED}",
    ),
    "memory, and limits of cores, which a LimitRange sets": (
        TUNE,
        quota("limits.cpu=4,limits.memory=4Gi", "limits.cpu=6,limits.memory=6Gi", "limits.cpu=8,limits.memory=8Gi"),
        f"{ROOM}{WAIT} or {RAISED}",
    ),
    "memory, counted twice": (
        TUNE,
        quota("limits.memory=4Gi,requests.memory=4Gi", "limits.memory=6Gi", "limits.memory=8Gi,requests.memory=8Gi"),
        f"{ROOM}lower spec.resources.memory, {WAIT} or {RAISED}",
    ),
    "devices": (
        TUNE,
        quota("requests.nvidia.com/gpu=8", "requests.nvidia.com/gpu=4", "requests.nvidia.com/gpu=8"),
        f"{ROOM}lower spec.resources.count to 4, {WAIT} or {RAISED}",
    ),
    "one device, which is the fewest": (
        TUNE,
        quota("requests.nvidia.com/gpu=1", "requests.nvidia.com/gpu=8", "requests.nvidia.com/gpu=8"),
        f"{ROOM}{WAIT} or {RAISED}",
    ),
    "fewer devices than half": (
        TUNE,
        quota("requests.nvidia.com/gpu=8", "requests.nvidia.com/gpu=0", "requests.nvidia.com/gpu=3"),
        f"{ALONE}lower spec.resources.count to 2 or {RAISED}",
    ),
    "fewer devices than half that are free": (
        SERVE,
        quota("requests.huawei.com/Ascend910=8", "requests.huawei.com/Ascend910=7", "requests.huawei.com/Ascend910=8"),
        f"{ROOM}lower spec.resources.count to 1, {WAIT} or {RAISED}",
    ),
    "no device that is free": (
        EVAL,
        quota("requests.nvidia.com/gpu=4", "requests.nvidia.com/gpu=8", "requests.nvidia.com/gpu=8"),
        f"{ROOM}{WAIT} or {RAISED}",
    ),
    "pods of a job": (
        TUNE,
        quota("pods=1", "pods=10", "pods=10"),
        f"{ROOM}lower spec.parallelism.nodes where it is above 1, {WAIT} or {RAISED}",
    ),
    "pods of a service": (
        SERVE,
        quota("count/pods=1", "count/pods=10", "count/pods=10"),
        f"{ROOM}lower spec.replicas or spec.autoscaling.maxReplicas where it is above 1, {WAIT} or {RAISED}",
    ),
    "pods of an evaluation": (EVAL, quota("pods=1", "pods=10", "pods=10"), f"{ROOM}{WAIT} or {RAISED}"),
    "pods, of which there may be none": (TUNE, quota("pods=1", "pods=0", "pods=0"), f"{ALONE}{RAISED}"),
    "cores, of which there are none": (
        SERVE,
        quota("pods=1,requests.cpu=2", "pods=0,requests.cpu=0", "pods=4,requests.cpu=0"),
        f"{ALONE}{RAISED}",
    ),
    "objects": (
        TUNE,
        quota("count/jobs.batch=1", "count/jobs.batch=5", "count/jobs.batch=5"),
        f"{ROOM}{WAIT} or {RAISED}",
    ),
    "no limit of memory": (
        TUNE,
        "failed quota: all: must specify limits.memory for: fetch,train",
        "ResourceQuota all counts limits.memory: set spec.resources.memory",
    ),
    "no limit of cores, which a pod of ours never has": (
        TUNE,
        "failed quota: all: must specify limits.cpu for: fetch,train; requests.memory for: fetch,train",
        (
            "ResourceQuota all counts limits.cpu: create a LimitRange with a default for it in namespace team; "
            "ResourceQuota all counts requests.memory: set spec.resources.memory"
        ),
    ),
    "no limit of memory of the container that has none of ours": (
        EVAL,
        "failed quota: all: must specify limits.memory for: evaluate",
        "ResourceQuota all counts limits.memory: create a LimitRange with a default for it in namespace team",
    ),
    "as older servers write it": (
        SERVE,
        "failed quota: all: must specify limits.memory,requests.memory",
        (
            "ResourceQuota all counts limits.memory: set spec.resources.memory; "
            "ResourceQuota all counts requests.memory: set spec.resources.memory"
        ),
    ),
    "too much memory": (
        TUNE,
        "maximum memory usage per Container is 1Gi, but limit is 4Gi",
        f"{RANGE}maximum of 1Gi memory per Container: set spec.resources.memory to 1Gi at most",
    ),
    "too little of two": (
        SERVE,
        "[minimum cpu usage per Container is 1, but request is 500m, minimum memory usage per Container is 2Gi, but request is 1Gi]",
        (
            f"{RANGE}minimum of 1 cpu per Container: set spec.resources.cpu to 1 at least; "
            f"{RANGE}minimum of 2Gi memory per Container: set spec.resources.memory to 2Gi at least"
        ),
    ),
    "memory that is not message": (
        TUNE,
        "minimum memory usage per Container is 1Gi.  No request is specified",
        f"{RANGE}minimum of 1Gi memory per Container: set spec.resources.memory to 1Gi at least",
    ),
    "a limit of cores that is not there": (
        TUNE,
        "maximum cpu usage per Pod is 4.  No limit is specified",
        f"{RANGE}maximum of 4 cpu per Pod: ask its owner to add a default limit of cpu for containers within that bound",
    ),
    "all containers of a pod": (
        EVAL,
        "maximum memory usage per Pod is 2Gi, but limit is 4294967296",
        f"{RANGE}maximum of 2Gi memory per Pod, all its containers together: lower spec.resources.memory",
    ),
    "more devices than a container may have": (
        TUNE,
        "maximum nvidia.com/gpu usage per Container is 2, but limit is 8",
        f"{RANGE}maximum of 2 nvidia.com/gpu per Container: set spec.resources.count to 2",
    ),
    "more devices, of which the maximum does not divide a batch": (
        TUNE,
        "maximum nvidia.com/gpu usage per Pod is 3, but limit is 8",
        f"{RANGE}maximum of 3 nvidia.com/gpu per Pod: set spec.resources.count to 2",
    ),
    "no device at all": (
        TUNE,
        "maximum nvidia.com/gpu usage per Container is 0, but limit is 1",
        f"{RANGE}maximum of 0 nvidia.com/gpu per Container: ask its owner to change it",
    ),
    "the small container beside an engine": (
        EVAL,
        "minimum cpu usage per Container is 250m, but request is 100m",
        f"{RANGE}minimum of 250m cpu per Container: ask its owner to lower it to 100m, the request of container evaluate",
    ),
    "a limit far above the request": (
        TUNE,
        "cpu max limit to request ratio per Container is 4, but provided ratio is 8.000000",
        (
            "a LimitRange of namespace team allows cpu limits of 4 times the request, and its default limit is higher: raise "
            "spec.resources.cpu, or ask its owner to lower the default"
        ),
    ),
    "memory by a default": (
        TUNE,
        "memory max limit to request ratio per Container is 1, but provided ratio is 2.000000",
        (
            "a LimitRange of namespace team allows memory limits of 1 times the request: set spec.resources.memory, which is both "
            "request and limit"
        ),
    ),
    "a request above the default limit": (
        TUNE,
        (
            'Pod "support-tune-1-x7k2p" is invalid: spec.containers[0].resources.requests: Invalid value: "2": must be less than or '
            "equal to cpu limit of 500m"
        ),
        (
            "set spec.resources.cpu to 500m at most, or ask for a default limit of cpu of at least 2 in the LimitRange of namespace "
            "team"
        ),
    ),
    "the memory of a small container above the default limit": (
        EVAL,
        'spec.containers[0].resources.requests: Invalid value: "512Mi": must be less than or equal to memory limit of 256Mi',
        "ask for a default limit of memory of at least 512Mi in the LimitRange of namespace team",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_hint_names_the_field_and_the_direction(case: str) -> None:
    kind, message, hint = CASES[case]
    found = interpret(f'pods "support-tune-1-x7k2p" is forbidden: {message}', "team", kind)
    assert found
    assert found.hint == hint
    assert (found.class_ is FailureClass.QUOTA_EXCEEDED) is ("quota" in message)
    assert all(has_field(kind, path) for path in fields_in(found.hint))


def test_other_rejections_are_not_interpreted() -> None:
    assert interpret('admission webhook "costs" denied the request', "team", TUNE) is None


@given(
    message=st.lists(
        st.sampled_from(
            ["exceeded quota: a, requested: ", "cpu=", "used: x, limited: ", "must specify ", "failed quota: q: "]
        )
        | st.text(max_size=20)
    ).map("".join)
)
def test_no_message_causes_an_error(message: str) -> None:
    found = interpret(message, "team", TUNE)
    assert found is None or found.hint


@given(st.integers(1, 64))
def test_the_proposed_number_of_devices_divides_the_number_before(count: int) -> None:
    fewer = divisor(count)
    assert (fewer is None) is (count == 1)
    assert fewer is None or (fewer < count and count % fewer == 0)
