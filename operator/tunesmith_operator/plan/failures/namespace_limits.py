"""What a namespace's ResourceQuotas and LimitRanges refuse, and the field of our spec by which a pod gets through.

Sources: the admission plugins resourcequota and limitranger of Kubernetes 1.36, and the validation of pods, which compares
our requests with the default limits that a LimitRange adds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal

from tunesmith_api.failures import EVAL, SERVE, TUNE, FailureClass
from tunesmith_operator.plan.drift import parse_quantity
from tunesmith_operator.plan.failures.cluster_messages import READ_CHARACTERS, Interpretation
from tunesmith_operator.plan.pods.accelerators import ACCELERATORS
from tunesmith_operator.plan.pods.template import LIGHT_REQUESTS

COUNT = "spec.resources.count"
FIELDS: dict[str, str] = {
    "cpu": "spec.resources.cpu",
    "memory": "spec.resources.memory",
    "ephemeral-storage": "spec.resources.ephemeralStorage",
    **dict.fromkeys((accelerator.resource for accelerator in ACCELERATORS.values() if accelerator.resource), COUNT),
}
"""Resource -> the field of spec that our containers' requests, and the limits of memory and devices, come from."""
PODS: dict[str, str] = {TUNE: "spec.parallelism.nodes", SERVE: "spec.replicas or spec.autoscaling.maxReplicas"}
"""Kind -> the field that says how many pods there are."""
WITHOUT_LIMIT = frozenset({"cpu", "ephemeral-storage"})
"""Our containers ask for these and set no limit: one that they have is the default of a LimitRange."""
LIGHT_CONTAINER = "evaluate"
"""Its requests are the operator's (LIGHT_REQUESTS): no field of a spec changes them."""

Reader = Callable[[re.Match[str], str, str], Iterator[str]]
"""(match, namespace, kind) -> hints."""


def interpret(message: str, namespace: str, kind: str) -> Interpretation | None:
    """Return what to do about the rejection of a child of a resource of `kind`; None if no quota or LimitRange is the cause."""
    for pattern, read, class_ in READERS:
        hints = [hint for match in pattern.finditer(message[:READ_CHARACTERS]) for hint in read(match, namespace, kind)]
        if hints:
            return Interpretation(class_, "; ".join(dict.fromkeys(hints)))
    return None


