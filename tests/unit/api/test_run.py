"""RunSpec: models by role, and the records of releases up to 0.2.0."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tunesmith_api.run import ModelRole, ResolvedModel, RunSpec, models_by_role

BASE = ResolvedModel(uri="s3://models/base", digest="d0", trust_remote_code=True)
ADAPTER = ResolvedModel(uri="s3://runs/adapter", digest="d1", base=BASE)


def run(**models: Any) -> RunSpec:
    fields = {"kind": "InferenceService", "name": "chat", "namespace": "team", "uid": "u", "spec": {}, "specHash": "0"}
    return RunSpec.model_validate({**fields, "store": {"uri": "s3://store"}, "outputUri": "s3://store/out", **models})


@pytest.mark.parametrize("model", [BASE, ADAPTER], ids=["base", "adapter"])
def test_a_record_of_0_2_0_reads_as_the_spec_that_is_written_now(model: ResolvedModel) -> None:
    now = run(models={role: each.to_dict() for role, each in models_by_role(model).items()})
    assert run(model=model.to_dict()) == now
    assert RunSpec.model_validate_json(now.model_dump_json(by_alias=True)) == now
    assert (now.subject, now.base) == (model, BASE)


def test_a_run_without_a_base_is_refused() -> None:
    with pytest.raises(ValidationError, match="no model with the role base"):
        run(models={ModelRole.TEACHER: BASE.to_dict()})
    with pytest.raises(ValidationError, match="models"):
        run()
