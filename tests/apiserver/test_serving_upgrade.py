"""What an operator that comes after another does to the services that are there."""

from __future__ import annotations

import time

from tests.apiserver.chart import VALUES
from tests.apiserver.cluster import Cluster
from tests.apiserver.conftest import StartOperator
from tests.apiserver.test_serving import BAD, change, node, serve, status, template, uids


def test_an_upgrade_of_the_operator_restarts_nothing_that_answers(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    old = start_operator("operator-0")
    with node(cluster):
        serve(cluster, rollout={"readyTimeout": "5s"}, resources={"accelerator": "nvidia"})
        pods, before = uids(cluster), template(cluster)
        assert old.stop() == 0
        images = {"runtime": "localhost/tunesmith-runtime:next", "engines": {"lmdeploy": "localhost/lmdeploy:next"}}
        new = start_operator("operator-1", images={**VALUES["images"], **images})
        cluster.until("it leads", new.leads)
        change(cluster, replicas=2)
        cluster.until("two pods are ready", lambda: status(cluster)["message"] == "2 of 2 pods are ready")
        assert uids(cluster) > pods
        assert template(cluster) == before
        assert status(cluster)["engine"] == "transformers"
        change(cluster, restart="now")
        cluster.until("the new image", lambda: ":next" in template(cluster)["spec"]["containers"][0]["image"])
        cluster.until("both are new", lambda: not uids(cluster) & pods and "candidate" not in status(cluster))
        assert status(cluster)["engine"] == "lmdeploy"
        # What is given up is given up by the very template that was there, whatever the operator makes of the spec now.
        before = template(cluster)
        change(cluster, maxModelLength=BAD)
        cluster.until_phase("InferenceService", "support", "RolledBack")
        time.sleep(0.5)
        new.stop()
        again = start_operator("operator-2")
        cluster.until("it leads", again.leads)
        cluster.until("it is back", lambda: template(cluster) == before)
