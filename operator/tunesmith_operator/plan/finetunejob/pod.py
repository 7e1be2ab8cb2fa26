"""The pod of a FineTuneJob's attempt: fetch, train, export; or what spec.until leaves of them."""

from __future__ import annotations

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import Verb
from tunesmith_api.run_spec import run_spec
from tunesmith_api.training import Until
from tunesmith_operator.plan.finetunejob import distributed
from tunesmith_operator.plan.jobs.kind import NewAttempt
from tunesmith_operator.plan.jobs.preparation import preparation_pod
from tunesmith_operator.plan.names import job_name, labels
from tunesmith_operator.plan.pods.cache import with_cache
from tunesmith_operator.plan.pods.storage import resolve as resolve_storage
from tunesmith_operator.plan.pods.template import PodPlan, Stage


def plan_pod(attempt: NewAttempt[FineTuneJobSpec]) -> PodPlan:
    """The pod of an attempt, or each of its pods."""
    resource, spec, config, role = attempt.resource, attempt.spec, attempt.config, attempt.role.label
    access = resolve_storage(spec.storage, config.store)
    world = distributed.world(resource, spec, role, attempt.number, config.together)
    run = run_spec(
        resource,
        spec,
        attempt.models,
        access.store,
        attempt=attempt.number,
        progress_url=config.progress_url,
        hub=config.hub.for_pods,
        world=world,
    )
    image = config.images_on(spec.resources.accelerator).runtime
    fetch, train, export = Stage(Verb.FETCH, image), Stage(Verb.TRAIN, image, computes=True), Stage(Verb.EXPORT, image)
    plan = PodPlan(
        init=(fetch,) if spec.until is Until.TRAIN else (fetch, train),
        main=train if spec.until is Until.TRAIN else export,
        run=run,
        resources=spec.resources,
        accelerator=config.accelerator(spec.resources.accelerator),
        plain_image=config.images.runtime,
        settings=spec.pod,
        access=access,
        hub_token_secret=config.hub.token_secret,
        pull_policy=config.images.pull_policy,
        labels=labels(resource, role),
        restart_policy="Never",
        subdomain=distributed.service_name(resource, role) if spec.parallelism.nodes > 1 else None,
        affinity=distributed.affinity(spec.parallelism, job_name(resource, role, attempt.number)),
        chat_template=spec.training.chat_template.config_map if spec.training.chat_template else None,
        shared_memory=distributed.shared_memory(spec.resources, world),
    )
    pod = with_cache(plan, config.cache)
    return pod if spec.until.trains else preparation_pod(pod, pod.labels)
