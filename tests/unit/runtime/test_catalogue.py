"""Names in a pod: where they are looked up, what they stand for, and that this is part of a run's identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.limited_store import Answer, Request, limited
from tests.s3 import S3Server
from tests.unit.runtime.fetch.support import MODEL, ROWS, Fetcher
from tunesmith_api.catalogue import SCHEME
from tunesmith_api.catalogue.builtin import datasets
from tunesmith_api.catalogue.entries import DatasetEntry
from tunesmith_api.compatibility import LIMITS
from tunesmith_api.datasets import Dataset, RowTemplate
from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import Hub, HubName, RunReport, RunSpec, Store, Verb
from tunesmith_runtime import __main__, catalogue
from tunesmith_runtime.catalogue import Catalogue, data_of, look_up, resolve
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import open_storage


@pytest.fixture
def fetcher(store: Store, tmp_path: Path) -> Fetcher:
    return Fetcher(store, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Fetcher:
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder at which the ConfigMap is mounted; it does not exist yet."""
    folder = tmp_path / "config-map"
    monkeypatch.setattr(catalogue, "CATALOGUE_DIRECTORY", str(folder))
    return folder


def config_map(folder: Path, **files: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def job(fetcher: Fetcher, model: str, *data: dict[str, Any], **more: Any) -> RunSpec:
    """The RunSpec of a FineTuneJob whose model and data sets are named, as the operator writes it."""
    spec = {"model": {"name": model}, "datasets": list(data), **more}
    run = fetcher.spec("FineTuneJob", f"{SCHEME}{model}", spec)
    return run.model_copy(update={"spec": spec, "spec_hash": spec_hash("FineTuneJob", spec)})


def looked_up(spec: RunSpec, fetcher: Fetcher) -> RunSpec:
    return resolve(spec, Catalogue(fetcher.storage, fetcher.store.uri))


def refusal(spec: RunSpec, fetcher: Fetcher) -> RunFailure:
    with pytest.raises(RunFailure) as failure:
        looked_up(spec, fetcher)
    return failure.value


def test_a_model_and_rows_by_name_are_fetched(fetcher: Fetcher, mounted: Path, tmp_path: Path) -> None:
    model, rows = fetcher.put("base", MODEL), fetcher.put("rows", {"a.jsonl": b'{"input": "a", "output": "b"}\n'})
    fetcher.put("catalogue", {"models.yaml": f"tiny: {model}".encode()})
    config_map(
        mounted, datasets=f'mine: {{train: {rows}/a.jsonl, format: {{prompt: "{{input}}", completion: "{{output}}"}}}}'
    )
    spec = job(fetcher, "tiny", {"name": "mine", "maxRows": 1})
    report, work = fetcher.fetch(looked_up(spec, fetcher))
    assert (report.outcome, report.model_uri) == ("Succeeded", model)
    assert [file.uri for file in work.data_files()] == [f"{rows}/a.jsonl"]
    found = looked_up(spec, fetcher).fine_tune_job().datasets[0]
    assert (found.template, found.max_rows, found.name) == (
        RowTemplate(prompt="{input}", completion="{output}"),
        1,
        None,
    )


def test_the_config_map_is_before_the_store_and_the_store_before_the_built_in_catalogue(
    local: Fetcher, mounted: Path
) -> None:
    spec = job(local, "qwen3-8b", {"uri": "file:///rows.jsonl"})
    assert looked_up(spec, local).base.uri == "hf://Qwen/Qwen3-8B"
    local.put("catalogue", {"models.yaml": b"qwen3-8b: s3://store/qwen"})
    assert looked_up(spec, local).base.uri == "s3://store/qwen"
    config_map(mounted, models="qwen3-8b: s3://team/qwen")
    assert looked_up(spec, local).base.uri == "s3://team/qwen"


def test_the_order_of_the_hubs_decides_where_a_model_is_read_from(local: Fetcher, mounted: Path) -> None:
    spec = job(local, "qwen3-8b", {"uri": "file:///rows.jsonl"})
    places = Catalogue(local.storage, local.store.uri, order=["modelscope", "huggingface"])
    assert resolve(spec, places).base.uri == "ms://Qwen/Qwen3-8B"
    places = Catalogue(local.storage, local.store.uri, order=["modelscope"])
    with pytest.raises(RunFailure) as failure:
        resolve(job(local, "blip2-opt-2.7b", {"uri": "file:///rows.jsonl"}), places)
    assert failure.value.failure is FailureClass.MODEL_NOT_FOUND
    assert failure.value.message == "model 'blip2-opt-2.7b' is on huggingface only; the hubs in use are modelscope"


def test_an_unknown_model_is_refused_with_the_places_and_the_three_nearest_names(local: Fetcher, mounted: Path) -> None:
    config_map(mounted, models="qwen3-8b-mine: s3://team/qwen")
    failure = refusal(job(local, "qwen3-8b-mein", {"uri": "file:///rows.jsonl"}), local)
    assert failure.failure is FailureClass.MODEL_NOT_FOUND
    assert failure.message == (
        "model 'qwen3-8b-mein' is in no catalogue: looked up in ConfigMap tunesmith-catalogue key models.yaml, "
        f"{local.store.uri}/catalogue/models.yaml (absent) and the built-in catalogue"
    )
    assert failure.hint is not None
    assert failure.hint.startswith("write qwen3-8b-mine, ")
    assert failure.hint.endswith(" in spec.model.name, or set spec.model.uri instead")


def test_an_unknown_data_set_is_refused_with_the_three_nearest_names(local: Fetcher, mounted: Path) -> None:
    failure = refusal(job(local, "qwen3-8b", {"uri": "file:///a.jsonl"}, {"name": "alpaca_zh"}), local)
    assert failure.failure is FailureClass.DATASET_NOT_FOUND
    assert failure.hint == (
        "write alpaca-zh, alpaca-en or alpaca-cleaned in spec.datasets[1].name, or set spec.datasets[1].uri instead"
    )


def test_an_unknown_baseline_is_named_by_its_field(local: Fetcher, mounted: Path) -> None:
    spec = local.spec("EvalJob", f"{SCHEME}nothing", {"benchmarks": [{"name": "gsm8k"}]}, role="baseline")
    assert "spec.baseline.name" in str(refusal(spec, local).hint)


def test_a_changed_entry_is_a_new_run_and_an_equal_one_the_same(local: Fetcher, mounted: Path) -> None:
    base, rows = local.put("base", MODEL), local.put("rows", {"a.jsonl": ROWS, "b.jsonl": ROWS})
    spec = job(local, "tiny", {"name": "mine"})

    def run_of(data: str) -> str:
        config_map(mounted, models=f"tiny: {base}", datasets=f"mine: {data}")
        return str(local.prepare(looked_up(spec, local))[0].run_uri)

    first = run_of(f"{rows}/a.jsonl")
    assert run_of(f"{{train: {rows}/a.jsonl}}") == first
    other_place = run_of(f"{rows}/b.jsonl")
    other_columns = run_of(f"{{train: {rows}/a.jsonl, columns: {{prompt: prompt}}}}")
    other_format = run_of(f"{{train: {rows}/a.jsonl, format: promptCompletion}}")
    assert len({first, other_place, other_columns, other_format}) == 4


def test_a_changed_model_entry_is_a_new_run(local: Fetcher, mounted: Path) -> None:
    rows = local.put("rows", {"a.jsonl": ROWS})
    spec = job(local, "tiny", {"uri": f"{rows}/a.jsonl"})
    found = []
    for name, files in (("one", MODEL), ("two", {**MODEL, "generation_config.json": b"{}"})):
        config_map(mounted, models=f"tiny: {local.put(name, files)}")
        found.append(local.prepare(looked_up(spec, local))[0].run_uri)
    assert found[0] != found[1]


def test_the_containers_after_fetch_use_what_fetch_has_looked_up(local: Fetcher, mounted: Path) -> None:
    config_map(mounted, models="tiny: file:///one")
    spec = job(local, "tiny", {"uri": "file:///rows.jsonl"})
    work = local._pod()
    with pytest.raises(RunFailure, match=r"looked-up\.json is missing"):
        look_up(spec, Verb.TRAIN, work)
    fetched = look_up(spec, Verb.FETCH, work)
    config_map(mounted, models="tiny: file:///two")
    assert look_up(spec, Verb.TRAIN, work) == fetched
    assert fetched.base.uri == "file:///one"
    assert (fetched.spec_hash, fetched.has_names) == (spec.spec_hash, False)


@pytest.mark.parametrize(("order", "uri"), [([HubName.MODEL_SCOPE, HubName.HUGGING_FACE], "ms://"), (None, "hf://")])
def test_the_hub_of_a_name_follows_the_order_in_the_chart(
    local: Fetcher, mounted: Path, order: list[HubName] | None, uri: str
) -> None:
    spec = job(local, "qwen3-8b", {"uri": "file:///rows.jsonl"})
    spec = spec.model_copy(update={"hub": Hub(order=order) if order else None})
    assert look_up(spec, Verb.FETCH, local._pod()).base.uri == f"{uri}Qwen/Qwen3-8B"


def test_a_spec_without_names_is_left_as_it_is(local: Fetcher) -> None:
    spec = local.job("file:///base", "file:///rows.jsonl")
    work = local._pod()
    assert look_up(spec, Verb.FETCH, work) is spec
    assert not work.root.exists()


def test_the_verb_prepare_reports_where_a_named_model_is(
    local: Fetcher, mounted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, rows = local.put("base", MODEL), local.put("rows", {"a.jsonl": ROWS})
    config_map(mounted, models=f"tiny: {base}", datasets=f"mine: {rows}/a.jsonl")
    monkeypatch.setenv("TUNESMITH_TERMINATION_LOG", str(tmp_path / "log"))
    (tmp_path / "run.json").write_text(json.dumps(job(local, "tiny", {"name": "mine"}).to_dict()))
    assert __main__.main(["prepare", "--spec", str(tmp_path / "run.json"), "--work", str(tmp_path / "work")]) == 0
    assert RunReport.model_validate_json((tmp_path / "log").read_bytes()).model_uri == base


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiny: {uri: s3://x}", "tiny: uri: "),
        ("tiny: {url: s3://models/x}", "tiny: has the unknown key 'url'"),
        ("tiny: [", "line 1: "),
        ("- tiny", "holds a list"),
    ],
)
def test_an_entry_at_fault_is_a_bad_spec_that_names_its_place(
    local: Fetcher, mounted: Path, text: str, message: str
) -> None:
    config_map(mounted, models=text)
    failure = refusal(job(local, "tiny", {"uri": "file:///rows.jsonl"}), local)
    assert failure.failure is FailureClass.BAD_SPEC
    assert failure.message.startswith(f"ConfigMap tunesmith-catalogue key models.yaml: {message}")
    assert str(failure.hint).endswith("in ConfigMap tunesmith-catalogue key models.yaml")


def test_an_entry_at_fault_leaves_the_others_usable(local: Fetcher, mounted: Path) -> None:
    config_map(mounted, models="bad: {url: x}\ntiny: s3://models/tiny")
    assert looked_up(job(local, "tiny", {"uri": "file:///rows.jsonl"}), local).base.uri == "s3://models/tiny"


def test_files_of_a_machine_are_refused_unless_the_store_is_one(s3: S3Server, mounted: Path, tmp_path: Path) -> None:
    fetcher = Fetcher(s3.store("names"), tmp_path)
    config_map(mounted, models="tiny: file:///etc")
    failure = refusal(job(fetcher, "tiny", {"uri": "s3://data/rows.jsonl"}), fetcher)
    assert failure.failure is FailureClass.BAD_SPEC
    assert failure.message == "model 'tiny' of the catalogue is file:///etc: pods cannot read files of your machine"


def test_a_place_that_this_version_cannot_read_is_refused_by_the_table_of_limits(local: Fetcher, mounted: Path) -> None:
    refused = [scheme for limit in LIMITS if limit.field == "datasets[].uri" for scheme in limit.refused_schemes]
    places = {"hf": "hf://org/rows", "ms": "ms://org/rows", "pvc": "pvc://claim/rows.jsonl"}
    for scheme, uri in places.items():
        config_map(mounted, datasets=f"mine: {uri}")
        spec = job(local, "qwen3-8b", {"name": "mine"})
        if scheme == "pvc" and scheme not in refused:
            assert "a pod has only the claims that its spec names" in refusal(spec, local).message
            continue
        if scheme not in refused:
            assert looked_up(spec, local).fine_tune_job().datasets[0].uri == uri
            continue
        failure = refusal(spec, local)
        assert (failure.failure, f"datasets[].uri {uri}: not available" in failure.message) == (
            FailureClass.BAD_SPEC,
            True,
        )
        assert str(failure.hint).startswith("set spec.datasets[0].uri to a copy of your own")


def test_a_store_that_lets_nobody_read_its_catalogue_has_none(s3: S3Server, mounted: Path, tmp_path: Path) -> None:
    def forbid(request: Request) -> Answer | None:
        return Answer(403, "AccessDenied") if "/catalogue/" in request.target else None

    with limited(s3, forbid) as proxy:
        store = s3.store("names").model_copy(update={"endpoint": proxy.endpoint})
        places = Catalogue(open_storage(store), store.uri)
        spec = job(Fetcher(store, tmp_path), "qwen3-8b", {"uri": "s3://data/rows.jsonl"})
        assert resolve(spec, places).base.uri == "hf://Qwen/Qwen3-8B"
        assert any("/catalogue/models.yaml" in request.target for request in proxy.requests)


def test_the_spec_has_precedence_over_the_entry_of_a_data_set() -> None:
    entry = DatasetEntry(
        name="mine", uri="s3://data/x", columns={"q": "prompt", "a": "completion"}, format="promptCompletion"
    )
    assert data_of(Dataset(name="mine"), entry, "s3://data/x").columns == entry.columns
    own = data_of(Dataset(name="mine", columns={"b": "text"}, format="text"), entry, "s3://data/x")
    assert (own.columns, own.format) == ({"b": "text"}, "text")


def test_a_format_with_columns_in_braces_is_the_template_of_the_data_set() -> None:
    entry = DatasetEntry(name="mine", uri="s3://data/x", format={"prompt": "Q: {input}", "completion": "{output}"})
    found = data_of(Dataset(name="mine"), entry, "s3://data/x")
    assert (found.format, found.template) == ("auto", RowTemplate(prompt="Q: {input}", completion="{output}"))
    assert data_of(Dataset(name="mine", format="text"), entry, "s3://data/x").template is None


def test_a_name_in_validation_stands_for_the_rows_to_validate_on(local: Fetcher, mounted: Path) -> None:
    config_map(mounted, datasets="mine: {train: s3://data/a.jsonl, val: s3://data/b.jsonl, columns: {q: text}}")
    spec = job(local, "qwen3-8b", {"name": "mine"}, validation={"datasets": [{"name": "mine"}]})
    found = looked_up(spec, local)
    assert (found.has_names, set(found.looked_up or ())) == (False, {"spec.datasets[0]", "spec.validation.datasets[0]"})
    validation = found.fine_tune_job().validation
    assert validation is not None
    assert [(each.uri, each.columns) for each in validation.separate] == [("s3://data/b.jsonl", {"q": "text"})]


def test_an_entry_without_rows_to_validate_on_is_refused_in_validation(local: Fetcher, mounted: Path) -> None:
    config_map(mounted, datasets="mine: s3://data/a.jsonl")
    spec = job(local, "qwen3-8b", {"name": "mine"}, validation={"datasets": [{"name": "mine"}]})
    failure = refusal(spec, local)
    assert failure.failure is FailureClass.DATASET_NOT_FOUND
    assert failure.message == "data set 'mine' of the catalogue has no rows to validate on"


def evaluation(fetcher: Fetcher, dataset: dict[str, Any]) -> RunSpec:
    benchmarks = [{"name": "own", "dataset": dataset}, {"name": "mmlu"}]
    return fetcher.spec("EvalJob", "s3://models/a", {"benchmarks": benchmarks}, role="model")


def test_a_named_data_set_is_evaluated_on_its_rows_for_tests_and_read_as_the_entry_says(
    local: Fetcher, mounted: Path
) -> None:
    template = {"prompt": "{q}", "completion": "{a}"}
    config_map(
        mounted,
        datasets=json.dumps(
            {"a": {"train": "s3://own/a", "format": template}, "b": {"train": "s3://own/b", "val": "s3://own/c"}}
        ),
    )
    spec = evaluation(local, {"name": "gsm8k"})
    assert spec.has_names
    found = looked_up(spec, local).eval_job().benchmarks[0].dataset
    assert found is not None
    assert (found.name, found.uri, found.subset, found.split) == (None, "hf://openai/gsm8k", "main", None)
    assert found.columns == {"question": "instruction", "answer": "output"}
    choices = looked_up(evaluation(local, {"name": "gsm8k", "type": "multipleChoice"}), local).eval_job()
    assert [each.dataset and each.dataset.columns for each in choices.benchmarks] == [None, None]
    pictures = looked_up(evaluation(local, {"name": "gsm8k", "type": "vqa"}), local).eval_job()
    assert next(each.dataset and each.dataset.columns for each in pictures.benchmarks) == found.columns
    own = [looked_up(evaluation(local, {"name": name}), local).eval_job().benchmarks[0].dataset for name in ("a", "b")]
    assert [each and each.uri for each in own] == ["s3://own/a", "s3://own/c"]
    assert [each and each.template for each in own] == [RowTemplate.model_validate(template), None]


def test_a_changed_entry_of_an_evaluation_is_another_score(local: Fetcher, mounted: Path) -> None:
    model, rows = local.put("base", MODEL), local.put("rows", {"a.jsonl": ROWS})
    spec = evaluation(local, {"name": "mine"}).model_copy(update={"models": local.spec("EvalJob", model, {}).models})
    runs = []
    for entry in ({"train": f"{rows}/a.jsonl"}, {"train": f"{rows}/a.jsonl", "columns": {"prompt": "query"}}) * 2:
        config_map(mounted, datasets=json.dumps({"mine": entry}))
        found = looked_up(spec, local)
        assert list(found.looked_up or {}) == ["spec.benchmarks[0].dataset"]
        runs.append(local.fetch(found)[0].run_uri)
    assert runs[:2] == runs[2:]
    assert runs[0] != runs[1]


def test_data_whose_questions_must_not_be_trained_on_may_have_a_name(local: Fetcher, mounted: Path) -> None:
    spec = job(local, "qwen3-8b", {"uri": "file:///rows.jsonl"}, decontaminate=[{"name": "gsm8k"}])
    found = looked_up(spec, local)
    (dataset,) = found.fine_tune_job().decontaminate or ()
    assert (dataset.uri, dataset.subset, dataset.split) == ("hf://openai/gsm8k", "main", None)
    assert dataset.columns == {"question": "instruction", "answer": "output"}
    assert "spec.decontaminate[0]" in (found.looked_up or {})


def test_every_built_in_data_set_gives_a_valid_data_set() -> None:
    for name, entry in datasets().items():
        for uri in entry.uris():
            found = data_of(Dataset(name=name), entry, uri)
            assert Dataset.model_validate(found.to_dict()) == found
