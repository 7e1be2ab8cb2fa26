"""The endpoint of the server under test."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import ENGINE_PORT
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.config import PORT_VARIABLE
from tunesmith_runtime.serve.keys import api_key

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Endpoint:
    """A served model: base URL of its OpenAI API, key, model name, and its maximum length in tokens if the server reports it."""

    url: str
    key: str
    model: str
    max_length: int | None


def find_endpoint(name: str) -> Endpoint:
    """Return the endpoint of the model `name` in this pod. Raises RunFailure (EngineFailed) if it is not served."""
    url = f"http://127.0.0.1:{os.environ.get(PORT_VARIABLE) or ENGINE_PORT}/v1"
    key = api_key() or "none"
    request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            models = {model["id"]: model for model in json.load(answer)["data"]}
    except urllib.error.HTTPError as error:
        raise _failed(f"the engine at {url} answers {error.code} {error.reason}") from error
    except (OSError, ValueError, KeyError) as error:
        raise _failed(f"no engine answers at {url}: {error}") from error
    if name not in models:
        raise _failed(f"the engine at {url} does not serve {name}; it serves {', '.join(models) or 'nothing'}")
    return Endpoint(url, key, name, models[name].get("max_model_len"))


def _failed(message: str) -> RunFailure:
    hint = "read the log of the container serve, which must be ready before the evaluation starts"
    return RunFailure(FailureClass.ENGINE_FAILED, message, hint)
