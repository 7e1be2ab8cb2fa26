"""Which of several replicas leads: a Lease, as client-go's leader election uses it.

The holder's name is `<pod>_<ip>:<progress port>`, so that the others know where to send what only the leader can use.
A leader that could not renew in time stops writing at once and ends; a new process begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tunesmith_operator import metrics
from tunesmith_operator.client import ApiError, Client
from tunesmith_operator.plan.config import LeaderElection
from tunesmith_operator.plan.types import Raw

log = logging.getLogger(__name__)


class LeaseLost(BaseException):
    """This process leads no more and must end. Not an Exception: nothing may carry on after it."""


class Leader:
    """One replica's view of the Lease. `clock` is in seconds and only goes forward."""

    def __init__(
        self,
        client: Client,
        settings: LeaderElection,
        namespace: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._settings, self._namespace = client, settings, namespace
        self._identity, self._clock = identity, clock
        self._lease: Raw | None = None
        self._is_fresh = False
        """Whether the Lease known is what we ourselves have written last: then it is renewed without being read."""
        self._seen_at = float("-inf")
        """When the Lease was last seen to have changed: other machines' clocks are not trusted."""
        self._renewed_at = float("-inf")
        self.is_leader = False

    @property
    def holder(self) -> str:
        """Who holds the Lease, as far as is known; empty for nobody."""
        return ((self._lease or {}).get("spec") or {}).get("holderIdentity") or ""

    def holder_url(self) -> str | None:
        """The progress endpoint of the leader, if that is another replica."""
        address = self.holder.rpartition("_")[2]
        return f"http://{address}" if address and self.holder != self._identity else None

    def may_write(self) -> None:
        """Raise LeaseLost if another replica may have begun to lead, as after a freeze of this one."""
        if self.is_leader and self._clock() - self._renewed_at > self._settings.renew_seconds:
            raise LeaseLost(f"the Lease was last renewed {self._clock() - self._renewed_at:.0f} s ago")

    async def acquire(self) -> None:
        """Return when this replica leads; at once where there is no election."""
        if not self._settings.enabled:
            self._renewed_at, self.is_leader = float("inf"), True
            metrics.LEADER.set(1)
            return
        log.info("standing for leader as %s", self._identity)
        while not await self._try():
            await asyncio.sleep(self._pause())
        self.is_leader = True
        metrics.LEADER.set(1)
        log.info("leading")

    async def keep(self) -> None:
        """Renew until that fails for too long, then raise LeaseLost."""
        if not self._settings.enabled:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(self._settings.retry_seconds)
            try:
                async with asyncio.timeout(max(0.0, self._renewed_at + self._settings.renew_seconds - self._clock())):
                    while not await self._try():
                        if self.holder != self._identity:
                            raise LeaseLost(f"{self.holder} leads now")
                        await asyncio.sleep(self._pause())
            except TimeoutError as error:
                raise LeaseLost(f"the Lease could not be renewed for {self._settings.renew_seconds:g} s") from error

    async def release(self) -> None:
        """Let another replica lead at once, rather than after the Lease has run out."""
        if not self.is_leader:
            return
        self.is_leader = False
        metrics.LEADER.set(0)
        if self._lease and self.holder == self._identity:
            spec = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
            try:
                await self._client.replace({**self._lease, "spec": spec})
            except ApiError as error:
                log.warning("the Lease was not released; it will run out: %s", error)

    async def _try(self) -> bool:
        """Take or renew the Lease, once. False where another holds it or the API server did not have it."""
        started = self._clock()
        try:
            if not self._is_fresh:
                self._look_at(await self._client.get("Lease", self._namespace, self._settings.name))
            lease, self._is_fresh = self._lease, False
            if lease is not None and self._held_by_another(lease):
                return False
            self._lease = await (
                self._client.create(self._claim(None)) if lease is None else self._client.replace(self._claim(lease))
            )
        except ApiError as error:
            log.log(logging.INFO if error.status == 409 else logging.WARNING, "no Lease: %s", error)
            return False
        self._is_fresh, self._seen_at = True, self._clock()
        self._renewed_at = started  # others may count from when the server got it
        return True

    def _look_at(self, lease: Raw | None) -> None:
        if _version(lease) != _version(self._lease):
            self._seen_at = self._clock()
        self._lease = lease

    def _held_by_another(self, lease: Raw) -> bool:
        spec = lease.get("spec") or {}
        seconds = spec.get("leaseDurationSeconds") or self._settings.lease_seconds
        return bool(self.holder) and self.holder != self._identity and self._clock() < self._seen_at + seconds

    def _claim(self, lease: Raw | None) -> Raw:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = (lease or {}).get("spec") or {}
        mine = before.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": lease["metadata"] if lease else {"name": self._settings.name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": math.ceil(self._settings.lease_seconds),  # never less than renew_seconds
                "acquireTime": before.get("acquireTime") if mine else now,
                "renewTime": now,
                "leaseTransitions": (before.get("leaseTransitions") or 0) + (0 if mine or lease is None else 1),
            },
        }

    def _pause(self) -> float:
        """Not all replicas at once."""
        return self._settings.retry_seconds * random.uniform(1.0, 1.2)


def _version(lease: Raw | None) -> str | None:
    return lease["metadata"]["resourceVersion"] if lease else None
