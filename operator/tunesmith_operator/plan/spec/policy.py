"""The administrator's policy (podPolicy): the values that resources may use in fields that become fields and volumes of pods.

The operator creates pods with its own rights. A user without the right to create pods must not gain by a resource what a pod
would give: another service account, a higher priority, reserved nodes, credentials and texts of others. See docs/security.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from tunesmith_api.catalogue import STORE_FOLDER
from tunesmith_api.refusal import Refusal
from tunesmith_api.spec_fields import values_at
from tunesmith_api.tracking import SERVERS
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.types import Raw

NAMES: dict[str, str] = {
    "storage.credentialsSecret": "credentialsSecrets",
    "storage.endpoint": "endpoints",
    "tracking.secret": "credentialsSecrets",
    "tracking.url": "endpoints",
    "training.chatTemplate.configMap.name": "configMaps",
    "rewards[].judge.apiKeySecret": "credentialsSecrets",
    "rewards[].judge.url": "judges",
    "rewards[].code.configMap.name": "configMaps",
    "pod.serviceAccountName": "serviceAccounts",
    "pod.priorityClassName": "priorityClasses",
    "pod.runtimeClassName": "runtimeClasses",
    "pod.schedulerName": "schedulers",
}
"""Field below spec -> the list of the policy that must contain its value."""
REQUIRED = (".configMap.name", ".url")
"""Ends of fields that are removed together with the field above them."""
REWARD = "rewards[]."
"""Beginning of a field that is removed together with its reward."""
URLS = frozenset({"endpoints", "judges"})
"""Lists of URLs."""
KEYS: dict[str, str] = {"pod.labels": "labels", "pod.annotations": "annotations"}
"""Map below spec -> the list that must contain its keys."""

SHARED_FOLDERS = frozenset({"models", "evals", "services", STORE_FOLDER})
"""Folders of the default store that all namespaces share: contents addressed by digest, and the catalogue of names."""
RUNS_FOLDER = "runs"
"""Folder of the default store with one folder for each namespace."""


def policy_refusals(spec: Raw, config: OperatorConfig, namespace: str) -> Iterator[Refusal]:
    """Yield what the policy refuses in a spec (camelCase data) of `namespace`."""
    lists = config.pod_policy.model_dump(by_alias=True)
    lists["credentialsSecrets"] = [*lists["credentialsSecrets"], config.store.credentials_secret]
    lists["endpoints"] = [*lists["endpoints"], config.store.endpoint]
    for field, name, policy in _requested_values(spec):
        listed = _is_endpoint if policy in URLS else fnmatchcase
        if not any(listed(name, pattern) for pattern in lists[policy] if pattern):
            yield Refusal(
                f"{field} {name or 'without a key'}: the operator's policy does not allow it",
                f"{_removal(field)}, or ask an administrator to add it to podPolicy.{policy} in the chart's values",
            )
    if any(values_at(spec, "rewards[].code")) and not config.pod_policy.reward_code:
        yield Refusal(
            "rewards[].code: the operator's policy does not allow it",
            "remove the reward from spec.rewards, or ask an administrator to set podPolicy.rewardCode: true in the chart's values",
        )
    for uri in values_at(spec, "output.uri"):
        yield from _foreign_folder(str(uri), config.store.uri, namespace)


def _removal(field: str) -> str:
    """How to do without the value of a field."""
    if field.startswith(REWARD):
        return "remove the reward from spec.rewards"
    end = next((each for each in REQUIRED if field.endswith(each)), None)
    return f"remove spec.{field.removesuffix(end)}" if end else f"remove it from spec.{field}"


def _requested_values(spec: Raw) -> Iterator[tuple[str, str, str]]:
    """Yield (field, value, list of the policy). A toleration without a key tolerates every taint.

    A tracker without a URL has that of its public server.
    """
    for field, policy in NAMES.items():
        yield from ((field, str(name), policy) for name in values_at(spec, field))
    for tracking in values_at(spec, "tracking"):
        if not tracking.get("url") and tracking.get("to") in SERVERS:
            yield "tracking.url", SERVERS[tracking["to"]], "endpoints"
    for field, policy in KEYS.items():
        yield from ((field, key, policy) for map_ in values_at(spec, field) for key in map_)
    for toleration in values_at(spec, "pod.tolerations[]"):
        yield "pod.tolerations", toleration.get("key") or "", "tolerations"


def _is_endpoint(url: str, pattern: str) -> bool:
    """Whether a URL matches a pattern. A * matches part of a host name only: beyond an @, / or : it would match other servers."""
    parts = [re.escape(part) for part in pattern.rstrip("/").split("*")]
    return pattern == "*" or re.fullmatch("[A-Za-z0-9.-]*".join(parts), url.rstrip("/")) is not None


def _foreign_folder(uri: str, store: str, namespace: str) -> Iterator[Refusal]:
    """Refuse folders of the default store that belong to another namespace: the store's credentials may open them all."""
    folders, root = _folders(uri), _folders(store)
    if {".", ".."} & {*folders}:
        yield Refusal(
            f"output.uri {uri}: . and .. are not allowed as names of folders",
            "write the folder's own name in spec.output.uri",
        )
    elif folders[: len(root)] == root:
        rest = folders[len(root) :]
        theirs = rest[:1] == [RUNS_FOLDER] and rest[1:2] != [namespace]
        if theirs or SHARED_FOLDERS.intersection(rest[:1]):
            own = f"{store.rstrip('/')}/{RUNS_FOLDER}/{namespace}/"
            yield Refusal(
                f"output.uri {uri}: the folder does not belong to this namespace",
                f"remove spec.output.uri, or name a folder below {own}",
            )


def _folders(uri: str) -> list[str]:
    scheme, _, path = uri.partition("://")
    return [scheme, *(part for part in path.split("/") if part)]
