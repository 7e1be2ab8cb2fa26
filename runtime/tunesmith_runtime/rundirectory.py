"""A run as a folder in the store: artifacts, checkpoints, and run.json, which is written last and only once.

Two pods may work on the same run (a lost node that is still running, or two resources with equal specs). There are no locks:
folders are named by the digest of their content, and run.json is written only if there is none, so the first pod to finish
wins and the other pod adopts its result.
"""

from __future__ import annotations

import json
import logging
import platform
import secrets
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tunesmith_api.base import ApiModel
from tunesmith_api.evaljob import Result
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob_status import LastCheckpoint, Metrics, Rows
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
from tunesmith_api.status import Artifact, ArtifactType
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import Storage, join
from tunesmith_runtime.storage.directory import delete_directory, download_directory, publish_directory, read_manifest
from tunesmith_runtime.storage.manifest import MANIFEST
from tunesmith_runtime.workdir import Fetched, Work

log = logging.getLogger(__name__)

RECORD = "run.json"
CHECKPOINTS = "checkpoints"
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "evalscope", "safetensors", "tokenizers")


class RunRecord(ApiModel):
    """run.json: the inputs and the results of a finished run."""

    kind: str = Field(description="FineTuneJob or EvalJob.")
    name: str = Field(description="Name of the resource that finished the run.")
    namespace: str = Field(description="Its namespace.")
    uid: str = Field(description="Its UID.")
    spec: dict[str, Any] = Field(description="Its spec, with defaults.")
    spec_hash: str = Field(description="Hash of the fields that determine the result.")
    run_id: str = Field(description="Hash of the spec hash and the fingerprints.")
    fingerprints: dict[str, str] = Field(description="Fingerprint of each URI.")
    model_uri: str | None = Field(None, description="URI of the weights.")
    model_digest: str | None = Field(None, description="sha256 of their manifest.")
    versions: dict[str, str] = Field(description="Versions of Python and of the libraries.")
    seeds: dict[str, int] = Field(default_factory=dict, description="Seeds of the random number generators.")
    kernels: dict[str, str] | None = Field(
        None, description="The code that computed the parts of a step: attention, loss, optimizer, compile."
    )
    trained_parameters: dict[str, int] | None = Field(
        None, description="Numbers that were trained, by part of the model: vision, aligner, language."
    )
    template_hash: str | None = Field(None, description="sha256 of the chat template.")
    rows: Rows | None = Field(None, description="Number of rows by outcome.")
    metrics: Metrics | None = Field(None, description="Figures of the run.")
    results: list[Result] | None = Field(None, description="Scores of an evaluation.")
    artifacts: list[Artifact] = Field(
        default_factory=list, description="Artifacts, with the digests of their manifests."
    )
    report_uri: str | None = Field(None, description="Page that describes the run.")
    finished_at: str = Field(description="Time of completion (RFC 3339).")

    def report(self, verb: Verb, outcome: Outcome, run_uri: str | None) -> RunReport:
        """Return the report of a container about the finished run."""
        return RunReport(
            verb=verb,
            outcome=outcome,
            run_uri=run_uri,
            report_uri=self.report_uri,
            model_uri=self.model_uri,
            model_digest=self.model_digest,
            rows=self.rows,
            metrics=self.metrics,
            results=self.results,
            artifacts=self.artifacts,
        )


