"""Versions of a service: exact pod templates, each recorded in a ControllerRevision before its first pod is made.

The record is what a roll-back, the repair of a Deployment and its re-creation go by. Made anew, a template would have
the images and defaults that the operator has by then, and pods that answer would be replaced for no reason of their owner.
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


@dataclass(frozen=True)
class Versions:
    """The versions that are known."""

    recorded: Mapping[str, Raw]
    """Version -> its exact template."""
    live: Raw | None
    """The template of the Deployment as it is now, maybe edited by hand."""
    deployed: str | None
    """The version that the Deployment says it has."""
    served: str | None
    """The version that was ready last."""
    answering: frozenset[str]
    """Versions with a pod that is ready."""

    def held(self) -> Iterable[Raw]:
        """What may go on while the spec's version may not come, the best first: what is deployed, what was ready last."""
        yield from (self.recorded[one] for one in (self.deployed, self.served) if one and one in self.recorded)
        yield from [self.live] if self.live else []

    def last_ready(self) -> Raw | None:
        """What can be rolled back to."""
        return self._exact(self.served)

    def same(self, fresh: Raw, any_engine: bool = False) -> Raw:
        """The version that has answered already and asks for the same as `fresh`; else `fresh`.

        `any_engine`: the spec leaves the engine open, so that a version keeps the one that it has answered with.
        """
        run = run_spec_of(fresh)
        has_answered = (one for one in (self.deployed, self.served) if one == self.served or one in self.answering)
        templates = (template for one in has_answered if (template := self._exact(one)))
        wanted = asks_for(run, any_engine)
        return next((one for one in templates if wanted and asks_for(run_spec_of(one), any_engine) == wanted), fresh)

    def _exact(self, version: str | None) -> Raw | None:
        """The template of a version: as recorded; where there is no record (before there were any), as deployed."""
        if version is None:
            return None
        return self.recorded.get(version) or (self.live if version == self.deployed else None)


def known_versions(observed: Observed, served: str | None) -> Versions:
    """What revisions, Deployment and pods tell."""
    live = observed.deployments[0]["spec"]["template"] if observed.deployments else None
    ready = (version_of(pod) for pod in observed.pods if is_true(pod, "Ready"))
    return Versions(
        recorded=dict(found for one in observed.revisions if (found := _recorded(one))),
        live=live,
        deployed=version_of(live) if live else None,
        served=served,
        answering=frozenset(version for version in ready if version),
    )


def _recorded(revision: Raw) -> tuple[str, Raw] | None:
    """Version and template of a record; None where it is none that we have made."""
    data = revision.get("data")
    template = data.get("template") if isinstance(data, dict) else None
    if not (isinstance(template, dict) and isinstance(template.get("metadata"), dict) and template.get("spec")):
        return None
    version = version_of(template)
    return (version, template) if version and name_of(revision).endswith(f"-{version}") else None


def version_of(template: Raw) -> str | None:
    """The version that a template or pod says it is."""
    text = annotation(template, VERSION_ANNOTATION)
    return text if text and re.fullmatch("[0-9a-f]{12}", text) else None


def asks_for(run: RunSpec | None, any_engine: bool = False) -> tuple[Raw, ResolvedModel, list[NamedAdapter]] | None:
    """What the owner asked for, defaults filled in; nothing of what the operator's configuration adds."""
    if run is None:
        return None
    try:
        data = version_fields(run.inference_service())
    except ValueError:
        return None
    return ({**data, "engine": None} if any_engine else data), run.subject, run.adapters


def what_asks(template: Raw, rollout: Rollout, engine: Engine | None = None) -> str:
    """Hash of what asked for a version, and of how it is to be rolled out: the same again would fail again.

    `engine`: as the spec names it, so that `auto` asks for the same whichever engine it is by now; None: as chosen.
    """
    asked = asks_for(run_spec_of(template))
    if asked is None:
        return digest([version_of(template), rollout.to_dict()])[:12]
    data = {**asked[0], "engine": str(engine)} if engine else asked[0]
    plain = [data, asked[1].to_dict(), [one.to_dict() for one in asked[2]]]
    return digest([plain, rollout.to_dict()])[:12]


def revision(resource: Raw, template: Raw, role: str, observed: Observed) -> Raw | None:
    """The record that is still to be made of a template; None where there is one."""
    version = version_of(template)
    name = f"{name_of(resource)}-{version}"
    if version is None or name in {name_of(one) for one in observed.revisions}:
        return None
    number = 1 + max((int(one.get("revision") or 0) for one in observed.revisions), default=0)
    return {
        "apiVersion": "apps/v1",
        "kind": KIND,
        "metadata": child_metadata(resource, name, role),
        "revision": number,
        "data": {"template": template},
    }


def outdated(resource: Raw, observed: Observed, needed: Iterable[str | None]) -> tuple[Key, ...]:
    """The records of versions that will not be needed any more."""
    names = {f"{name_of(resource)}-{version}" for version in needed if version}
    return tuple(key_of(one, KIND) for one in observed.revisions if name_of(one) not in names)
