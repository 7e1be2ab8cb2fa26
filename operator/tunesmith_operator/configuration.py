"""Reads the operator's configuration: the file that the chart mounts, named by $TUNESMITH_CONFIG."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from pydantic import ValidationError

from tunesmith_operator.plan.config import OperatorConfig

VARIABLE = "TUNESMITH_CONFIG"
DEFAULT_PATH = "/etc/tunesmith/config.yaml"


def load_config(path: str | None = None) -> OperatorConfig:
    """Read the configuration from `path`, by default the file that $TUNESMITH_CONFIG names. Exits if it is invalid."""
    file = Path(path or os.environ.get(VARIABLE) or DEFAULT_PATH)
    try:
        return OperatorConfig.model_validate(yaml.safe_load(file.read_text()) or {})
    except OSError as error:
        raise SystemExit(
            f"configuration {file}: {error.strerror}; set {VARIABLE} to the file that the chart writes"
        ) from error
    except yaml.YAMLError as error:
        raise SystemExit(f"configuration {file}: not YAML: {error}") from error
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise SystemExit(f"configuration {file}: " + "; ".join(lines)) from error
