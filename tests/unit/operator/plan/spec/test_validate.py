from __future__ import annotations

import pytest

from tests.unit.operator.plan.world import CONFIG, Cluster, eval_job, fine_tune_job, inference_service, running, tune
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_operator.plan.spec.references import Refused
from tunesmith_operator.plan.spec.validate import OTHER_SCHEMA, parse_spec, spec_refusals
from tunesmith_operator.plan.types import Raw

OLD = "s3://Models_2023/../base"
"""What CRDs of an older release have admitted."""


@pytest.mark.parametrize(
    "thing", [fine_tune_job(model={"uri": OLD}), eval_job(model={"uri": OLD})], ids=["tune", "eval"]
)
def test_a_uri_that_an_older_release_admitted_is_refused_in_its_sentence_before_any_work(thing: Raw) -> None:
    cluster = Cluster(thing)
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["message"].startswith(f'spec.model.uri: "{OLD}" has a folder named . or ..: write')
    assert OTHER_SCHEMA.message not in cluster.status["message"]
    assert not cluster.jobs


def test_running_work_continues_to_its_end() -> None:
    cluster = Cluster(fine_tune_job())
    cluster.begin()
    cluster.start_pod("support-tune-1", "Running", {"fetch": running()})
    cluster.resource["spec"]["datasets"] = [{"uri": OLD}]
    cluster.settle()
    assert cluster.status["phase"] == "Preparing"
    tune(cluster)
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"


def test_a_service_that_answers_continues_to_answer() -> None:
    cluster = Cluster(inference_service())
    cluster.settle()
    [deployment] = cluster.deployments.values()
    cluster.resource["spec"]["model"] = {"uri": OLD}
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    assert OLD in cluster.status["message"]
    assert list(cluster.deployments.values()) == [deployment]


def test_a_text_that_no_release_has_admitted_is_of_another_schema() -> None:
    spec = parse_spec(FineTuneJobSpec, fine_tune_job(deadline="soon"))
    assert isinstance(spec, Refused)
    assert spec.text.startswith('spec.deadline: "soon" is not a duration: write')
    assert (OTHER_SCHEMA.message in spec.text, spec.hint) == (True, OTHER_SCHEMA.hint)


def test_a_spec_of_now_is_acceptable() -> None:
    spec = parse_spec(FineTuneJobSpec, fine_tune_job())
    assert not isinstance(spec, Refused)
    assert spec_refusals("FineTuneJob", spec, CONFIG, "team") == []
