"""Names and owner references of children."""

from __future__ import annotations

from tests.unit.operator.plan.world import fine_tune_job
from tunesmith_operator.plan.names import child_metadata, has_no_status, is_leftover, job_name


def test_the_child_of_a_deleted_resource_of_the_same_name_is_a_leftover() -> None:
    resource = fine_tune_job()
    former = {**resource, "metadata": {**resource["metadata"], "uid": "former"}}
    name = job_name(resource, "tune", 1)
    assert is_leftover({"metadata": child_metadata(former, name, "tune")}, resource)
    assert not is_leftover({"metadata": child_metadata(resource, name, "tune")}, resource)
    assert not is_leftover({"metadata": {"name": name}}, resource)


def test_a_resource_has_no_status_until_the_operator_has_written_a_phase() -> None:
    assert has_no_status({"status": {"observedGeneration": -1}})
    assert not has_no_status({"status": {"phase": "Pending"}})
