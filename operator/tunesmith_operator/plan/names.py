"""Names, labels, annotations and owner references of children, and accessors of metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith_api import API_VERSION, GROUP
from tunesmith_operator.plan.types import Key, Raw

MANAGER = "tunesmith"
"""Field manager of server-side apply, and the value of app.kubernetes.io/managed-by."""

KIND_LABEL = f"{GROUP}/kind"
NAME_LABEL = f"{GROUP}/name"
UID_LABEL = f"{GROUP}/uid"
ROLE_LABEL = f"{GROUP}/role"

ATTEMPT_ANNOTATION = f"{GROUP}/attempt"
FAILURES_ANNOTATION = f"{GROUP}/failures"
"""On a Job: number of failures that counted towards spec.retries when it was created."""
TOKEN_ANNOTATION = f"{GROUP}/progress-token-sha256"
VERSION_ANNOTATION = f"{GROUP}/version"
"""On a Deployment's pods: hash of the version that they serve."""


def metadata(thing: Raw) -> Raw:
    """Return the metadata of an object; empty if it has none."""
    return thing.get("metadata") or {}


def name_of(thing: Raw) -> str:
    """Return the name of an object."""
    return str(metadata(thing).get("name", ""))


def namespace_of(thing: Raw) -> str:
    """Return the namespace of an object."""
    return str(metadata(thing).get("namespace", ""))


def uid_of(thing: Raw) -> str:
    """Return the uid of an object."""
    return str(metadata(thing).get("uid", ""))


def key_of(thing: Raw, kind: str) -> Key:
    """Return the key of a child (items of a list have no kind of their own)."""
    return Key(kind, name_of(thing))


def annotation(thing: Raw, name: str) -> str | None:
    """Return an annotation of an object; None if it has none of this name."""
    value = (metadata(thing).get("annotations") or {}).get(name)
    return None if value is None else str(value)


def label(thing: Raw, name: str) -> str | None:
    """Return a label of an object; None if it has none of this name."""
    value = (metadata(thing).get("labels") or {}).get(name)
    return None if value is None else str(value)


def is_deleting(thing: Raw) -> bool:
    """Whether an object is being deleted."""
    return bool(metadata(thing).get("deletionTimestamp"))


def has_no_status(resource: Raw) -> bool:
    """Whether the operator has not written a status yet."""
    return "phase" not in (resource.get("status") or {})


def job_stem(resource: Raw, role: str) -> str:
    """Return the beginning of the names of a role's Jobs; the number of the attempt follows."""
    return f"{name_of(resource)}-{role}-"


def job_name(resource: Raw, role: str, attempt: int) -> str:
    """Return the name of a Job, such as `support-tune-1` or `support-eval-baseline-2`."""
    return f"{job_stem(resource, role)}{attempt}"


def selector(resource: Raw, role: str) -> dict[str, str]:
    """Return the labels that only the pods of this resource in this role have."""
    return {UID_LABEL: uid_of(resource), ROLE_LABEL: role}


def labels(resource: Raw, role: str) -> dict[str, str]:
    """Return the labels of a child."""
    return {
        "app.kubernetes.io/name": "tunesmith",
        "app.kubernetes.io/instance": name_of(resource),
        "app.kubernetes.io/component": role,
        "app.kubernetes.io/managed-by": MANAGER,
        KIND_LABEL: str(resource["kind"]),
        NAME_LABEL: name_of(resource),
        **selector(resource, role),
    }


def owner_reference(resource: Raw) -> Raw:
    """Return the controller reference by which garbage collection deletes the child with its resource."""
    return {
        "apiVersion": API_VERSION,
        "kind": resource["kind"],
        "name": name_of(resource),
        "uid": uid_of(resource),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def child_metadata(resource: Raw, name: str, role: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the metadata of a child."""
    return {
        "name": name,
        "namespace": metadata(resource).get("namespace"),
        "labels": labels(resource, role),
        **({"annotations": dict(annotations)} if annotations else {}),
        "ownerReferences": [owner_reference(resource)],
    }


def is_leftover(thing: Raw, resource: Raw) -> bool:
    """Whether `thing` is a child of a deleted resource of the same kind and name: garbage collection will delete it."""
    references = metadata(thing).get("ownerReferences") or []
    owner: Raw = next((reference for reference in references if reference.get("controller")), {})
    same = (owner.get("kind"), owner.get("name")) == (resource["kind"], name_of(resource))
    return same and owner.get("uid") != uid_of(resource)
