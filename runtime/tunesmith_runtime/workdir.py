"""Layout of the work directory, through which the containers of a pod pass files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from tunesmith_api.base import ApiModel
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob_status import Estimate
from tunesmith_api.run import ModelRole, RunSpec
from tunesmith_runtime.errors import RunFailure


class DataFile(ApiModel):
    """A downloaded file of rows."""

    path: str = Field(description="File name below /work/data, or in the folder of a benchmark.")
    uri: str = Field(description="Its URI, which messages about its rows name.")
    dataset: int | None = Field(None, description="Index in spec.datasets; absent for other rows.")
    evaluation: int | None = Field(None, description="Index in spec.decontaminate; absent for other rows.")
    validation: int = Field(0, ge=0, description="Without both: index in spec.validation.datasets; 0 for its uri.")
    listing: str | None = Field(
        None, description="File name below /work/data of a list of the files that its rows may name."
    )
    caption_of: str | None = Field(None, description="Path of the image that its text describes, as a single row.")


class Fetched(ApiModel):
    """Result of fetch for the containers after it: /work/fetch.json."""

    run_id: str | None = Field(None, description="Name of the run's folder; absent for an InferenceService.")
    run_uri: str | None = Field(None, description="The run's folder in the store.")
    adopted: bool = Field(False, description="Whether a finished run was adopted; then nothing was downloaded.")
    record: dict[str, Any] | None = Field(None, description="run.json of the adopted run.")
    fingerprints: dict[str, str] = Field(default_factory=dict, description="URI -> fingerprint of its content.")
    model_uri: str | None = Field(None, description="URI of the weights in the store.")
    model_digest: str | None = Field(None, description="sha256 of their manifest.")
    estimate: Estimate | None = Field(None, description="What the run is expected to need, where fetch estimates it.")


@dataclass(frozen=True)
class Work:
    """Paths below the work directory (/work in a pod)."""

    root: Path

    def model(self, role: ModelRole = ModelRole.BASE) -> Path:
        """Folder of the model in `role`: weights or adapter, config and tokenizer."""
        return self.root / ("model" if role is ModelRole.BASE else role)

    @property
    def adapters(self) -> Path:
        """A folder for each named adapter of an InferenceService."""
        return self.root / "adapters"

    @property
    def data(self) -> Path:
        """Training rows: NN.jsonl files, and data.json, which lists them."""
        return self.root / "data"

    @property
    def examples(self) -> Path:
        """Encoded rows as Arrow files."""
        return self.root / "examples"

    @property
    def benchmarks(self) -> Path:
        """A folder for each benchmark with its own data."""
        return self.root / "benchmarks"

    def benchmark_media(self, name: str) -> Path:
        """List of the files that rows of a benchmark may name, if they have media."""
        return self.benchmarks / ".media" / name

    def write_benchmark_files(self, name: str, files: list[DataFile]) -> None:
        """Write which files of a benchmark's folder hold its rows, if they have media."""
        _write_files(self._benchmark_files(name), files)

    def benchmark_files(self, name: str) -> list[DataFile]:
        """Return these files."""
        return _read_files(self._benchmark_files(name))

    def _benchmark_files(self, name: str) -> Path:
        return self.benchmarks / ".files" / name

    @property
    def run(self) -> Path:
        """Mirror of the run's folder."""
        return self.root / "run"

    @property
    def fetch_file(self) -> Path:
        """fetch.json."""
        return self.root / "fetch.json"

    @property
    def looked_up_file(self) -> Path:
        """The RunSpec with a URI in the place of every name."""
        return self.root / "looked-up.json"

    def write_looked_up(self, spec: RunSpec) -> None:
        """Write the RunSpec whose names are looked up."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.looked_up_file.write_text(spec.model_dump_json(by_alias=True, exclude_none=True, indent=1))

    def looked_up(self) -> RunSpec:
        """Return that RunSpec. Raises RunFailure (BadSpec) if fetch has not run."""
        self._check_fetched(self.looked_up_file)
        return RunSpec.model_validate_json(self.looked_up_file.read_bytes())

    def write_data_files(self, files: list[DataFile]) -> None:
        """Write data.json."""
        _write_files(self.data / "data.json", files)

    def data_files(self) -> list[DataFile]:
        """Return the files of data.json, in the order in which they are read."""
        return _read_files(self.data / "data.json")

    def write_fetched(self, fetched: Fetched) -> None:
        """Write fetch.json atomically."""
        self.root.mkdir(parents=True, exist_ok=True)
        partial = self.fetch_file.with_suffix(".incomplete")
        partial.write_text(json.dumps(fetched.to_dict(), indent=1))
        partial.replace(self.fetch_file)

    def fetched(self) -> Fetched:
        """Return fetch.json. Raises RunFailure (BadSpec) if fetch has not run."""
        self._check_fetched(self.fetch_file)
        return Fetched.model_validate_json(self.fetch_file.read_bytes())

    def _check_fetched(self, file: Path) -> None:
        if not file.is_file():
            raise RunFailure(
                FailureClass.BAD_SPEC, f"{file} is missing", "run the verb fetch first, with the same --work"
            )


def _write_files(path: Path, files: list[DataFile]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([file.to_dict() for file in files], indent=1))


def _read_files(path: Path) -> list[DataFile]:
    return [DataFile.model_validate(entry) for entry in json.loads(path.read_text())]
