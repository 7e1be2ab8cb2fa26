"""Progress that pods push: who may report for which Job, what was reported last, and how often that counts.

A pod's token is good for its own Job only. The operator keeps no tokens: a Job carries the sha256 of its token in an
annotation, and what is pushed is held against the Jobs there are. Nothing final depends on a push.
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
from tunesmith_operator.client import Raw
from tunesmith_operator.plan.names import (
    TOKEN_ANNOTATION,
    UID_LABEL,
    annotation,
    label,
    metadata,
    name_of,
)
from tunesmith_operator.plan.types import Progress, TokenFor
from tunesmith_operator.resources import ResourceKey

PATH = "/v1/progress"
BODY_BYTES = 8192
REPORT_SECONDS = 1.0
"""A Job that reports more often than this gets 429."""
STATUS_SECONDS = 5.0
"""The least time between two looks at a resource because of reports; each may write its status."""
FORWARDED = "X-Tunesmith-Forwarded"

log = logging.getLogger(__name__)


def token_maker(secret: bytes) -> TokenFor:
    """Tokens from a key that this process made for itself: the same for the same Job as long as it lives."""

    def token(uid: str, job_name: str) -> str:
        return hmac.new(secret, f"{uid}/{job_name}".encode(), hashlib.sha256).hexdigest()

    return token


@dataclass
class _Job:
    owner: ResourceKey
    name: str
    token_hash: str
    created: str
    """Of the Job, by the API server's clock."""
    last: Progress | None = None
    last_report: float = float("-inf")
    next_look: float = float("-inf")
    """When the resource was or will be looked at because of a report."""


class ProgressBook:
    """The Jobs that may report, and the last report of each. As large as the number of unfinished Jobs."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._by_owner: defaultdict[ResourceKey, dict[str, _Job]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._jobs)

    def update_job(self, owner: ResourceKey, job: Raw, gone: bool) -> None:
        """Take note of a Job as it is now. One that is gone or has finished can report no more.

        Anybody can copy the annotation: of two Jobs with the same, the older one is who it was made for.
        """
        name, token_hash = name_of(job), annotation(job, TOKEN_ANNOTATION) if _is_controlled_by(owner, job) else None
        created = str(metadata(job).get("creationTimestamp", ""))
        known = self._by_owner[owner].get(name) if owner in self._by_owner else None
        ended = gone or token_hash is None or _has_finished(job)
        if known is not None and (ended or known.token_hash != token_hash):
            self._remove(known)
            known = None
        if known is None and token_hash is not None and not ended:
            other = self._jobs.get(token_hash)
            if other is not None and other.created <= created:
                log.warning("Job %s/%s bears the token of %s and may not report", owner.namespace, name, other.name)
                return
            if other is not None:
                self._remove(other)
            self._jobs[token_hash] = self._by_owner[owner][name] = _Job(owner, name, token_hash, created)

    def forget(self, owner: ResourceKey) -> None:
        """A resource is gone, and its Jobs with it."""
        for job in list(self._by_owner.get(owner, {}).values()):
            self._remove(job)

    def reports(self, owner: ResourceKey) -> Mapping[str, Progress]:
        """The last report of each of a resource's Jobs, by name of the Job."""
        return {name: job.last for name, job in self._by_owner.get(owner, {}).items() if job.last is not None}

    def holder(self, token: str) -> _Job | None:
        """The Job that a token belongs to."""
        return self._jobs.get(hashlib.sha256(token.encode()).hexdigest())

    def _remove(self, job: _Job) -> None:
        self._jobs.pop(job.token_hash, None)
        self._by_owner[job.owner].pop(job.name, None)
        if not self._by_owner[job.owner]:
            del self._by_owner[job.owner]


@dataclass
class ProgressEndpoint:
    """`POST /v1/progress`: 204 taken; 400, 401, 413, 429 not; 503 no leader to hand it to."""

    book: ProgressBook
    clock: Callable[[], float]
    """Seconds that only go forward."""
    heard: Callable[[ResourceKey, float], None]
    """Told the resource and how many seconds from now its status may be written because of this."""
    leader_url: Callable[[], str | None]
    """Base URL of the replica that leads; None where it is this one."""
    leads: Callable[[], bool]
    session: aiohttp.ClientSession

    def application(self) -> web.Application:
        """The endpoint as an application of its own."""
        application = web.Application(client_max_size=BODY_BYTES)
        application.router.add_post(PATH, self._post)
        return application

    async def _post(self, request: web.Request) -> web.Response:
        response = await (self._take(request) if self.leads() else self._forward(request))
        metrics.PROGRESS_REPORTS.labels(str(response.status)).inc()
        return response

    async def _take(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        job = self.book.holder(token.strip()) if scheme.lower() == "bearer" and token else None
        if job is None:
            return _answer(HTTPStatus.UNAUTHORIZED, "this token belongs to no running Job")
        now = self.clock()
        if now - job.last_report < REPORT_SECONDS:
            return _answer(
                HTTPStatus.TOO_MANY_REQUESTS, f"report at most every {REPORT_SECONDS:g} s", {"Retry-After": "1"}
            )
        job.last_report = now  # before the body is waited for: many at once are too many
        body = await _body(request)
        if body is None:
            return _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a report has at most {BODY_BYTES} bytes")
        try:
            report = ProgressReport.model_validate_json(body)
        except ValidationError as error:
            return _answer(
                HTTPStatus.BAD_REQUEST,
                f"not a ProgressReport: {error.error_count()} errors, first: {error.errors()[0]['msg']}",
            )
        job.last = Progress(report, datetime.now(UTC))
        if job.next_look <= now:
            job.next_look = max(now, job.next_look + STATUS_SECONDS)
        self.heard(job.owner, job.next_look - now)  # each time: another look in between has dropped the timer
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _forward(self, request: web.Request) -> web.Response:
        """Hand it to the leader as it came: only the leader knows the Jobs."""
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
            log.info("the leader at %s did not take a report: %s", url, error)
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "the leader does not answer", {"Retry-After": "5"})


async def _body(request: web.Request) -> bytes | None:
    """The body; None where it is longer than the application allows."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return None


def _answer(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers=headers)


def _is_controlled_by(owner: ResourceKey, job: Raw) -> bool:
    """Whether the labels by which the owner was found are true. One with a wrong uid is garbage to the API server."""
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
