"""The start and the stop of the operator."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from tests.unit.operator.memory_client import MemoryClient
from tests.unit.operator.virtual_time import run
from tunesmith_operator import app
from tunesmith_operator.client import ApiError
from tunesmith_operator.controller import Controller, Settings
from tunesmith_operator.health import Health
from tunesmith_operator.leader import Leader
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.progress import ProgressBook

CONFIG = OperatorConfig.model_validate({"images": {"runtime": "r"}, "store": {"uri": "s3://s"}})


@pytest.mark.parametrize("missing", ["FineTuneJob", "Service"])
def test_a_stop_while_a_kind_cannot_be_listed_ends_it_well_and_takes_no_lease(missing: str) -> None:
    async def main() -> int:
        client.refuse[("list", missing)] = ApiError("GET", 404, "NotFound", "no such kind")
        controller = Controller(client, KINDS, ProgressBook(), Settings(CONFIG, lambda uid, name: "token", "pod-1"))
        clock = asyncio.get_running_loop().time
        leader = Leader(client, CONFIG.leader_election, "system", "pod-1_10.0.0.1:8082", clock)
        stop = asyncio.create_task(asyncio.sleep(60))
        return await app._lead(CONFIG, client, controller, leader, Health(controller.queue, clock), stop)

    client = MemoryClient()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert run(main()) == 0
        gc.collect()
    assert not [one for one in heard if "never awaited" in str(one.message)]
    assert not [call for call in client.calls if "Lease" in call]
