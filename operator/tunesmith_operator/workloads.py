"""Kueue's Workloads of Jobs that wait in a queue: only they say why it does not admit them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from tunesmith_operator.client import ApiError, Client, Raw
from tunesmith_operator.plan.jobs.queueing import JOB_UID_LABEL, waiting_jobs
from tunesmith_operator.plan.names import uid_of
from tunesmith_operator.plan.types import Observed

NO_WORD = (403, 404)
"""Answers where Kueue's CRDs or the right are not there: Jobs wait all the same, and nobody says for what."""

log = logging.getLogger(__name__)


async def observe_workloads(client: Client, resource: Raw, observed: Observed) -> Observed:
    """The same with the Workloads of the Jobs that wait in a queue now."""
    namespace = resource["metadata"]["namespace"]
    found = await asyncio.gather(*(_of(client, namespace, uid_of(job)) for job in waiting_jobs(observed.jobs)))
    return replace(observed, workloads=tuple(one for some in found for one in some))


async def _of(client: Client, namespace: str, job_uid: str) -> list[Raw]:
    try:
        return await client.list("Workload", namespace, labels={JOB_UID_LABEL: job_uid}, cached=True)
    except ApiError as error:
        if error.status not in NO_WORD:
            raise
        log.warning("kueue.enabled is set, but what the queue says cannot be read: %s", error)
        return []
