"""Finished resources in bulk, each with its Job and pod. They are created in their final state."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.apiserver.cluster import Cluster, Raw
from tests.bench.scale.race import CREATORS

UNMANAGED = "tunesmith.dev/bench"
"""spec.managedBy of the Jobs, so that the Job controller does not change them."""


@dataclass(frozen=True)
class Sample:
    """A FineTuneJob that has succeeded, with its Job and pod."""

    resource: Raw
    job: Raw
    pod: Raw

    @classmethod
    def of(cls, cluster: Cluster, name: str) -> Sample:
        pod = cluster.pod_of(f"{name}-tune-1")["metadata"]["name"]
        things = [cluster.get(*key) for key in (("FineTuneJob", name), ("Job", f"{name}-tune-1"), ("Pod", pod))]
        return cls(*(thing for thing in things if thing is not None))


def fill(cluster: Cluster, sample: Sample, count: int) -> None:
    """Create `count` copies of the sample."""
    with ThreadPoolExecutor(CREATORS) as creators:
        list(creators.map(lambda number: _make(cluster, sample, f"old-{number}"), range(count)))


def _make(cluster: Cluster, sample: Sample, name: str) -> None:
    old = sample.resource["metadata"]["name"]
    children = [{**child, "name": child["name"].replace(old, name)} for child in sample.resource["status"]["children"]]
    made = cluster.create({**_bare(sample.resource, name), "spec": sample.resource["spec"]})
    status = {**sample.resource["status"], "children": children}
    cluster.patch("FineTuneJob", name, {"status": status}, "status")

    job = _owned(sample.job, f"{name}-tune-1", made)
    job["spec"] = {name: value for name, value in job["spec"].items() if name != "selector"}
    job["spec"] |= {"managedBy": UNMANAGED, "template": _without_labels_of_controllers(job["spec"]["template"])}
    job = cluster.create(job)
    cluster.patch("Job", job["metadata"]["name"], {"status": sample.job["status"]}, "status")

    pod = _owned(sample.pod, f"{name}-tune-1-x2k4z", made)
    pod["metadata"]["ownerReferences"] = [_controller(job)]
    cluster.create(pod)
    cluster.patch("Pod", pod["metadata"]["name"], {"status": sample.pod["status"]}, "status")


def _owned(thing: Raw, name: str, resource: Raw) -> Raw:
    """The manifest of `thing` as a child of `resource`."""
    labels = {**thing["metadata"]["labels"], "tunesmith.dev/name": resource["metadata"]["name"]}
    labels["tunesmith.dev/uid"] = resource["metadata"]["uid"]
    bare = _bare(thing, name)
    bare["metadata"] |= {
        "labels": {
            key: value for key, value in labels.items() if "controller-uid" not in key and "job-name" not in key
        },
        "annotations": thing["metadata"].get("annotations") or {},
        "ownerReferences": [_controller(resource)],
    }
    return {**bare, "spec": copy.deepcopy(thing["spec"])}


def _without_labels_of_controllers(template: Raw) -> Raw:
    labels = template["metadata"]["labels"]
    kept = {key: value for key, value in labels.items() if "controller-uid" not in key and "job-name" not in key}
    return {**template, "metadata": {**template["metadata"], "labels": kept}}


def _bare(thing: Raw, name: str) -> Raw:
    return {"apiVersion": thing["apiVersion"], "kind": thing["kind"], "metadata": {"name": name}}


def _controller(thing: Raw) -> Raw:
    owner = {"apiVersion": thing["apiVersion"], "kind": thing["kind"], "controller": True}
    return {**owner, "name": thing["metadata"]["name"], "uid": thing["metadata"]["uid"]}
