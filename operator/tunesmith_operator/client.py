"""The part of the Kubernetes API that the operator uses, as a Protocol: its kinds, its calls, its error.

`kubernetes_client.py` implements it over HTTP, the tests implement it in memory. Objects are raw dicts. A call that did
not succeed raises ApiError; a failed read is never an empty result.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tunesmith_api import API_VERSION
from tunesmith_operator.plan.types import Raw

FIELD_MANAGER = "tunesmith"


@dataclass(frozen=True)
class ApiResource:
    """Where the objects of a kind are served."""

    api_version: str
    plural: str

    def at_version(self, version: str) -> ApiResource:
        """The same resource in another version of its API group."""
        return ApiResource(f"{self.api_version.rpartition('/')[0]}/{version}", self.plural)

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of an object; without `name`, of the list in `namespace` (None: in all)."""
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
    "Workload": ApiResource("kueue.x-k8s.io/v1beta2", "workloads"),
}
"""The kinds that the operator reads or writes. Its RBAC rules name these and no others."""


class ApiError(Exception):
    """The API server rejected a request, or could not be reached (`status` 0)."""

    def __init__(self, request: str, status: int, reason: str, message: str, fields: Iterable[str] = ()) -> None:
        super().__init__(f"{request}: {status or 'no answer'} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message
        self.fields = tuple(fields)
        """Paths of the invalid fields, such as `status.artifacts[0].uri`, if the API server names them."""

    @property
    def already_exists(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """The object has another uid or resourceVersion than the request names."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def invalid(self) -> bool:
        """The object violates its schema or a validation rule."""
        return self.status == 422

    @property
    def refused(self) -> bool:
        """The same request is rejected again until somebody changes a quota, a policy or the object."""
        return self.status == 403 or self.invalid or (self.status == 400 and self.reason in ("BadRequest", "Invalid"))


class Client(Protocol):
    """The calls of the controllers. The result of a write holds the metadata of the object at least."""

    async def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        """Read the object; None if it does not exist."""

    async def list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
        cached: bool = False,
        since: str | None = None,
        version: str | None = None,
    ) -> list[Raw]:
        """List the objects of a namespace (None: of all) with these labels and fields, at most `limit`.

        `cached`: from the API server's watch cache, which is cheap: etcd would read every object of the namespace. The
        cache may lag behind; it includes every write up to the resourceVersion `since`. `version`: of the API group.
        """

    def each(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> AsyncGenerator[Raw, None]:
        """List in pages. Raises ApiError 410 if the list expires before its last page."""

    async def version(self, kind: str, namespace: str | None) -> str:
        """The resourceVersion of the watch cache, from which a watch can start."""

    async def served_versions(self, group: str) -> Sequence[str]:
        """The versions of an API group that are served, the preferred one first; empty if there is no such group."""

    def watch(
        self, kind: str, namespace: str | None, labels: Mapping[str, str], since: str
    ) -> AsyncGenerator[tuple[str, Raw], None]:
        """Watch events after the resourceVersion `since`: ADDED, MODIFIED or DELETED with the object, or BOOKMARK with
        only a version. Ends when the server ends the stream. Raises ApiError 410 if `since` has expired.
        """

    async def create(self, manifest: Raw) -> Raw:
        """Create the object. ApiError.already_exists if the name is taken."""

    async def replace(self, manifest: Raw) -> Raw:
        """Replace the version that `metadata.resourceVersion` names, else ApiError.conflict."""

    async def apply(self, manifest: Raw, uid: str | None) -> Raw:
        """Server-side apply to the object with `uid`; None: only if there is no such object, else ApiError.conflict."""

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete the object with `uid` and, in the background, its dependents. No effect on another object or on none."""

    async def write_status(self, resource: Raw, status: Raw) -> Raw:
        """Replace the whole status of `resource` if its resourceVersion is still current, else ApiError.conflict."""


def controller_uid(manifest: Raw) -> str | None:
    """The uid of the object's controller: the owner whose reference has `controller: true`."""
    owners = manifest.get("metadata", {}).get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)
