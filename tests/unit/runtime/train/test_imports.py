"""Optional packages are hidden during a run, except those that it needs."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tunesmith_runtime.train.imports import hidden


def test_a_hidden_package_appears_not_to_be_installed() -> None:
    with hidden(optional=["wave"]):
        assert importlib.util.find_spec("wave") is None
        with pytest.raises(ModuleNotFoundError):
            import wave  # noqa: F401
    assert importlib.util.find_spec("wave") is not None


def test_an_imported_package_stays_imported() -> None:
    with hidden(optional=["sys"]):
        assert importlib.import_module("sys") is sys
    assert sys.modules["sys"] is sys


def test_packages_are_visible_again_after_an_error() -> None:
    with pytest.raises(KeyError), hidden(optional=["wave"]):
        raise KeyError
    assert "wave" not in sys.modules
