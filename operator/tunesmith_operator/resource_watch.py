"""kopf as the informer of our kinds: it lists and watches them for the controller, and writes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from tunesmith_operator import metrics
from tunesmith_operator.client import RESOURCES
from tunesmith_operator.connection import authorization, load_configuration, watch_session
from tunesmith_operator.controller import Controller
from tunesmith_operator.informer import BACKOFF_SECONDS
from tunesmith_operator.kopf_stores import NoDiffBase, NoMemories, NoProgress
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.types import Raw

OUR_KINDS = tuple(KINDS)

RELOGIN_SECONDS = 5

Handler = Callable[..., Awaitable[Any]]


async def watch(controller: Controller, namespaces: tuple[str, ...]) -> None:
    """Watch `namespaces` (empty: all) until cancelled. Raises if a stream cannot be opened for minutes."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry, id="login")(_login())
    for kind in OUR_KINDS:
        _on_event(registry, kind, _handler(controller, kind))
    scope = {"namespaces": namespaces} if namespaces else {"clusterwide": True}
    # By default kopf derives an identity from the name of the user, which a container's user lacks.
    await kopf.operator(
        registry=registry,
        settings=_settings(),
        memories=NoMemories(),
        standalone=True,
        identity="tunesmith",
        **scope,
    )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # it would need rights on namespaces and CRDs
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    settings.process.ultimate_exiting_timeout = 25
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = BACKOFF_SECONDS[1:]
    settings.watching.chunk_size = 250
    settings.queueing.idle_timeout = 0.5  # kopf keeps a task this long for each object with an event
    return settings


def _selector(kind: str) -> tuple[str, str, str]:
    resource = RESOURCES[kind]
    group, _, version = resource.api_version.rpartition("/")
    return group, version, resource.plural


def _on_event(registry: kopf.OperatorRegistry, kind: str, handler: Handler) -> None:
    kopf.on.event(*_selector(kind), registry=registry, id=kind)(handler)


def _handler(controller: Controller, kind: str) -> Handler:
    async def on_event(event: Any, **_: Any) -> None:
        metrics.WATCH_EVENTS.labels(kind).inc()
        metrics.LAST_WATCH_EVENT.labels(kind).set(time.time())
        controller.on_resource_event(event["type"], _with_kind(kind, event["object"]))

    return on_event


def _with_kind(kind: str, obj: Raw) -> Raw:
    """The items of a list lack kind and apiVersion."""
    return {**obj, "kind": kind, "apiVersion": RESOURCES[kind].api_version}


def _login() -> Handler:
    """Log in to kopf with our session. Delay if the same, rejected token would be used again."""
    last: dict[str, str] | None = None

    async def login(**_: Any) -> kopf.AiohttpSession:
        nonlocal last
        configuration = await load_configuration()
        header = await authorization(configuration)
        if header == last:
            await asyncio.sleep(RELOGIN_SECONDS)
        last = header
        return kopf.AiohttpSession(server=configuration.host, aiohttp_session=await watch_session(configuration))

    return login
