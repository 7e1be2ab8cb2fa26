"""Receiver of the progress that pods push: which Job a token belongs to, the latest report, and how often it counts.

A token is valid for one Job. The operator stores no tokens: a Job carries the sha256 of its token in an annotation, and
a push is compared with the annotations of the existing Jobs. Nothing final depends on a push.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from tunesmith_api import API_VERSION
from tunesmith_api.run import ProgressReport
from tunesmith_operator import metrics
from tunesmith_operator.plan.names import (
    TOKEN_ANNOTATION,
    UID_LABEL,
    annotation,
    label,
    metadata,
    name_of,
)
from tunesmith_operator.plan.types import Progress, Raw, TokenFor
from tunesmith_operator.resources import ResourceKey

PATH = "/v1/progress"
BODY_BYTES = 8192
REPORT_SECONDS = 1.0
"""A Job that reports more often gets 429."""
STATUS_SECONDS = 5.0
"""Minimum time between two reconciles of a resource because of reports; each may write its status."""
FORWARDED = "X-Tunesmith-Forwarded"

log = logging.getLogger(__name__)


def token_maker(secret: bytes) -> TokenFor:
    """Tokens from a random key of this process: a Job's token stays the same for the life of the process."""

    def token(uid: str, job_name: str) -> str:
        return hmac.new(secret, f"{uid}/{job_name}".encode(), hashlib.sha256).hexdigest()

    return token


@dataclass
class _Job:
    owner: ResourceKey
    name: str
    token_hash: str
    created: str
    """creationTimestamp of the Job."""
    last: Progress | None = None
    last_report: float = float("-inf")
    next_reconcile: float = float("-inf")
    """Time of the last or the next reconcile because of a report."""


class ProgressReports:
    """The Jobs that may report, and the latest report of each. Grows with the number of unfinished Jobs."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._by_owner: defaultdict[ResourceKey, dict[str, _Job]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._jobs)

    def update_job(self, owner: ResourceKey, job: Raw, deleted: bool) -> None:
        """Store a Job's token hash, or remove it once the Job is deleted or finished.

        Anybody can copy the annotation: of two Jobs with the same hash, the older one is its rightful holder.
        """
        name = name_of(job)
        token_hash = annotation(job, TOKEN_ANNOTATION) if _is_controlled_by(owner, job) else None
        if deleted or _has_finished(job):
            token_hash = None
        known = self._by_owner[owner].get(name) if owner in self._by_owner else None
        if known is not None:
            if known.token_hash == token_hash:
                return
            self._remove(known)
        if token_hash is not None:
            self._add(_Job(owner, name, token_hash, created=str(metadata(job).get("creationTimestamp", ""))))

    def _add(self, job: _Job) -> None:
        holder = self._jobs.get(job.token_hash)
        if holder is not None and holder.created <= job.created:
            place = f"{job.owner.namespace}/{job.name}"
            log.warning("Job %s has a copy of the token hash of Job %s; ignoring its reports", place, holder.name)
            return
        if holder is not None:
            self._remove(holder)
        self._jobs[job.token_hash] = self._by_owner[job.owner][job.name] = job

    def _remove(self, job: _Job) -> None:
        self._jobs.pop(job.token_hash, None)
        self._by_owner[job.owner].pop(job.name, None)
        if not self._by_owner[job.owner]:
            del self._by_owner[job.owner]

    def remove_resource(self, owner: ResourceKey) -> None:
        """Remove the Jobs of a resource that is gone."""
        for job in list(self._by_owner.get(owner, {}).values()):
            self._remove(job)

    def latest(self, owner: ResourceKey) -> Mapping[str, Progress]:
        """The latest report of each of a resource's Jobs, by name of the Job."""
        return {name: job.last for name, job in self._by_owner.get(owner, {}).items() if job.last is not None}

    def job_of(self, token: str) -> _Job | None:
        """The Job that a token belongs to."""
        return self._jobs.get(hashlib.sha256(token.encode()).hexdigest())


@dataclass
class ProgressEndpoint:
    """`POST /v1/progress`: 204 accepted; 400, 401, 413, 429 refused; 503 no leader to forward it to."""

    reports: ProgressReports
    clock: Callable[[], float]
    """Monotonic, in seconds."""
    on_report: Callable[[ResourceKey, float], None]
    """Called with the resource and the seconds until its status may be written for this report."""
    leader_url: Callable[[], str | None]
    """Base URL of the leader; None if it is this replica or unknown."""
    is_leader: Callable[[], bool]
    session: aiohttp.ClientSession

    def application(self) -> web.Application:
        """The endpoint as an aiohttp application."""
        application = web.Application(client_max_size=BODY_BYTES)
        application.router.add_post(PATH, self._post)
        return application

    async def _post(self, request: web.Request) -> web.Response:
        response = await (self._accept(request) if self.is_leader() else self._forward(request))
        metrics.PROGRESS_REPORTS.labels(str(response.status)).inc()
        return response

    async def _accept(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        job = self.reports.job_of(token.strip()) if scheme.lower() == "bearer" and token else None
        if job is None:
            return _answer(HTTPStatus.UNAUTHORIZED, "the token belongs to no unfinished Job")
        now = self.clock()
        if now - job.last_report < REPORT_SECONDS:
            text = f"report at most every {REPORT_SECONDS:g} s"
            return _answer(HTTPStatus.TOO_MANY_REQUESTS, text, {"Retry-After": "1"})
        job.last_report = now  # before the body is read: concurrent requests count too
        body = await _body(request)
        if body is None:
            return _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a report has at most {BODY_BYTES} bytes")
        try:
            report = ProgressReport.model_validate_json(body)
        except ValidationError as error:
            text = f"not a ProgressReport: {error.error_count()} errors, first: {error.errors()[0]['msg']}"
            return _answer(HTTPStatus.BAD_REQUEST, text)
        job.last = Progress(report, datetime.now(UTC))
        if job.next_reconcile <= now:
            job.next_reconcile = max(now, job.next_reconcile + STATUS_SECONDS)
        self.on_report(job.owner, job.next_reconcile - now)  # always: a reconcile in between has cancelled the timer
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _forward(self, request: web.Request) -> web.Response:
        """Forward the request to the leader, which alone watches Jobs."""
        url = self.leader_url()
        if url is None or FORWARDED in request.headers:
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "there is no leader now", {"Retry-After": "5"})
        body = await _body(request)
        if body is None:
            return _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a report has at most {BODY_BYTES} bytes")
        headers = {"Authorization": request.headers.get("Authorization", ""), FORWARDED: "1"}
        try:
            async with self.session.post(f"{url}{PATH}", data=body, headers=headers) as answer:
                return web.Response(status=answer.status, body=await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            log.info("the leader at %s did not accept a report: %s", url, error)
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "the leader does not answer", {"Retry-After": "5"})


async def _body(request: web.Request) -> bytes | None:
    """The body; None if it exceeds BODY_BYTES."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return None


def _answer(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers=headers)


def _is_controlled_by(owner: ResourceKey, job: Raw) -> bool:
    """Whether the owner that the labels name controls the Job. A reference with a wrong uid is garbage-collected."""
    wanted = (API_VERSION, owner.kind, owner.name, label(job, UID_LABEL))
    references = metadata(job).get("ownerReferences") or ()
    return any(
        reference.get("controller")
        and tuple(reference[name] for name in ("apiVersion", "kind", "name", "uid")) == wanted
        for reference in references
    )


def _has_finished(job: Raw) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(
        condition["type"] in ("Complete", "Failed") and condition["status"] == "True" for condition in conditions
    )
