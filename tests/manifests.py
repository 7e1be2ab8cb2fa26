"""Manifests as YAML, read by libyaml: with PyYAML's own parser the chart with its CRDs takes a second, ten times as long."""

from __future__ import annotations

from typing import Any

import yaml


def load_all(text: str) -> list[dict[str, Any]]:
    """The documents of a stream that are not empty."""
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def dump_all(manifests: list[dict[str, Any]]) -> str:
    """Manifests as a stream."""
    text: str = yaml.dump_all(manifests, Dumper=yaml.CSafeDumper)
    return text
