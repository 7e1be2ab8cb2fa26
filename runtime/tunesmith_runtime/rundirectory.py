"""A run as a folder of the store: artifacts, checkpoints, and run.json, which is written last and once.

Two pods may be at work on the same run (a lost node that is not dead, two resources with equal specs). Nothing locks:
folders are named by the digest of their content, and run.json is written only where there is none, so the first to
finish wins and the other adopts its result.
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
from tunesmith_api.common import Artifact, ArtifactType
from tunesmith_api.evaljob import Result
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import LastCheckpoint, Metrics, Rows
from tunesmith_api.run import Outcome, RunReport, RunSpec, Verb
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
    """run.json: what was run, with what, and what came out."""

    kind: str = Field(description="FineTuneJob or EvalJob.")
    name: str = Field(description="Name of the resource that finished the run.")
    namespace: str = Field(description="Its namespace.")
    uid: str = Field(description="Its UID.")
    spec: dict[str, Any] = Field(description="Its spec, with defaults.")
    spec_hash: str = Field(description="Hash of what decides the result.")
    run_id: str = Field(description="Hash of the spec hash and the fingerprints.")
    fingerprints: dict[str, str] = Field(description="What each URI held.")
    model_uri: str | None = Field(None, description="The weights that were read.")
    model_digest: str | None = Field(None, description="sha256 of their manifest.")
    versions: dict[str, str] = Field(description="Versions of Python and of the libraries.")
    seeds: dict[str, int] = Field(default_factory=dict, description="Seeds of the random number generators.")
    template_hash: str | None = Field(None, description="sha256 of the chat template.")
    rows: Rows | None = Field(None, description="What became of the rows.")
    metrics: Metrics | None = Field(None, description="Figures of the run.")
    results: list[Result] | None = Field(None, description="Scores of an evaluation.")
    artifacts: list[Artifact] = Field(
        default_factory=list, description="What it made, with the digests of the manifests."
    )
    finished_at: str = Field(description="When it was finished (RFC 3339).")

    def report(self, verb: Verb, outcome: Outcome, run_uri: str | None) -> RunReport:
        """What a container says of the finished run."""
        return RunReport(
            verb=verb,
            outcome=outcome,
            run_uri=run_uri,
            model_uri=self.model_uri,
            model_digest=self.model_digest,
            rows=self.rows,
            metrics=self.metrics,
            results=self.results,
            artifacts=self.artifacts,
        )


class RunDirectory:
    """One run's folder at `uri`; `local` is where the pod keeps its own copy of things."""

    def __init__(self, storage: Storage, uri: str, local: Path) -> None:
        self.storage, self.uri, self.local = storage, uri, local

    def finished(self) -> RunRecord | None:
        """run.json, if the run is finished."""
        content = self.storage.read_bytes(join(self.uri, RECORD))
        if content is None:
            return None
        try:
            return RunRecord.model_validate_json(content)
        except ValidationError as error:
            message = f"{join(self.uri, RECORD)}: {error.errors()[0]['msg']}"
            raise RunFailure(
                FailureClass.STORAGE_CORRUPT, message, "remove the run's folder, and the run is done anew"
            ) from error

    def check_writable(self) -> None:
        """Fail now, not after hours of work, where the run's folder can't be written as a run needs it.

        The object has a name of its own, as other pods may check the same folder.
        """
        self.storage.probe(join(self.uri, f".probe-{secrets.token_hex(8)}"))

    def publish(self, type_: ArtifactType, directory: Path) -> Artifact:
        """Upload a local folder as an artifact of this type; its folder's name ends in the digest of its content."""
        return publish_directory(self.storage, directory, self.uri, type_)

    def fetch(self, artifact: Artifact, directory: Path) -> None:
        """Download and verify an artifact."""
        download_directory(self.storage, artifact.uri, directory)

    def upload_file(self, path: Path, name: str) -> None:
        """Upload a file such as a log to `name` below the run's folder, over what is there."""
        self.storage.upload(path, join(self.uri, name))

    def write_json(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Write `value` below the run's folder if nobody has; returns what is there now."""
        content = json.dumps(value, indent=1, ensure_ascii=False).encode()
        there: dict[str, Any] = json.loads(self.storage.write_once(join(self.uri, name), content))
        return there

    def read_json(self, name: str) -> dict[str, Any] | None:
        """What `write_json` left, or None."""
        content = self.storage.read_bytes(join(self.uri, name))
        return None if content is None else json.loads(content)

    def save_checkpoint(self, directory: Path, step: int, keep: int) -> LastCheckpoint:
        """Upload a local folder as the state after `step`, then remove all but the newest `keep`."""
        artifact = publish_directory(self.storage, directory, join(self.uri, CHECKPOINTS), f"step-{step:08d}")
        for _, old in self.checkpoints()[keep:]:
            delete_directory(self.storage, old)
        return LastCheckpoint(uri=artifact.uri, step=step, time=now())

    def checkpoints(self) -> list[tuple[int, str]]:
        """(step, URI) of the finished checkpoints, newest first."""
        names = {
            entry.path.split("/")[0]
            for entry in self.storage.list(join(self.uri, CHECKPOINTS))
            if entry.path.endswith("/" + MANIFEST) and entry.path.startswith("step-") and entry.path.count("/") == 1
        }
        return sorted(((int(name.split("-")[1]), join(self.uri, CHECKPOINTS, name)) for name in names), reverse=True)

    def latest_checkpoint(self, directory: Path) -> LastCheckpoint | None:
        """Download the newest checkpoint that is whole to a local folder; a damaged one is passed over, with a warning."""
        for step, uri in self.checkpoints():
            try:
                download_directory(self.storage, uri, directory)
            except RunFailure as failure:
                if failure.failure is not FailureClass.STORAGE_CORRUPT and read_manifest(self.storage, uri) is not None:
                    raise
                log.warning("checkpoint %s is passed over: %s", uri, failure.message)
                continue
            return LastCheckpoint(uri=uri, step=step)
        return None

    def finish(self, record: RunRecord) -> RunRecord:
        """Write run.json, unless another pod has; returns the one that is there, which is the run's result.

        Checkpoints are removed, and what this pod made for a run that another one finished.
        """
        stored = RunRecord.model_validate(self.write_json(RECORD, record.to_dict()))
        ours, theirs = ({artifact.uri for artifact in each.artifacts} for each in (record, stored))
        for uri in ours - theirs:
            delete_directory(self.storage, uri)
        delete_directory(self.storage, join(self.uri, CHECKPOINTS))
        return stored


def now() -> str:
    """The time as RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results, read from their metadata without importing them."""
    installed = {}
    for library in LIBRARIES:
        try:
            installed[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **installed}


def open_run(spec: RunSpec, work: Work, storage: Storage) -> RunDirectory:
    """The folder of the run that fetch found."""
    fetched = work.fetched()
    assert fetched.run_uri is not None, f"a {spec.kind} has no run"
    return RunDirectory(storage, fetched.run_uri, work.run)


def record_of(spec: RunSpec, fetched: Fetched, **found: Any) -> RunRecord:
    """run.json of this run; `found` are the fields that say what came out (metrics, artifacts, results, ...)."""
    return RunRecord(
        kind=spec.kind, name=spec.name, namespace=spec.namespace, uid=spec.uid, spec=spec.spec, spec_hash=spec.spec_hash,
        run_id=fetched.run_id or "", fingerprints=fetched.fingerprints,
        model_uri=fetched.model_uri, model_digest=fetched.model_digest,
        versions=versions(), finished_at=now(), **found,
    )  # fmt: skip
