"""The cache of model files (cache in the chart's values): the pods that mount it."""

from __future__ import annotations

from dataclasses import replace

from tunesmith_api.run import CacheMount
from tunesmith_operator.plan.config import CacheSettings
from tunesmith_operator.plan.pods.template import CACHE, PodPlan
from tunesmith_operator.plan.types import Raw


def with_cache(pod: PodPlan, settings: CacheSettings) -> PodPlan:
    """Return `pod` with the cache, unless there is none, or the pod runs code of a model, which could read files of others."""
    if not settings.is_enabled or any(model.trust_remote_code for model in pod.run.models.values()):
        return pod
    limit = None if settings.max_bytes is None else str(settings.max_bytes)
    run = pod.run.model_copy(update={"cache": CacheMount(max_bytes=limit)})
    return replace(pod, run=run, cache_volume=_volume(settings))


def _volume(settings: CacheSettings) -> Raw:
    if settings.claim:
        return {"name": CACHE, "persistentVolumeClaim": {"claimName": settings.claim}}
    return {"name": CACHE, "hostPath": {"path": settings.host_path, "type": "DirectoryOrCreate"}}
