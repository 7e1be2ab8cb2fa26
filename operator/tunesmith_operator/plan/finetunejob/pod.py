"""The pod of a FineTuneJob's attempt: fetch, train, export; or what spec.until leaves of them."""

from __future__ import annotations

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.methods import RolloutEngine
from tunesmith_api.run import Verb, judge_key_variable
from tunesmith_api.run_spec import run_spec
from tunesmith_api.training import Until
from tunesmith_operator.plan.finetunejob import distributed
from tunesmith_operator.plan.jobs.kind import NewAttempt
from tunesmith_operator.plan.jobs.preparation import preparation_pod
from tunesmith_operator.plan.names import job_name, labels
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.pods.cache import with_cache
from tunesmith_operator.plan.pods.reward_code import RewardContainer
from tunesmith_operator.plan.pods.storage import resolve as resolve_storage
from tunesmith_operator.plan.pods.template import PodPlan, Stage


def samples_with_vllm(spec: FineTuneJobSpec) -> bool:
    """Whether vLLM samples the completions that the job learns from."""
    return spec.rollouts is not None and spec.rollouts.engine is RolloutEngine.VLLM


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
    images = config.images_on(spec.resources.accelerator)
    sampling = engines.image(Engine.VLLM, images) if samples_with_vllm(spec) else None
    fetch, export = Stage(Verb.FETCH, images.runtime), Stage(Verb.EXPORT, images.runtime)
    train = Stage(Verb.TRAIN, sampling or images.runtime, computes=True)
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
        tracking=spec.tracking,
        pull_policy=config.images.pull_policy,
        labels=labels(resource, role),
        restart_policy="Never",
        subdomain=distributed.service_name(resource, role) if spec.parallelism.nodes > 1 else None,
        affinity=distributed.affinity(spec.parallelism, job_name(resource, role, attempt.number)),
        chat_template=spec.training.chat_template.config_map if spec.training.chat_template else None,
        shared_memory=distributed.shared_memory(spec.resources, world),
        reward_code=RewardContainer(spec.reward_code, config.images.runtime) if spec.reward_code else None,
        judge_secrets={
            judge_key_variable(index): reward.judge.api_key_secret
            for index, reward in enumerate(spec.rewards or ())
            if reward.judge and reward.judge.api_key_secret
        },
    )
    pod = with_cache(plan, config.cache)
    return pod if spec.until.trains else preparation_pod(pod, pod.labels)
