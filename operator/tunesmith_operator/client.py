"""The little of the Kubernetes API that the operator needs, so that it can be had from something else than a cluster.

Objects are raw dicts. Every call either did what it says or raises ApiError; a failed read is never an empty answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tunesmith_api import API_VERSION

Raw = dict[str, Any]

FIELD_MANAGER = "tunesmith"


@dataclass(frozen=True)
class ApiResource:
    """Where the objects of a kind are served."""

    api_version: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of one object, or of all in `namespace`, or of all (None)."""
        group = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        parts = [group, *(("namespaces", namespace) if namespace else ()), self.plural]
        return "/".join(part for part in (*parts, name, subresource) if part)


RESOURCES: Mapping[str, ApiResource] = {
    "FineTuneJob": ApiResource(API_VERSION, "finetunejobs"),
    "EvalJob": ApiResource(API_VERSION, "evaljobs"),
    "InferenceService": ApiResource(API_VERSION, "inferenceservices"),
    "Job": ApiResource("batch/v1", "jobs"),
    "Deployment": ApiResource("apps/v1", "deployments"),
    "ControllerRevision": ApiResource("apps/v1", "controllerrevisions"),
    "HorizontalPodAutoscaler": ApiResource("autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": ApiResource("policy/v1", "poddisruptionbudgets"),
    "Pod": ApiResource("v1", "pods"),
    "Service": ApiResource("v1", "services"),
    "Event": ApiResource("v1", "events"),
    "Lease": ApiResource("coordination.k8s.io/v1", "leases"),
    "Workload": ApiResource("kueue.x-k8s.io/v1beta1", "workloads"),
}
"""The kinds the operator reads or writes. Its RBAC rules name these and no others."""


class ApiError(Exception):
    """The API server refused a request, or could not be reached (`status` 0)."""

    def __init__(self, request: str, status: int, reason: str, message: str, fields: Iterable[str] = ()) -> None:
        super().__init__(f"{request}: {status or 'no answer'} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message
        self.fields = tuple(fields)
        """Paths of the fields that were found wrong, such as `status.artifacts[0].uri`, where the server told."""

    @property
    def already_exists(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """The object is not the one, or not the version, that the request was made for."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def invalid(self) -> bool:
        """The object is not as its schema or its rules want it."""
        return self.status == 422

    @property
    def refused(self) -> bool:
        """The same request will be refused again until somebody changes something: a quota, a policy, a name."""
        return self.status == 403 or self.invalid or (self.status == 400 and self.reason in ("BadRequest", "Invalid"))


class Client(Protocol):
    """What the controllers ask of a cluster. Of what it has written it gives back the metadata at least."""

    async def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        """The object as it is now; None where there is none."""

    async def list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
        cached: bool = False,
        since: str | None = None,
    ) -> list[Raw]:
        """The objects of a namespace (None: of all) with these labels and fields; the first `limit` only, if given.

        `cached`: from the API server's watch cache, as controllers see it. That is cheap where etcd would have to read
        every object of the namespace, but it may lack what was written a moment ago; all up to version `since` is in it.
        """

    def each(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> AsyncGenerator[Raw, None]:
        """The same one after the other, read in parts; ApiError 410 where that took too long to be gone on with."""

    async def version(self, kind: str, namespace: str | None) -> str:
        """The version that the watch cache is at: all later ones can be watched."""

    def watch(
        self, kind: str, namespace: str | None, labels: Mapping[str, str], since: str
    ) -> AsyncGenerator[tuple[str, Raw], None]:
        """What happens to them after version `since`: ADDED, MODIFIED or DELETED and the object, or BOOKMARK and
        nothing but a version. Ends when the server ends it; ApiError 410 where `since` is too long ago.
        """

    async def create(self, manifest: Raw) -> Raw:
        """Make the object. ApiError.already_exists where there is one of that name."""

    async def replace(self, manifest: Raw) -> Raw:
        """Put the object in place of the version that `metadata.resourceVersion` names; else ApiError.conflict."""

    async def apply(self, manifest: Raw, uid: str | None) -> Raw:
        """Server-side apply over the object with `uid`, or, with None, where there is no such object.

        ApiError.conflict where that does not hold.
        """

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete the object with `uid` and, in the background, what it owns. Nothing happens to another or to none."""

    async def write_status(self, resource: Raw, status: Raw) -> Raw:
        """Put `status` in place of the whole status of `resource`, if it has not changed since; else ApiError.conflict."""


def describe(manifest: Raw) -> str:
    """`Kind namespace/name`, for messages."""
    metadata = manifest.get("metadata", {})
    return f"{manifest.get('kind')} {metadata.get('namespace')}/{metadata.get('name')}"


def controller_uid(manifest: Raw) -> str | None:
    """The UID of the object's controller: its one owner that manages it."""
    owners = manifest.get("metadata", {}).get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)
