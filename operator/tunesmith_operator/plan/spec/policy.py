"""What an administrator leaves to those who write resources: pods are made by the operator, with its rights, not theirs.

Whoever may not create pods must not get by a resource what a pod would give: another identity, another's place in the
queue, nodes that are kept free, credentials that were meant for somebody else. See docs/security.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from tunesmith_api.compatibility import values_at
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.types import Raw

NAMES: dict[str, str] = {
    "storage.credentialsSecret": "credentialsSecrets",
    "storage.endpoint": "endpoints",
    "pod.serviceAccountName": "serviceAccounts",
    "pod.priorityClassName": "priorityClasses",
    "pod.runtimeClassName": "runtimeClasses",
    "pod.schedulerName": "schedulers",
}
"""Field below spec, and the list of the policy that its value must be in."""
KEYS: dict[str, str] = {"pod.labels": "labels", "pod.annotations": "annotations"}
"""Maps below spec, and the list that their keys must be in."""

SHARED_FOLDERS = frozenset({"models", "evals", "services"})
"""Folders of the default store that hold what is found by its content, whoever made it."""
RUNS_FOLDER = "runs"
"""Folder of the default store with one folder for each namespace."""


def against_policy(spec: Raw, config: OperatorConfig, namespace: str) -> Iterator[str]:
    """What the administrator's policy refuses in a spec (camelCase data) of `namespace`, as sentences."""
    lists = config.pod_policy.model_dump(by_alias=True)
    lists["credentialsSecrets"] = [*lists["credentialsSecrets"], config.store.credentials_secret]
    lists["endpoints"] = [*lists["endpoints"], config.store.endpoint]
    for field, name, policy in _asked(spec):
        listed = _is_endpoint if policy == "endpoints" else fnmatchcase
        if not any(listed(name, pattern) for pattern in lists[policy] if pattern):
            yield (
                f"{field} {name or 'without a key'}: this operator does not allow it; remove it, "
                f"or have an administrator add it to podPolicy.{policy} in the chart's values"
            )
    for uri in values_at(spec, "output.uri"):
        yield from _not_yours(str(uri), config.store.uri, namespace)


def _asked(spec: Raw) -> Iterator[tuple[str, str, str]]:
    """Field, name, and the list that the name must be in. A toleration without a key tolerates every taint."""
    for field, policy in NAMES.items():
        yield from ((field, str(name), policy) for name in values_at(spec, field))
    for field, policy in KEYS.items():
        yield from ((field, key, policy) for map_ in values_at(spec, field) for key in map_)
    for toleration in values_at(spec, "pod.tolerations[]"):
        yield "pod.tolerations", toleration.get("key") or "", "tolerations"


def _is_endpoint(url: str, pattern: str) -> bool:
    """Whether a URL is of a pattern. A * stands for a part of a host's name: beyond an @, / or : another server begins."""
    parts = [re.escape(part) for part in pattern.rstrip("/").split("*")]
    return pattern == "*" or re.fullmatch("[A-Za-z0-9.-]*".join(parts), url.rstrip("/")) is not None


def _not_yours(uri: str, store: str, namespace: str) -> Iterator[str]:
    """Places in the default store that are another namespace's or nobody's: its credentials may open them all."""
    folders, root = _folders(uri), _folders(store)
    if {".", ".."} & {*folders}:
        yield f"output.uri {uri}: it has a folder named . or ..; name the folder itself"
    elif folders[: len(root)] == root:
        rest = folders[len(root) :]
        theirs = rest[:1] == [RUNS_FOLDER] and rest[1:2] != [namespace]
        if theirs or SHARED_FOLDERS.intersection(rest[:1]):
            own = f"{store.rstrip('/')}/{RUNS_FOLDER}/{namespace}/"
            yield f"output.uri {uri}: that folder of the store is not this namespace's; leave it out, or write below {own}"


def _folders(uri: str) -> list[str]:
    scheme, _, path = uri.partition("://")
    return [scheme, *(part for part in path.split("/") if part)]