def divisor(count: int, most: int = 64) -> int | None:
    """Return the largest divisor of `count` devices below it and not above `most`: it divides every batch that `count` divides."""
    return next((some for some in range(min(count // 2, most, 64), 0, -1) if count % some == 0), None)


def devices(amounts: Mapping[str, object]) -> int:
    """How many devices are among the limits or requests of a container."""
    return sum(int(_number(str(amount))) for name, amount in amounts.items() if FIELDS.get(name) == COUNT)


def _exceeded(match: re.Match[str], namespace: str, kind: str) -> Iterator[str]:
    quota, asked, most = match["quota"], _amounts(match["requested"]), _amounts(match["limited"])
    used = _amounts(match["used"])
    free = {name: _number(most.get(name, "0")) - _number(used.get(name, "0")) for name in asked}
    nothing = {name for name in asked if name in most and _number(most[name]) == 0}
    each = [None if name in nothing else _less(name, amount, free[name], kind) for name, amount in asked.items()]
    less = [] if None in each else [" and ".join(dict.fromkeys(map(str, each)))]  # one that stays too much is enough
    alone = any(_number(amount) > _number(most.get(name, amount)) for name, amount in asked.items())
    wait = [] if alone else ["wait until other work of the namespace ends"]
    why = "is smaller than the request of this pod alone" if alone else "has no room"
    ways = [*less, *wait, f"ask for a higher quota (kubectl --namespace {namespace} describe quota {quota})"]
    yield f"ResourceQuota {quota} {why}: {_one_of(ways)}"


def _unspecified(match: re.Match[str], namespace: str, kind: str) -> Iterator[str]:
    """Names with the containers that lack them, as in `limits.cpu for: fetch,train; limits.memory for: fetch`."""
    for entry in match["what"].split(";"):
        names, _, containers = entry.partition(" for: ")
        for name in names.strip().split(","):
            field = _field(name)
            if field and containers.strip() != LIGHT_CONTAINER:
                yield f"ResourceQuota {match['quota']} counts {name}: set {field}"
            if not field or LIGHT_CONTAINER in containers.split(","):
                yield f"ResourceQuota {match['quota']} counts {name}: create a LimitRange with a default for it in namespace {namespace}"


def _out_of_range(match: re.Match[str], namespace: str, kind: str) -> Iterator[str]:
    bound, what, per, amount = match["bound"], match["what"], match["per"], match["amount"].rstrip(".,")
    side, asked = match["side"] or match["lacks"], match["asked"]
    field = FIELDS.get(what)
    where = f"a LimitRange of namespace {namespace} sets a {bound} of {amount} {what} per {per}"
    if field is None:
        yield f"{where}: ask its owner to change it"
    elif what in WITHOUT_LIMIT and side == "limit":
        yield f"{where}: ask its owner to add a default limit of {what} for containers within that bound"
    elif bound == "minimum" and kind == EVAL and asked == LIGHT_REQUESTS.get(what):
        yield f"{where}: ask its owner to lower it to {asked}, the request of container {LIGHT_CONTAINER}"
    elif field == COUNT and bound == "maximum" and asked:
        fewer = divisor(int(_number(asked)), int(_number(amount)))
        yield f"{where}: {f'set {field} to {fewer}' if fewer else 'ask its owner to change it'}"
    elif per == "Pod":
        yield f"{where}, all its containers together: {'lower' if bound == 'maximum' else 'raise'} {field}"
    else:
        yield f"{where}: set {field} to {amount} at {'most' if bound == 'maximum' else 'least'}"


def _ratio(match: re.Match[str], namespace: str, kind: str) -> Iterator[str]:
    what, field = match["what"], FIELDS.get(match["what"])
    where = f"a LimitRange of namespace {namespace} allows {what} limits of {match['ratio']} times the request"
    if field is None or (what in WITHOUT_LIMIT and match["lacks"] == "limit"):
        yield f"{where}: ask its owner to add a default limit of {what} for containers"
    elif what in WITHOUT_LIMIT:
        yield f"{where}, and its default limit is higher: raise {field}, or ask its owner to lower the default"
    else:
        yield f"{where}: set {field}, which is both request and limit"


def _over_the_default(match: re.Match[str], namespace: str, kind: str) -> Iterator[str]:
    what, asked, limit = match["what"], match["asked"], match["limit"]
    raised = f"ask for a default limit of {what} of at least {asked} in the LimitRange of namespace {namespace}"
    fixed = what not in WITHOUT_LIMIT or asked == LIGHT_REQUESTS.get(what)
    yield raised if fixed else f"set {FIELDS[what]} to {limit} at most, or {raised}"


READERS: tuple[tuple[re.Pattern[str], Reader, FailureClass], ...] = (
    (
        re.compile(
            r"exceeded quota: (?P<quota>[^,]+), requested: (?P<requested>\S+), used: (?P<used>\S+), limited: (?P<limited>\S+)"
        ),
        _exceeded,
        FailureClass.QUOTA_EXCEEDED,
    ),
    (
        re.compile(r"failed quota: (?P<quota>[^:]+): must specify (?P<what>.+)"),
        _unspecified,
        FailureClass.QUOTA_EXCEEDED,
    ),
    (
        re.compile(
            r"(?P<bound>minimum|maximum) (?P<what>\S+) usage per (?P<per>\w+) is (?P<amount>[^\s,]+)[.,]?\s+"
            r"(?:but (?P<side>request|limit) is (?P<asked>\w[\w.]*\w|\w)|No (?P<lacks>request|limit) is specified)"
        ),
        _out_of_range,
        FailureClass.POD_REFUSED,
    ),
    (
        re.compile(
            r"(?P<what>\S+) max limit to request ratio per \w+ is (?P<ratio>[\w.]+), but "
            r"(?:provided ratio is|no (?P<lacks>request|limit) is specified)"
        ),
        _ratio,
        FailureClass.POD_REFUSED,
    ),
    (
        re.compile(
            r'resources\.requests: Invalid value: "?(?P<asked>[^":]+)"?: must be less than or equal to '
            r"(?P<what>cpu|memory|ephemeral-storage) limit of (?P<limit>\w[\w.]*)"
        ),
        _over_the_default,
        FailureClass.POD_REFUSED,
    ),
)


def _field(name: str) -> str | None:
    """The field that sets a resource as quotas call it; None for a limit that our containers do not have."""
    bare = name.removeprefix("requests.").removeprefix("limits.")
    return None if name.startswith("limits.") and bare in WITHOUT_LIMIT else FIELDS.get(bare)


def _less(name: str, amount: str, free: Decimal, kind: str) -> str | None:
    """How a pod asks for less of what a quota counts; None where nothing of the spec decides it, or no device is free."""
    field = PODS.get(kind) if name in ("pods", "count/pods") else _field(name)
    if field == COUNT:
        fewer = divisor(int(_number(amount)), int(free))
        return f"lower {field} to {fewer}" if fewer else None
    return f"lower {field}{' where it is above 1' if field in PODS.values() else ''}" if field else None


def _amounts(text: str) -> Mapping[str, str]:
    pairs = (entry.partition("=") for entry in text.split(","))
    return {name: amount for name, _, amount in pairs}


def _number(amount: str) -> Decimal:
    number = parse_quantity(amount)
    return number if isinstance(number, Decimal) else Decimal(0)


def _one_of(ways: list[str]) -> str:
    return f"{', '.join(ways[:-1])} or {ways[-1]}" if len(ways) > 1 else ways[0]
