"""Object storage of a run: the settings of the resource over the chart's default store."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith_api.common import ConfigMapKey, Storage
from tunesmith_api.run import Store
from tunesmith_operator.plan.config import StoreDefaults

CA_DIRECTORY = "/etc/tunesmith-ca"


@dataclass(frozen=True)
class Access:
    """A store and what a pod needs to use it. Credentials are referenced, never read."""

    store: Store
    ca_bundle: ConfigMapKey | None
    credentials_secret: str | None


def resolve(storage: Storage | None, default: StoreDefaults) -> Access:
    """Return `storage` over `default`, field by field."""
    own = storage or Storage()
    ca_bundle, endpoint = own.ca_bundle or default.ca_bundle, own.endpoint or default.endpoint
    styles = (own.path_style, default.path_style, endpoint is not None)
    return Access(
        store=Store(
            uri=default.uri.rstrip("/"),
            endpoint=endpoint,
            region=own.region or default.region,
            path_style=next(style for style in styles if style is not None),
            ca_bundle=f"{CA_DIRECTORY}/{ca_bundle.key}" if ca_bundle else None,
        ),
        ca_bundle=ca_bundle,
        credentials_secret=own.credentials_secret or default.credentials_secret,
    )
