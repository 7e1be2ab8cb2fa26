"""The Deployment of a service."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.world import (
    Cluster,
    inference_service,
)


@pytest.mark.parametrize(("strategy", "type_"), [("Surge", "RollingUpdate"), ("Recreate", "Recreate")])
def test_the_rollout_strategy_is_that_of_the_deployment(strategy, type_):
    cluster = Cluster(inference_service(rollout={"strategy": strategy}))
    cluster.settle()
    assert cluster.deployments["support"]["spec"]["strategy"]["type"] == type_
