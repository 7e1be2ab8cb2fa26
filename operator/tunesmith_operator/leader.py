"""Leader election by a Lease, as in client-go (k8s.io/client-go/tools/leaderelection).

The holder identity is `<pod>_<ip>:<progress port>`, so that standbys can forward progress reports. A leader that could not
renew in time stops writing and exits.
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
    """This process is not the leader any more and must exit. Not an Exception, so that no handler carries on."""


class Leader:
    """One replica's view of the Lease. `clock` is monotonic, in seconds."""

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
        """Whether the stored Lease is our own last write: it is then renewed without a read."""
        self._changed_at = float("-inf")
        """When we last observed a change of the Lease, by our clock: the times in the Lease are not trusted."""
        self._renewed_at = float("-inf")
        self.is_leader = False

    @property
    def holder(self) -> str:
        """The last observed holder; empty if there is none."""
        return ((self._lease or {}).get("spec") or {}).get("holderIdentity") or ""

    def holder_url(self) -> str | None:
        """The base URL of the leader; None if it is this replica or unknown."""
        address = self.holder.rpartition("_")[2]
        return f"http://{address}" if address and self.holder != self._identity else None

    def may_write(self) -> None:
        """Raise LeaseLost if another replica may lead by now, for example after this process was frozen."""
        if self.is_leader and self._clock() - self._renewed_at > self._settings.renew_seconds:
            raise LeaseLost(f"the Lease was last renewed {self._clock() - self._renewed_at:.0f} s ago")

    async def acquire(self) -> None:
        """Return when this replica leads; without election, immediately."""
        if not self._settings.enabled:
            self._renewed_at, self.is_leader = float("inf"), True
            metrics.LEADER.set(1)
            return
        log.info("waiting for the Lease as %s", self._identity)
        while not await self._acquire_or_renew():
            await asyncio.sleep(self._pause())
        self.is_leader = True
        metrics.LEADER.set(1)
        log.info("acquired the Lease")

    async def keep(self) -> None:
        """Renew until that fails for too long, then raise LeaseLost."""
        if not self._settings.enabled:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(self._settings.retry_seconds)
            try:
                async with asyncio.timeout(max(0.0, self._renewed_at + self._settings.renew_seconds - self._clock())):
                    while not await self._acquire_or_renew():
                        if self.holder != self._identity:
                            raise LeaseLost(f"{self.holder} leads now")
                        await asyncio.sleep(self._pause())
            except TimeoutError as error:
                raise LeaseLost(f"the Lease could not be renewed for {self._settings.renew_seconds:g} s") from error

    async def release(self) -> None:
        """Release the Lease, so that another replica need not wait for it to expire."""
        if not self.is_leader:
            return
        self.is_leader = False
        metrics.LEADER.set(0)
        if self._lease and self.holder == self._identity:
            spec = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
            try:
                await self._client.replace({**self._lease, "spec": spec})
            except ApiError as error:
                log.warning("cannot release the Lease, which will expire: %s", error)

    async def _acquire_or_renew(self) -> bool:
        """Acquire or renew the Lease once. Returns False if another replica holds it or the request failed."""
        started = self._clock()
        try:
            if not self._is_fresh:
                self._observe(await self._client.get("Lease", self._namespace, self._settings.name))
            lease, self._is_fresh = self._lease, False
            if lease is not None and self._held_by_another(lease):
                return False
            self._lease = await (
                self._client.create(self._claim(None)) if lease is None else self._client.replace(self._claim(lease))
            )
        except ApiError as error:
            log.log(
                logging.INFO if error.status == 409 else logging.WARNING, "cannot acquire or renew the Lease: %s", error
            )
            return False
        self._is_fresh, self._changed_at = True, self._clock()
        self._renewed_at = started  # others may count from when the server received it
        return True

    def _observe(self, lease: Raw | None) -> None:
        if _version(lease) != _version(self._lease):
            self._changed_at = self._clock()
        self._lease = lease

    def _held_by_another(self, lease: Raw) -> bool:
        spec = lease.get("spec") or {}
        seconds = spec.get("leaseDurationSeconds") or self._settings.lease_seconds
        return bool(self.holder) and self.holder != self._identity and self._clock() < self._changed_at + seconds

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
        """The retry delay with jitter, so that replicas do not retry in step."""
        return self._settings.retry_seconds * random.uniform(1.0, 1.2)


def _version(lease: Raw | None) -> str | None:
    return lease["metadata"]["resourceVersion"] if lease else None
