"""Every example is valid by the generated schema, without unknown fields."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from devcluster.paths import cache_paths
from tests.manifests import load_all
from tunesmith_api.catalogue import DATASETS_FILE, MODELS_FILE, builtin
from tunesmith_api.catalogue.own import dataset_entry, model_entry, read_entries

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = {
    crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path in (ROOT / "crds").glob("*.yaml")
    for crd in load_all(path.read_text())
}


def resources() -> Iterator[Any]:
    """Every object of ours below examples/."""
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if str(document.get("apiVersion", "")).startswith("tunesmith.dev/"):
                yield pytest.param(document, id=str(path.relative_to(ROOT)))


def closed(schema: Any) -> Any:
    """The schema with every object closed, as kubectl's strict validation reads it."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        result["additionalProperties"] = False
    return result


@pytest.mark.parametrize("resource", resources())
def test_every_example_is_valid_by_the_generated_schema(resource: dict[str, Any]) -> None:
    spec = closed(SCHEMAS[resource["kind"]])["properties"]["spec"]
    jsonschema.Draft4Validator(spec).validate(resource["spec"])


def test_kubeconform_finds_every_example_valid(tmp_path: Path) -> None:
    for kind, schema in SCHEMAS.items():
        (tmp_path / f"{kind.lower()}.json").write_text(json.dumps(closed(schema)))
    files = [path for path in (ROOT / "examples").rglob("*.yaml") if "apiVersion: tunesmith.dev/" in path.read_text()]
    locations = ["-schema-location", f"{tmp_path}/{{{{ .ResourceKind }}}}.json"]
    checked = subprocess.run(
        [cache_paths().program("kubeconform"), "-summary", *locations, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"Valid: {len(files)}" in checked.stdout


def test_every_name_of_the_quickstart_is_in_the_catalogue_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ROOT / "examples" / "quickstart"
    monkeypatch.syspath_prepend(str(folder))
    import demo  # type: ignore[import-not-found]

    tuning, scoring = (
        yaml.safe_load((folder / file).read_text())["spec"] for file in ("finetunejob.yaml", "evaljob.yaml")
    )
    data = demo.catalogue("demo")["data"]
    models, datasets = read_entries(data[MODELS_FILE]), read_entries(data[DATASETS_FILE])
    assert tuning["model"] == scoring["baseline"] == {"name": demo.MODEL}
    assert model_entry(demo.MODEL, models[demo.MODEL]).uris() == [f"s3://{demo.BUCKET}/{demo.MODEL_KEY}"]
    assert [dataset_entry(name, uri).uri for name, uri in datasets.items()] == [f"s3://{demo.BUCKET}/{demo.TRAIN_KEY}"]
    assert tuning["datasets"] == [{"name": name} for name in datasets]
    assert demo.MODEL in builtin.models()


def test_a_misspelt_field_is_found() -> None:
    training = closed(SCHEMAS["FineTuneJob"])["properties"]["spec"]["properties"]["training"]
    with pytest.raises(jsonschema.ValidationError, match="learningrate"):
        jsonschema.Draft4Validator(training).validate({"learningrate": 1e-4})
