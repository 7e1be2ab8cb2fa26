"""The pod of a FineTuneJob's attempt: fetch, train, export."""

from __future__ import annotations

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import RunSpec, Verb, models_by_role
from tunesmith_operator.plan.finetunejob import distributed
from tunesmith_operator.plan.jobs.kind import NewAttempt
from tunesmith_operator.plan.names import job_name, labels, name_of, namespace_of, uid_of
from tunesmith_operator.plan.pods.storage import resolve as resolve_storage
from tunesmith_operator.plan.pods.template import PodPlan, Stage

KIND = "FineTuneJob"


def plan_pod(attempt: NewAttempt[FineTuneJobSpec]) -> PodPlan:
    """The pod of an attempt, or each of its pods."""
    resource, spec, config, role = attempt.resource, attempt.spec, attempt.config, attempt.role.label
    access = resolve_storage(spec.storage, config.store)
    namespace, name = namespace_of(resource), name_of(resource)
    data = spec.to_dict()
    world = distributed.world(resource, spec, role, attempt.number, config.together)
    run = RunSpec(
        kind=KIND,
        name=name,
        namespace=namespace,
        uid=uid_of(resource),
        attempt=attempt.number,
        spec=data,
        spec_hash=spec_hash(KIND, data),
        store=access.store,
        models=models_by_role(attempt.model),
        output_uri=spec.output.uri or f"{access.store.uri}/runs/{namespace}/{name}",
        progress_url=config.progress_url,
        world=world,
    )
    image = config.images.runtime
    return PodPlan(
        init=(Stage(Verb.FETCH, image), Stage(Verb.TRAIN, image, computes=True)),
        main=Stage(Verb.EXPORT, image),
        run=run,
        resources=spec.resources,
        settings=spec.pod,
        access=access,
        pull_policy=config.images.pull_policy,
        labels=labels(resource, role),
        restart_policy="Never",
        subdomain=distributed.service_name(resource, role) if spec.parallelism.nodes > 1 else None,
        affinity=distributed.affinity(spec.parallelism, job_name(resource, role, attempt.number)),
        shared_memory=distributed.shared_memory(spec.resources, world),
    )
