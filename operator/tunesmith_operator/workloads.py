"""Kueue's Workloads of the Jobs that wait in a queue: only they hold the reason why Kueue does not admit a Job.

Kueue before 0.14 serves Workloads as v1beta1, from 0.20 on as v1beta2 only. The fields that plans read are the same in
both: metadata.labels, spec.active, status.conditions and status.admissionChecks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from tunesmith_operator.client import ApiError, Client
from tunesmith_operator.plan.jobs.queueing import JOB_UID_LABEL, queued_jobs
from tunesmith_operator.plan.names import uid_of
from tunesmith_operator.plan.types import Observed, Raw

GROUP = "kueue.x-k8s.io"
NOT_SERVED = f"the API server serves no workloads.{GROUP}"
FORBIDDEN = f"the operator may not list workloads.{GROUP}"
PROBLEMS = {404: NOT_SERVED, 403: FORBIDDEN}
"""HTTP status -> why Workloads cannot be read. Jobs wait all the same, and their status gives this reason."""

log = logging.getLogger(__name__)


class WorkloadReader:
    """Reads Workloads in the version that the API server serves, which it discovers once and again after a 404."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._version: str | None = None
        self._problems: dict[str, str] = {}
        """By namespace, the problem that the log has."""

    async def observe(self, resource: Raw, observed: Observed) -> Observed:
        """`observed` with the Workloads of the Jobs that wait in a queue now, or with why they cannot be read."""
        namespace = resource["metadata"]["namespace"]
        jobs = queued_jobs(observed.jobs)
        if not jobs:
            return observed
        try:
            workloads = await self._read(namespace, [uid_of(job) for job in jobs])
        except ApiError as error:
            if error.status not in PROBLEMS:
                raise
            self._log_once(namespace, PROBLEMS[error.status], error)
            return replace(observed, workloads_problem=PROBLEMS[error.status])
        self._problems.pop(namespace, None)
        return replace(observed, workloads=workloads)

    async def _read(self, namespace: str, job_uids: Sequence[str]) -> tuple[Raw, ...]:
        """The Workloads of these Jobs. The group's preferred version need not be one of its Workloads: try each."""
        if self._version and (found := await self._read_version(self._version, namespace, job_uids)) is not None:
            return found
        for version in await self._client.served_versions(GROUP):
            if (found := await self._read_version(version, namespace, job_uids)) is not None:
                self._version = version
                return found
        self._version = None
        raise ApiError(f"GET /apis/{GROUP}", 404, "NotFound", NOT_SERVED)

    async def _read_version(self, version: str, namespace: str, job_uids: Sequence[str]) -> tuple[Raw, ...] | None:
        """The Workloads of these Jobs in one version; None if it is not served."""
        calls = (
            self._client.list("Workload", namespace, labels={JOB_UID_LABEL: uid}, cached=True, version=version)
            for uid in job_uids
        )
        try:
            return tuple(workload for listed in await asyncio.gather(*calls) for workload in listed)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def _log_once(self, namespace: str, problem: str, error: ApiError) -> None:
        if self._problems.get(namespace) != problem:
            log.warning("kueue.enabled is set, but the reason why Jobs wait cannot be read: %s (%s)", problem, error)
        self._problems[namespace] = problem
