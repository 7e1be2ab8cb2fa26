"""Volumes of a namespace: `pvc://CLAIM/PATH` is PATH in the volume of a PersistentVolumeClaim, mounted at VOLUMES/CLAIM."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith_api.run import RunSpec
from tunesmith_api.spec_fields import DATA_URIS, values_at

VOLUMES = "/volumes"
"""Folder in a pod with a folder for each claim that its run reads."""
SCHEME = "pvc://"


def split_claim(uri: str) -> tuple[str, str]:
    """Return claim and path of a pvc:// URI."""
    claim, _, path = uri.removeprefix(SCHEME).partition("/")
    return claim, path.strip("/")


def claims_of(run: RunSpec) -> tuple[str, ...]:
    """Return the claims that the models and the data of a run are on, sorted."""
    return tuple(sorted({split_claim(uri)[0] for uri in _uris(run) if uri.startswith(SCHEME)}))


def _uris(run: RunSpec) -> Iterator[str]:
    for model in (*run.models.values(), *(adapter.model for adapter in run.adapters)):
        yield from (each.uri for each in model.with_bases())
    for kind, path in DATA_URIS:
        if kind == run.kind:
            yield from map(str, values_at(run.spec, path))
