"""The names of a service's version: they stand for one model in all its pods, whatever happens to the catalogue meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.limited_store import Answer, Request, limited
from tests.s3 import S3Server
from tests.unit.runtime.fetch.support import ADAPTER, MODEL, Fetcher
from tunesmith_api.catalogue import SCHEME
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunReport, RunSpec, Store, Verb
from tunesmith_runtime import catalogue, fetch
from tunesmith_runtime.catalogue import look_up
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.workdir import Work


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key models.yaml of the ConfigMap, as pods mount it."""
    monkeypatch.setattr(catalogue, "CATALOGUE_DIRECTORY", str(tmp_path / "config-map"))
    (tmp_path / "config-map").mkdir()
    return tmp_path / "config-map" / "models.yaml"


@pytest.fixture
def two(fetcher: Fetcher) -> list[str]:
    """Two models."""
    return [
        fetcher.put(name, {**MODEL, "generation_config.json": f'{{"top_k": {name[-1]}}}'.encode()})
        for name in ("m1", "m2")
    ]


def service(fetcher: Fetcher, **spec: Any) -> RunSpec:
    return fetcher.spec("InferenceService", f"{SCHEME}tiny", {"model": {"name": "tiny"}, **spec})


def start(fetcher: Fetcher, spec: RunSpec) -> tuple[RunReport, Work]:
    """Fetch in a new pod."""
    work = fetcher._pod()
    return fetch.run(look_up(spec, Verb.FETCH, work), work, ProgressPusher(None, None)), work


def test_all_pods_of_a_version_serve_the_model_of_its_first_pod(fetcher: Fetcher, entry: Path, two: list[str]) -> None:
    entry.write_text(f"tiny: {two[0]}")
    first, _ = start(fetcher, service(fetcher))
    for changed in (f"tiny: {two[1]}", "other: s3://models/other", "tiny: ["):
        entry.write_text(changed)
        report, work = start(fetcher, service(fetcher))
        assert (report.model_uri, report.model_digest) == (two[0], first.model_digest)
        assert look_up(service(fetcher), Verb.SERVE, work).base.uri == two[0]


def test_another_version_and_another_service_look_the_name_up_anew(
    fetcher: Fetcher, entry: Path, two: list[str]
) -> None:
    entry.write_text(f"tiny: {two[0]}")
    start(fetcher, service(fetcher))
    entry.write_text(f"tiny: {two[1]}")
    created_again = service(fetcher).model_copy(update={"uid": "another"})
    for spec in (service(fetcher, restart="1"), created_again):
        assert start(fetcher, spec)[0].model_uri == two[1]
    assert start(fetcher, service(fetcher))[0].model_uri == two[0]


def test_the_name_of_an_adapter_is_recorded_too(fetcher: Fetcher, entry: Path, two: list[str]) -> None:
    ink, other = fetcher.put("ink", ADAPTER), fetcher.put("other", ADAPTER)
    spec = service(fetcher).model_dump(mode="json", by_alias=True)
    spec["adapters"] = [{"name": "ink", "model": {"uri": f"{SCHEME}ink"}}]
    entry.write_text(f"tiny: {two[0]}\nink: {ink}")
    start(fetcher, RunSpec.model_validate(spec))
    entry.write_text(f"tiny: {two[0]}\nink: {other}")
    [adapter] = look_up(RunSpec.model_validate(spec), Verb.FETCH, fetcher._pod()).adapters
    assert adapter.model.uri == ink


def test_an_entry_at_fault_is_not_recorded_so_its_correction_counts(
    fetcher: Fetcher, entry: Path, two: list[str]
) -> None:
    entry.write_text(f"tiny: {two[0]}-absent")
    with pytest.raises(RunFailure):
        start(fetcher, service(fetcher))
    entry.write_text(f"tiny: {two[0]}")
    assert start(fetcher, service(fetcher))[0].model_uri == two[0]


def test_of_two_pods_that_look_up_different_models_both_serve_that_of_the_first(
    fetcher: Fetcher, entry: Path, two: list[str]
) -> None:
    works, specs = [fetcher._pod(), fetcher._pod()], []
    for work, uri in zip(works, two, strict=True):
        entry.write_text(f"tiny: {uri}")
        specs.append(look_up(service(fetcher), Verb.FETCH, work))
    reports = [fetch.run(spec, work, ProgressPusher(None, None)) for spec, work in zip(specs, works, strict=True)]
    assert [report.model_uri for report in reports] == [two[0], two[0]]
    for work in works:
        assert (work.model() / "generation_config.json").read_text() == '{"top_k": 1}'
        assert look_up(service(fetcher), Verb.SERVE, work).base.uri == two[0]


def test_a_store_that_admits_no_record_is_named_with_the_uri_to_write(
    s3: S3Server, tmp_path: Path, entry: Path
) -> None:
    def forbid(request: Request) -> Answer | None:
        return Answer(403, "AccessDenied") if request.method == "PUT" and "/names/" in request.target else None

    with limited(s3, forbid) as proxy:
        fetcher = Fetcher(s3.store(s3.new_bucket()).model_copy(update={"endpoint": proxy.endpoint}), tmp_path)
        uri = fetcher.put("m1", MODEL)
        entry.write_text(f"tiny: {uri}")
        with pytest.raises(RunFailure) as failure:
            start(fetcher, service(fetcher))
    assert failure.value.failure is FailureClass.STORAGE_403
    assert "records there which model its name stands for" in failure.value.message
    assert f"set uri: {uri} in place of name in spec.model" in str(failure.value.hint)
