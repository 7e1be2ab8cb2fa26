"""Names, labels and owner references: what makes a child recognizable as ours."""

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
"""On a Job: how many failures counted towards spec.retries before it was made."""
TOKEN_ANNOTATION = f"{GROUP}/progress-token-sha256"
VERSION_ANNOTATION = f"{GROUP}/version"
"""On a Deployment's pods: the hash of what they serve and how."""


def metadata(thing: Raw) -> Raw:
    """The metadata of an object, empty where it has none."""
    return thing.get("metadata") or {}


def name_of(thing: Raw) -> str:
    """The name of an object."""
    return str(metadata(thing).get("name", ""))


def namespace_of(thing: Raw) -> str:
    """The namespace of an object."""
    return str(metadata(thing).get("namespace", ""))


def uid_of(thing: Raw) -> str:
    """The uid of an object."""
    return str(metadata(thing).get("uid", ""))


def key_of(thing: Raw, kind: str) -> Key:
    """The key of a child (lists leave the kind of their items out)."""
    return Key(kind, name_of(thing))


def annotation(thing: Raw, name: str) -> str | None:
    """An annotation of an object."""
    value = (metadata(thing).get("annotations") or {}).get(name)
    return None if value is None else str(value)


def label(thing: Raw, name: str) -> str | None:
    """A label of an object."""
    value = (metadata(thing).get("labels") or {}).get(name)
    return None if value is None else str(value)


def is_deleting(thing: Raw) -> bool:
    """Whether an object is on its way out."""
    return bool(metadata(thing).get("deletionTimestamp"))


def is_unseen(resource: Raw) -> bool:
    """Whether its status tells of nothing yet."""
    return "phase" not in (resource.get("status") or {})


def job_stem(resource: Raw, role: str) -> str:
    """How the names of the Jobs of a role begin: the number of the attempt follows."""
    return f"{name_of(resource)}-{role}-"


def job_name(resource: Raw, role: str, attempt: int) -> str:
    """The name of a Job: `support-tune-1`, `support-eval-baseline-2`."""
    return f"{job_stem(resource, role)}{attempt}"


def selector(resource: Raw, role: str) -> dict[str, str]:
    """Labels that only the pods of this resource in this role have."""
    return {UID_LABEL: uid_of(resource), ROLE_LABEL: role}


def labels(resource: Raw, role: str) -> dict[str, str]:
    """The labels of every child."""
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
    """The controller reference by which garbage collection removes the child with its resource."""
    return {
        "apiVersion": API_VERSION,
        "kind": resource["kind"],
        "name": name_of(resource),
        "uid": uid_of(resource),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def child_metadata(resource: Raw, name: str, role: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The metadata of a child."""
    return {
        "name": name,
        "namespace": metadata(resource).get("namespace"),
        "labels": labels(resource, role),
        **({"annotations": dict(annotations)} if annotations else {}),
        "ownerReferences": [owner_reference(resource)],
    }


def is_left_over(thing: Raw, resource: Raw) -> bool:
    """Whether `thing` is the child of a former resource of the same kind and name: garbage collection will take it."""
    owners = (one for one in metadata(thing).get("ownerReferences") or [] if one.get("controller"))
    owner: Raw = next(owners, {})
    same = (owner.get("kind"), owner.get("name")) == (resource["kind"], name_of(resource))
    return same and owner.get("uid") != uid_of(resource)
