"""InferenceService: serve the newest version that may be served and becomes ready; until then, the version before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import InferenceServiceSpec
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.drift import matches
from tunesmith_operator.plan.failures.pod_start import is_slow_to_start
from tunesmith_operator.plan.inferenceservice import autoscaling, disruption
from tunesmith_operator.plan.inferenceservice.autoscaling import autoscaler, autoscaling_conditions, autoscaling_trouble
from tunesmith_operator.plan.inferenceservice.context import KIND, ServiceContext
from tunesmith_operator.plan.inferenceservice.deployment import deployment, service
from tunesmith_operator.plan.inferenceservice.disruption import budget, budget_trouble
from tunesmith_operator.plan.inferenceservice.outlooks import failed, outlook_of
from tunesmith_operator.plan.inferenceservice.pod import ROLE
from tunesmith_operator.plan.inferenceservice.rollout import find_trouble, read_rollout, rollback_record
from tunesmith_operator.plan.inferenceservice.status_fields import service_conditions, service_fields
from tunesmith_operator.plan.inferenceservice.version_choice import Target, choose_version
from tunesmith_operator.plan.inferenceservice.versions import missing_revision, outdated_revisions, read_versions
from tunesmith_operator.plan.names import is_deleting, key_of, metadata, name_of, namespace_of
from tunesmith_operator.plan.pods.read import is_true
from tunesmith_operator.plan.requeue import CONFLICT_INTERVAL, IMMEDIATELY, POLL_INTERVAL, REFUSED_INTERVAL, earliest
from tunesmith_operator.plan.spec.reference_cycles import BREAK_CYCLE, describe_cycle
from tunesmith_operator.plan.spec.references import Refused, Waiting, referenced_by
from tunesmith_operator.plan.spec.validate import parse_spec
from tunesmith_operator.plan.status.outlook import Outlook, name_conflict, plan_from_outlook
from tunesmith_operator.plan.types import CHILDREN, Key, KindPlan, Observed, Plan, Raw, Reference, TokenFor

OPTIONAL = frozenset({autoscaling.KIND, disruption.KIND})
"""Kinds of children that the spec may leave out. A foreign object with their name does not keep the service from running."""


def plan(resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor) -> Plan:
    """The plan of an InferenceService."""
    if is_deleting(resource):
        return Plan()
    spec = parse_spec(InferenceServiceSpec, resource)
    if isinstance(spec, Refused):
        return plan_from_outlook(resource, observed, failed(FailureClass.BAD_SPEC, spec.text, spec.hint), now)
    if taken := sorted(key for key in observed.foreign if key.kind not in OPTIONAL):
        return plan_from_outlook(resource, observed, name_conflict(resource, taken, observed.former), now)
    versions = read_versions(observed, (resource.get("status") or {}).get("version"))
    target = choose_version(resource, spec, observed.references, versions, config)
    if observed.cycle and isinstance(target.obstacle, Waiting):
        target = replace(target, obstacle=Refused(describe_cycle(observed.cycle), BREAK_CYCLE))
    manifests = [manifest for manifest in _manifests(resource, spec, target) if _key(manifest) not in observed.foreign]
    drifted = [manifest for manifest in manifests if not matches(_existing(observed, manifest), manifest)]
    is_drifted = any(manifest["kind"] == "Deployment" for manifest in drifted)
    rollout = read_rollout(observed, target.template, spec, is_drifted, now)
    trouble = find_trouble(observed, rollout, namespace_of(resource))
    giving_up = rollback_record(spec, target, versions, rollout, trouble, now)
    context = ServiceContext(resource, spec, observed, versions, target, rollout, trouble, giving_up)
    return plan_from_outlook(resource, observed, _with_writes(context, manifests, drifted), now)


def references(resource: Raw) -> frozenset[Reference]:
    """The resources that make its model and adapters, and the EvalJobs that must pass the model."""
    spec = parse_spec(InferenceServiceSpec, resource)
    if isinstance(spec, Refused):
        return frozenset()
    eval_jobs = spec.promotion.eval_jobs if spec.promotion else []
    return referenced_by(spec.model, *(spec.adapters or [])) | {Reference("EvalJob", job.name) for job in eval_jobs}


def gets(resource: Raw) -> frozenset[Key]:
    """Children with the resource's name.

    Optional kinds are read only if such a child may exist: if the spec asks for it, if status lists it, and after a change of the
    spec, since a kill may have come between its creation and the status.
    """
    status, spec = resource.get("status") or {}, parse_spec(InferenceServiceSpec, resource)
    listed = {child.get("kind") for child in status.get("children") or ()}
    is_changed = status.get("observedGeneration") != metadata(resource).get("generation")
    wanted = {
        autoscaling.KIND: not isinstance(spec, Refused) and autoscaling.is_autoscaled(spec),
        disruption.KIND: not isinstance(spec, Refused) and disruption.is_budgeted(spec),
    }
    optional = {kind for kind, is_wanted in wanted.items() if is_wanted or is_changed or kind in listed}
    return frozenset(Key(kind, name_of(resource)) for kind in {"Deployment", "Service", *optional})


def wants_events(resource: Raw, observed: Observed, now: datetime) -> frozenset[Key]:
    """Pods that start slowly: only Events explain them."""
    return frozenset(key_of(pod, "Pod") for pod in observed.pods if is_slow_to_start(pod, now))


def _manifests(resource: Raw, spec: InferenceServiceSpec, target: Target) -> Iterator[Raw]:
    """All children to apply; none without a version to serve."""
    if target.template is None:
        return
    yield deployment(resource, spec, target.template)
    yield service(resource)
    optional = (autoscaler(resource, spec, ROLE), budget(resource, spec, ROLE))
    yield from (manifest for manifest in optional if manifest)


def _existing(observed: Observed, manifest: Raw) -> Raw | None:
    """The object with the kind and name of a manifest."""
    children = getattr(observed, CHILDREN[manifest["kind"]])
    return next((child for child in children if name_of(child) == name_of(manifest)), None)


def _key(manifest: Raw) -> Key:
    return key_of(manifest, manifest["kind"])


def _with_writes(context: ServiceContext, manifests: Sequence[Raw], drifted: Sequence[Raw]) -> Outlook:
    """The outlook, with the children to write and the service's own fields of status."""
    resource, observed, target, outlook = context.resource, context.observed, context.target, outlook_of(context)
    fields = service_fields(context)
    revision = missing_revision(resource, target.template, ROLE, observed) if target.template else None
    kept = (context.rollout.version, fields.get("version") or context.versions.served, context.versions.deployed)
    scaling = autoscaling_conditions(resource, context.spec, observed)
    troubles = (autoscaling_trouble(scaling), budget_trouble(resource, context.spec, observed))
    return replace(
        outlook,
        message="; ".join(text for text in (outlook.message, *troubles) if text),
        create=(revision,) if revision and _key(revision) not in observed.refused else (),
        apply=tuple(manifest for manifest in drifted if _key(manifest) not in observed.refused),
        delete=(*outdated_revisions(resource, observed, kept), *_unwanted(observed, manifests)),
        trouble=outlook.trouble or context.trouble,
        fields=fields,
        conditions=(*service_conditions(context), *scaling),
        for_good=context.giving_up is not None,
        requeue_after=_requeue_after(context),
    )


def _unwanted(observed: Observed, manifests: Sequence[Raw]) -> tuple[Key, ...]:
    """Our optional children that the spec does not ask for."""
    wanted = {_key(manifest) for manifest in manifests}
    existing = (key_of(child, kind) for kind in sorted(OPTIONAL) for child in getattr(observed, CHILDREN[kind]))
    return tuple(key for key in existing if key not in wanted)


def _requeue_after(context: ServiceContext) -> float | None:
    """Seconds after which time alone may change the plan."""
    observed = context.observed
    is_starting = any(
        (pod.get("status") or {}).get("startTime") and not is_true(pod, "Initialized") for pod in observed.pods
    )
    return earliest(
        IMMEDIATELY if context.giving_up else None,
        REFUSED_INTERVAL if observed.refused else None,
        CONFLICT_INTERVAL if observed.foreign else None,
        POLL_INTERVAL if is_starting and not context.rollout.is_done else None,
        context.rollout.seconds_left or None,
    )


INFERENCE_SERVICE = KindPlan(
    kind=KIND,
    lists=("ControllerRevision", "Pod"),
    gets=gets,
    references=references,
    wants_events=wants_events,
    plan=plan,
)
