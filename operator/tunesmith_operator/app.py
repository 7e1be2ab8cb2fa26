"""Assembles the operator and runs it until a signal or the end of a task."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from tunesmith_operator import metrics
from tunesmith_operator.client import ApiError, Client
from tunesmith_operator.controller import Controller, Settings
from tunesmith_operator.health import Health
from tunesmith_operator.informer import CHILD_KINDS, inform
from tunesmith_operator.kubernetes_client import KubernetesClient
from tunesmith_operator.leader import Leader
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.progress_receiver import ProgressEndpoint, ProgressReports, token_maker
from tunesmith_operator.rate_limit import RateLimiter
from tunesmith_operator.resource_watch import OUR_KINDS, watch
from tunesmith_operator.serving import serving

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
WAIT_SECONDS = 5.0
STOP_SECONDS = 5.0
EXCLUDED_RETRY_SECONDS = 60.0
"""Interval of checks whether an excluded namespace can be listed again."""

T = TypeVar("T")

log = logging.getLogger(__name__)


async def run(config: OperatorConfig) -> int:
    """Run the operator. Returns the exit code: 0 after SIGTERM or SIGINT."""
    stop = asyncio.create_task(_wait_for_signal(), name="signals")
    client = KubernetesClient(RateLimiter(config.client.qps, config.client.burst))
    pod = os.environ.get("POD_NAME") or socket.gethostname()
    reports = ProgressReports()
    controller = Controller(client, KINDS, reports, Settings(config, token_maker(secrets.token_bytes(32)), pod))
    metrics.REGISTRY.register(controller.fleet)
    health = Health(controller.queue, time.monotonic)
    leader = _leader(client, config, pod)
    client.may_write = leader.may_write

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        progress = ProgressEndpoint(
            reports, time.monotonic, controller.on_progress_report, leader.holder_url, lambda: leader.is_leader, session
        )
        async with (
            serving(health.application(), config.http.health_port),
            serving(progress.application(), config.http.progress_port),
        ):
            try:
                return await _lead(config, client, controller, leader, health, stop)
            finally:
                await leader.release()
                await client.close()


async def _lead(
    config: OperatorConfig,
    client: Client,
    controller: Controller,
    leader: Leader,
    health: Health,
    stop: asyncio.Task[None],
) -> int:
    """Wait for the API and for the Lease, then work until a task ends or a signal arrives."""
    tasks = [asyncio.create_task(health.beat(), name="heartbeat")]
    try:
        found = await _unless(stop, wait_for_api(client, config.namespaces))
        if found is None:
            return 0
        health.ready, namespaces = True, found.result()
        if await _unless(stop, leader.acquire()) is None:
            return 0
        watcher = asyncio.create_task(watch(controller, namespaces), name="watch")
        excluded = [name for name in config.namespaces if name not in namespaces]
        tasks += [
            watcher,
            asyncio.create_task(wait_for_excluded(client, excluded), name="excluded namespaces"),
            *(
                asyncio.create_task(inform(client, kind, namespace, controller), name=f"watch of {kind}")
                for kind in CHILD_KINDS
                for namespace in namespaces or (None,)
            ),
            asyncio.create_task(leader.keep(), name="lease"),
            asyncio.create_task(controller.resync(), name="resync"),
            *(asyncio.create_task(controller.work(), name=f"worker {number}") for number in range(config.workers)),
        ]
        health.tasks = tasks
        # `stop` too: a signal that arrives before kopf has installed its handlers must not be lost.
        done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
        return _exit_code(done - {stop}, watcher)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SECONDS)


def _exit_code(done: set[asyncio.Task[Any]], watcher: asyncio.Task[Any]) -> int:
    """The exit code when these tasks have ended. Only the watcher may end without an error: kopf handles signals."""
    code = 0
    for task in done:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None or task is not watcher:
            log.critical("%s ended: %r; exiting", task.get_name(), error, exc_info=error)
            code = 1
    return code


async def wait_for_api(client: Client, namespaces: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of `namespaces` in which every kind can be listed; empty for the whole cluster.

    Waits while there are none, and logs what is missing (the CRDs, a right, the API server) instead of crashing. A deleted
    namespace, with its Role, is excluded and does not block the others.
    """
    while True:
        problems = {name: await _list_problem(client, name) for name in namespaces or (None,)}
        wrong = {name: problem for name, problem in problems.items() if problem}
        for problem in wrong.values():
            absent = " (is its CRD installed?)" if problem.status == 404 else ""
            log.error("cannot list: %s%s", problem, absent)
        usable = tuple(name for name in namespaces if name not in wrong)
        if not wrong or (usable and all(problem.status in (403, 404) for problem in wrong.values())):
            return usable
        await asyncio.sleep(WAIT_SECONDS)


async def wait_for_excluded(client: Client, excluded: Sequence[str]) -> None:
    """Return when an excluded namespace can be listed, so that the process restarts and includes it."""
    while True:
        await asyncio.sleep(EXCLUDED_RETRY_SECONDS)
        for name in excluded:
            if await _list_problem(client, name) is None:
                log.warning("namespace %s can be listed now; restarting to include it", name)
                return


async def _list_problem(client: Client, namespace: str | None) -> ApiError | None:
    for kind in (*OUR_KINDS, *CHILD_KINDS):
        try:
            await client.list(kind, namespace, limit=1)
        except ApiError as error:
            return error
    return None


def _leader(client: Client, config: OperatorConfig, pod: str) -> Leader:
    namespace = config.leader_election.namespace or os.environ.get("POD_NAMESPACE") or _own_namespace()
    address = os.environ.get("POD_IP") or "127.0.0.1"
    host = f"[{address}]" if ":" in address else address
    identity = f"{pod}_{host}:{config.http.progress_port}"
    return Leader(client, config.leader_election, namespace, identity)


def _own_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "default"


async def _wait_for_signal() -> None:
    """Return at SIGTERM or SIGINT, until kopf installs its own handlers."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def _unless(stop: asyncio.Task[None], waiting: Coroutine[Any, Any, T]) -> asyncio.Task[T] | None:
    """Wait for `waiting`. Returns its task, or None if the stop signal came first."""
    task = asyncio.create_task(waiting)
    await asyncio.wait((stop, task), return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        return None
    await task
    return task
