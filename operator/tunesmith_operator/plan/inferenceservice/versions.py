"""Versions of a service: exact pod templates, each recorded in a ControllerRevision before its first pod is created.

Rollback, repair of a Deployment and its re-creation use the record. A template that is built again would have the images
and defaults of the current operator, and would replace pods that answer although their owner has changed nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tunesmith_api.hashing import digest
from tunesmith_api.inferenceservice import Engine, Rollout
from tunesmith_api.run import NamedAdapter, ResolvedModel, RunSpec
from tunesmith_api.run_spec import version_fields
from tunesmith_operator.plan.names import VERSION_ANNOTATION, annotation, child_metadata, key_of, name_of
from tunesmith_operator.plan.pods.read import is_true
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.types import Key, Observed, Raw

KIND = "ControllerRevision"
Request = tuple[Raw, ResolvedModel, list[NamedAdapter]]
"""What the owner asks for: the versioned part of the spec with defaults, the model and the adapters."""


@dataclass(frozen=True)
class Versions:
    """The known versions of a service."""

    recorded: Mapping[str, Raw]
    """The exact template of each version."""
    live: Raw | None
    """The template of the Deployment as it is now, which may have been edited by hand."""
    deployed: str | None
    """The version in the Deployment's annotation."""
    served: str | None
    """The version that was ready last."""
    answering: frozenset[str]
    """Versions with a pod that is ready."""

    @property
    def fallback(self) -> Raw | None:
        """The template to keep while the spec's version can't be served: the deployed template, or that of the version that was ready last."""
        recorded = (self.recorded.get(version) for version in (self.deployed, self.served) if version)
        return next((template for template in recorded if template), self.live)

    @property
    def last_ready(self) -> Raw | None:
        """The template to roll back to."""
        return self._exact(self.served)

    def reuse(self, fresh: Raw, any_engine: bool = False) -> Raw:
        """The template of a version that has been ready and asks for the same as `fresh`; otherwise `fresh`.

        `any_engine`: the spec leaves the engine open, so that a version keeps the engine with which it was ready.
        """
        request = request_of(run_spec_of(fresh), any_engine)
        was_ready = {self.served, *self.answering}
        templates = (self._exact(version) for version in (self.deployed, self.served) if version in was_ready)
        same = (found for found in templates if found and request_of(run_spec_of(found), any_engine) == request)
        return next(same, fresh) if request else fresh

    def _exact(self, version: str | None) -> Raw | None:
        """The recorded template of a version; for a version of releases without records, the deployed template."""
        if version is None:
            return None
        return self.recorded.get(version) or (self.live if version == self.deployed else None)


def read_versions(observed: Observed, served: str | None) -> Versions:
    """Read the versions from ControllerRevisions, Deployment and pods. `served` is the version in status."""
    live = observed.deployments[0]["spec"]["template"] if observed.deployments else None
    ready = (version_of(pod) for pod in observed.pods if is_true(pod, "Ready"))
    return Versions(
        recorded=dict(found for revision in observed.revisions if (found := _recorded(revision))),
        live=live,
        deployed=version_of(live) if live else None,
        served=served,
        answering=frozenset(version for version in ready if version),
    )


def _recorded(revision: Raw) -> tuple[str, Raw] | None:
    """Version and template of a ControllerRevision; None if the operator has not written it."""
    data = revision.get("data")
    template = data.get("template") if isinstance(data, dict) else None
    if not (isinstance(template, dict) and isinstance(template.get("metadata"), dict) and template.get("spec")):
        return None
    version = version_of(template)
    return (version, template) if version and name_of(revision).endswith(f"-{version}") else None


def version_of(template: Raw) -> str | None:
    """The version in the annotation of a template or pod."""
    text = annotation(template, VERSION_ANNOTATION)
    return text if text and re.fullmatch("[0-9a-f]{12}", text) else None


def request_of(run: RunSpec | None, any_engine: bool = False) -> Request | None:
    """What the owner asked for, without what the operator's configuration adds. None if the RunSpec cannot be read."""
    if run is None:
        return None
    try:
        data = version_fields(run.inference_service())
    except ValueError:
        return None
    return ({**data, "engine": None} if any_engine else data), run.subject, run.adapters


def request_hash(template: Raw, rollout: Rollout, engine: Engine | None = None) -> str:
    """Hash of what asked for a version and of its roll-out: the same request would fail again.

    `engine` as the spec names it, so that `auto` hashes alike whichever engine it resolves to. None: as resolved.
    """
    request = request_of(run_spec_of(template))
    if request is None:
        return digest([version_of(template), rollout.to_dict()])[:12]
    data = {**request[0], "engine": str(engine)} if engine else request[0]
    plain = [data, request[1].to_dict(), [adapter.to_dict() for adapter in request[2]]]
    return digest([plain, rollout.to_dict()])[:12]


def missing_revision(resource: Raw, template: Raw, role: str, observed: Observed) -> Raw | None:
    """The ControllerRevision to create for a template; None if it exists."""
    version = version_of(template)
    name = f"{name_of(resource)}-{version}"
    if version is None or name in {name_of(revision) for revision in observed.revisions}:
        return None
    number = 1 + max((int(revision.get("revision") or 0) for revision in observed.revisions), default=0)
    return {
        "apiVersion": "apps/v1",
        "kind": KIND,
        "metadata": child_metadata(resource, name, role),
        "revision": number,
        "data": {"template": template},
    }


def outdated_revisions(resource: Raw, observed: Observed, kept: Iterable[str | None]) -> tuple[Key, ...]:
    """The ControllerRevisions of all versions except `kept`."""
    names = {f"{name_of(resource)}-{version}" for version in kept if version}
    return tuple(key_of(revision, KIND) for revision in observed.revisions if name_of(revision) not in names)