class RunDirectory:
    """The folder of a run at `uri`; `local` is its mirror in the pod."""

    def __init__(self, storage: Storage, uri: str, local: Path) -> None:
        self.storage, self.uri, self.local = storage, uri, local

    def finished(self) -> RunRecord | None:
        """Return run.json, or None if the run is not finished. Raises RunFailure (StorageCorrupt)."""
        content = self.read_bytes(RECORD)
        if content is None:
            return None
        try:
            return RunRecord.model_validate_json(content)
        except ValidationError as error:
            message = f"{join(self.uri, RECORD)}: {error.errors()[0]['msg']}"
            raise RunFailure(
                FailureClass.STORAGE_CORRUPT, message, "delete the run's folder to repeat the run"
            ) from error

    def check_writable(self) -> None:
        """Raise RunFailure if the store does not support what a run needs, before hours of work depend on it.

        The probe has a random name, because other pods may check the same folder.
        """
        self.storage.probe(join(self.uri, f".probe-{secrets.token_hex(8)}"))

    def publish(self, type_: ArtifactType, directory: Path) -> Artifact:
        """Upload a local folder as an artifact of this type; the folder's name ends in the digest of the content."""
        return publish_directory(self.storage, directory, self.uri, type_)

    def fetch(self, artifact: Artifact, directory: Path) -> None:
        """Download and verify an artifact."""
        download_directory(self.storage, artifact.uri, directory)

    def upload_file(self, path: Path, name: str) -> None:
        """Upload a file such as a log to `name` below the run's folder; overwrites."""
        self.storage.upload(path, join(self.uri, name))

    def read_bytes(self, name: str) -> bytes | None:
        """Return the content of a file below the run's folder, or None."""
        return self.storage.read_bytes(join(self.uri, name))

    def write_json(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Write `value` below the run's folder unless there is one; return the stored value."""
        content = json.dumps(value, indent=1, ensure_ascii=False).encode()
        stored: dict[str, Any] = json.loads(self.storage.write_once(join(self.uri, name), content))
        return stored

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the value that `write_json` stored, or None."""
        content = self.read_bytes(name)
        return None if content is None else json.loads(content)

    def save_checkpoint(self, directory: Path, step: int, keep: int, kept_step: int | None = None) -> LastCheckpoint:
        """Upload a local folder as the state after `step`, then delete all but the newest `keep` checkpoints and that of `kept_step`."""
        artifact = publish_directory(self.storage, directory, join(self.uri, CHECKPOINTS), f"step-{step:08d}")
        for old_step, old in self.checkpoints()[keep:]:
            if old_step != kept_step:
                delete_directory(self.storage, old)
        return LastCheckpoint(uri=artifact.uri, step=step, time=now())

    def checkpoints(self) -> list[tuple[int, str]]:
        """Return (step, URI) of the complete checkpoints, newest first."""
        names = {
            entry.path.split("/")[0]
            for entry in self.storage.list(join(self.uri, CHECKPOINTS))
            if entry.path.endswith("/" + MANIFEST) and entry.path.startswith("step-") and entry.path.count("/") == 1
        }
        return sorted(((int(name.split("-")[1]), join(self.uri, CHECKPOINTS, name)) for name in names), reverse=True)

    def latest_checkpoint(self, directory: Path) -> LastCheckpoint | None:
        """Download the newest checkpoint to a local folder; skip damaged checkpoints with a warning."""
        for step, uri in self.checkpoints():
            try:
                download_directory(self.storage, uri, directory)
            except RunFailure as failure:
                if failure.failure is not FailureClass.STORAGE_CORRUPT and read_manifest(self.storage, uri) is not None:
                    raise
                log.warning("skipping checkpoint %s: %s", uri, failure.message)
                continue
            return LastCheckpoint(uri=uri, step=step)
        return None

    def fetch_checkpoint(self, step: int, directory: Path) -> None:
        """Download the checkpoint of `step` to a local folder. Raises RunFailure (StorageCorrupt)."""
        uri = dict(self.checkpoints()).get(step)
        if uri is None:
            raise RunFailure(
                FailureClass.STORAGE_CORRUPT,
                f"{join(self.uri, CHECKPOINTS)} has no checkpoint of step {step}, whose weights are the result",
                "delete the run's folder to repeat the run",
            )
        download_directory(self.storage, uri, directory)

    def finish(self, record: RunRecord) -> RunRecord:
        """Write run.json unless another pod has; return the stored record, which is the run's result.

        Delete the checkpoints, and this pod's artifacts if another pod has finished the run with different ones.
        """
        stored = RunRecord.model_validate(self.write_json(RECORD, record.to_dict()))
        ours, theirs = ({artifact.uri for artifact in each.artifacts} for each in (record, stored))
        for uri in ours - theirs:
            delete_directory(self.storage, uri)
        delete_directory(self.storage, join(self.uri, CHECKPOINTS))
        return stored


def now() -> str:
    """Return the time as RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def versions() -> dict[str, str]:
    """Return the versions of Python and of libraries that affect results, from their metadata, without importing them."""
    installed = {}
    for library in LIBRARIES:
        try:
            installed[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **installed}


def open_run(spec: RunSpec, work: Work, storage: Storage) -> RunDirectory:
    """Return the folder of the run that fetch found."""
    fetched = work.fetched()
    assert fetched.run_uri is not None, f"a {spec.kind} has no run"
    return RunDirectory(storage, fetched.run_uri, work.run)


def record_of(spec: RunSpec, fetched: Fetched, **results: Any) -> RunRecord:
    """Return run.json of this run; `results` are the fields of the outcome (metrics, artifacts, results, ...)."""
    return RunRecord(
        kind=spec.kind, name=spec.name, namespace=spec.namespace, uid=spec.uid, spec=spec.spec, spec_hash=spec.spec_hash,
        run_id=fetched.run_id or "", fingerprints=fetched.fingerprints,
        model_uri=fetched.model_uri, model_digest=fetched.model_digest,
        versions=versions(), finished_at=now(), **results,
    )  # fmt: skip
