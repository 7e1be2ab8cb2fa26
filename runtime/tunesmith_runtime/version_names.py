"""What the model names of a service's version stand for: recorded in the store by its first pod, and used by all later ones.

The pods of a version start at different times, and an entry of a catalogue may change in between. Without the record one
version would serve two models. A pod writes the record once it has fetched the models, so an entry at fault can be corrected.
"""

from __future__ import annotations

import logging

from pydantic import Field

from tunesmith_api.base import ApiModel
from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_api.run import ModelRole, ResolvedModel, RunSpec
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import Storage, join

log = logging.getLogger(__name__)

FOLDER = "names"
"""Folder of the records below the service's folder in the store."""


class ModelUris(ApiModel):
    """The content of a record."""

    models: dict[ModelRole, str] = Field(description="Role -> URI of its model.")
    adapters: dict[str, str] = Field(description="Name of an adapter -> its URI.")

    @classmethod
    def of(cls, spec: RunSpec) -> ModelUris:
        """Return the URIs of a spec whose names are looked up."""
        return cls(
            models={role: model.uri for role, model in spec.models.items()},
            adapters={adapter.name: adapter.model.uri for adapter in spec.adapters},
        )

    def put_into(self, spec: RunSpec) -> RunSpec:
        """Return `spec` with these URIs in the place of its own."""
        models = {role: _with_uri(model, self.models[role]) for role, model in spec.models.items()}
        adapters = [
            each.model_copy(update={"model": _with_uri(each.model, self.adapters[each.name])}) for each in spec.adapters
        ]
        return spec.model_copy(update={"models": models, "adapters": adapters, "names_record": None})


def _with_uri(model: ResolvedModel, uri: str) -> ResolvedModel:
    return model.model_copy(update={"uri": uri})


def record_uri(spec: RunSpec) -> str:
    """Return the URI of the record of a service whose names are not looked up yet.

    It is equal for all pods of a version, and for each version of the service that asks for the same.
    """
    models = {role: model.to_dict() for role, model in spec.models.items()}
    adapters = [adapter.to_dict() for adapter in spec.adapters]
    request = digest({"uid": spec.uid, "spec": spec.spec, "models": models, "adapters": adapters})
    return join(spec.output_uri, FOLDER, f"{request[:16]}.json")


def with_recorded_uris(spec: RunSpec, storage: Storage) -> RunSpec | None:
    """Return `spec` with the URIs that an earlier pod of the version has recorded; None if there is no record."""
    uri = record_uri(spec)
    content = storage.read_bytes(uri)
    if content is None:
        return None
    log.info("the names of this version stand for what %s has", uri)
    return ModelUris.model_validate_json(content).put_into(spec)


def record_uris(spec: RunSpec, storage: Storage) -> RunSpec:
    """Record the URIs of a spec in its `names_record`. Return `spec`, or the spec with other URIs that another pod has recorded first.

    Raises RunFailure (Storage403) if the record cannot be written.
    """
    assert spec.names_record is not None, "nothing to record"
    found = ModelUris.of(spec)
    try:
        content = storage.write_once(spec.names_record, found.model_dump_json(by_alias=True, indent=1).encode())
    except RunFailure as failure:
        if failure.failure is not FailureClass.STORAGE_403:
            raise
        raise RunFailure(
            failure.failure,
            f"{failure.message}: the first pod of a version records there which model its name stands for",
            f"let the credentials of the store write below {spec.output_uri}/, or set uri: {spec.base.uri} in place of name "
            "in spec.model",
        ) from failure
    recorded = ModelUris.model_validate_json(content)
    return spec if recorded == found else recorded.put_into(spec)
