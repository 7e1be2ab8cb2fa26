"""From a resource to the RunSpec of its pods, and from a RunSpec to the identity of its run in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith_api.evaljob import EvalJobSpec
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import SPECS, decisive, digest, spec_hash
from tunesmith_api.inferenceservice import Engine, InferenceServiceSpec
from tunesmith_api.run import (
    REWARD_CODE_FILE,
    TEMPLATE_FILE,
    Hub,
    ModelRole,
    NamedAdapter,
    ResolvedModel,
    RunSpec,
    Store,
    World,
)

SCORING_FIELDS = ("benchmarks", "generation", "engine", "rerun")
"""Fields of an EvalJob's spec that decide the score of a model. EvalJobs that share them share the scores of a model,
whatever their other model and their gates are."""
NOT_OF_A_VERSION = frozenset({"replicas", "autoscaling", "suspend", "rollout", "promotion", "disruptionBudget"})
"""Fields of an InferenceService's spec that can change without a new version."""


def run_spec(
    resource: Mapping[str, Any],
    spec: FineTuneJobSpec | EvalJobSpec | InferenceServiceSpec,
    models: Mapping[ModelRole, ResolvedModel],
    store: Store,
    *,
    adapters: Sequence[NamedAdapter] = (),
    engine: Engine | None = None,
    attempt: int = 1,
    role: str | None = None,
    progress_url: str | None = None,
    world: World | None = None,
    hub: Hub | None = None,
) -> RunSpec:
    """Return the RunSpec of a resource with the typed `spec`, whose references are resolved to `models` and `adapters`.

    `engine`: the resolved engine of an EvalJob or an InferenceService.
    """
    kind = next(kind for kind, type_ in SPECS.items() if isinstance(spec, type_))
    metadata = resource["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace", "default")
    data = version_fields(spec) if isinstance(spec, InferenceServiceSpec) else spec.to_dict()
    data |= {"engine": str(engine)} if engine else {}
    identifying = {field: data[field] for field in SCORING_FIELDS if field in data} if kind == "EvalJob" else data
    folder = {
        "FineTuneJob": f"runs/{namespace}/{name}",
        "EvalJob": "evals",
        "InferenceService": f"services/{namespace}/{name}",
    }[kind]
    wanted = None if isinstance(spec, InferenceServiceSpec) else spec.output.uri
    return RunSpec(
        kind=kind,
        name=name,
        namespace=namespace,
        uid=metadata.get("uid", ""),
        attempt=attempt,
        role=role,
        spec=data,
        spec_hash=spec_hash(kind, identifying),
        store=store,
        hub=hub,
        models=dict(models),
        adapters=list(adapters),
        output_uri=wanted or f"{store.uri}/{folder}",
        chat_template_file=TEMPLATE_FILE if isinstance(spec, FineTuneJobSpec) and spec.training.chat_template else None,
        reward_code_file=REWARD_CODE_FILE if isinstance(spec, FineTuneJobSpec) and spec.reward_code else None,
        progress_url=progress_url,
        world=world,
    )


def version_fields(spec: InferenceServiceSpec) -> dict[str, Any]:
    """Return the fields of a spec that make a version; changes of other fields keep the pods."""
    return {name: value for name, value in spec.to_dict().items() if name not in NOT_OF_A_VERSION}


def run_id(run: RunSpec, fingerprints: Mapping[str, str]) -> str:
    """Return the name of the run's folder, 12 hex digits: equal for runs that must give equal results.

    `fingerprints`: URI (or role) -> fingerprint of its content. For an EvalJob the run is the score of one model.
    """
    if run.kind == "EvalJob":
        fields = decisive(run.kind, run.spec)
        scoring = {name: fields.get(name) for name in SCORING_FIELDS}
        return digest({"kind": run.kind, "scoring": scoring, "fingerprints": fingerprints})[:12]
    return digest({"specHash": run.spec_hash, "fingerprints": fingerprints})[:12]
