"""Credentials of the API server: the pod's ServiceAccount, or a kubeconfig."""

from __future__ import annotations

import os

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from tunesmith_api.release import VERSION

USER_AGENT = f"tunesmith/{VERSION}"


async def load_configuration() -> Configuration:
    """Read the credentials from $KUBECONFIG, the pod's ServiceAccount or ~/.kube/config."""
    configuration = Configuration()
    # Otherwise aiohttp reads proxy settings and .netrc in a thread at each request.
    configuration.client_session_kwargs = {"trust_env": False}
    if os.environ.get("KUBECONFIG") or not os.environ.get("KUBERNETES_SERVICE_HOST"):
        try:
            await load_kube_config(client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            raise SystemExit(f"no cluster: not in a pod, and no kubeconfig ({error}); set KUBECONFIG") from error
    else:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


async def authorization(configuration: Configuration) -> dict[str, str]:
    """The Authorization header, if the credentials are a token."""
    value = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return {"Authorization": value} if value else {}


async def watch_session(configuration: Configuration) -> aiohttp.ClientSession:
    """A session for watch streams, with the same certificates and token as the client."""
    tls = RESTClientObject(configuration).ssl_context
    headers = {"User-Agent": f"{USER_AGENT} (watch)", **await authorization(configuration)}
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=tls), headers=headers)
