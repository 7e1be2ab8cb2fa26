"""A resource that is deleted and created again identifies the same run, and adopts its results."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.plan.test_properties import steady
from tests.unit.operator.plan.world import TUNED, Cluster, ended, fine_tune_job, report, tuned
from tunesmith_api.hashing import IRRELEVANT
from tunesmith_api.run import RunSpec
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.types import Raw

OTHER_VALUES: Raw = {
    "suspend": False,
    "queueName": "gpus",
    "retries": 9,
    "deadline": "1h",
    "pendingDeadline": "1h",
    "ttlAfterFinished": "1h",
    "pod": {"nodeSelector": {"zone": "b"}},
    "resources": {"accelerator": "nvidia"},
    "checkpoint": {"keep": 5},
    "fit": "Refuse",
    "samples": {"prompts": ["Name a metal."]},
    "tracking": {"to": "mlflow", "url": "https://mlflow.example"},
}
"""Fields that determine where, when and how often work runs, but not its result."""
ELSEWHERE = {"output", "storage", "until"}
"""Fields that determine where the result is stored, and how far the job goes."""
ADOPTED = {
    verb: ended(message=report(verb, "Adopted", runUri="s3://store/run", **more))
    for verb, more in {
        "fetch": {},
        "train": {},
        "export": {"artifacts": [{"name": "merged", "uri": "s3://store/run/merged", "digest": "d2"}]},
    }.items()
}


def run(cluster: Cluster) -> RunSpec:
    """The RunSpec of the newest Job."""
    found = run_spec_of(cluster.jobs[max(cluster.jobs)]["spec"]["template"])
    assert found
    return found


def created_again(**spec) -> Cluster:
    """A resource of the same name and namespace with another uid."""
    resource = fine_tune_job(**spec)
    resource["metadata"] |= {"uid": "another", "generation": 7}
    cluster = Cluster(resource)
    cluster.begin()
    return cluster


def test_every_field_without_effect_on_the_result_is_covered():
    assert set(OTHER_VALUES) | ELSEWHERE == {path for path in IRRELEVANT if "." not in path}


@given(spec=st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in OTHER_VALUES.items()}))
@steady
def test_a_resource_created_again_adopts_the_existing_run(spec):
    first, again = created_again(), created_again(**spec)
    before, after = run(first), run(again)
    assert (after.spec_hash, after.output_uri, after.subject) == (before.spec_hash, before.output_uri, before.subject)
    job = max(again.jobs)
    if again.jobs[job]["spec"].get("suspend"):
        again.admit(job)
    again.start_pod(job, "Succeeded", ADOPTED)
    again.end_job(job, "Complete", "CompletionsReached")
    again.settle()
    assert (again.status["phase"], again.status["reason"]) == ("Succeeded", "AdoptedExisting")
    assert again.status["artifacts"] == [{"name": "merged", "uri": "s3://store/run/merged", "digest": "d2"}]
    assert max(again.jobs) == job, "no work is repeated"
    assert again.reconcile().is_empty


@given(change=st.sampled_from([{"rerun": "2"}, {"training": {"epochs": 2}}, {"tuner": "full"}, {"method": "sft"}]))
@steady
def test_a_change_that_affects_the_result_is_another_run(change):
    same = change == {"method": "sft"}
    assert (run(created_again(**change)).spec_hash == run(created_again()).spec_hash) is same


def test_other_resources_can_use_an_adopted_run_like_the_first():
    """The phase, the artifacts and the conditions are those of a run of its own."""
    again = created_again()
    payload = TUNED["export"]["terminated"]["message"].replace('"Succeeded"', '"Adopted"')
    again.start_pod("support-tune-1", "Succeeded", {**ADOPTED, "export": ended(message=payload)})
    again.end_job("support-tune-1", "Complete", "CompletionsReached")
    again.settle()
    first = tuned()["status"]
    assert again.status["phase"] == first["phase"]
    assert again.status["artifacts"] == first["artifacts"]
    assert {condition["type"]: condition["status"] for condition in again.status["conditions"]} == {
        condition["type"]: condition["status"] for condition in first["conditions"]
    }
