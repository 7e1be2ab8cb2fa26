"""A lean start: packages of other verbs look absent while it trains, and only then."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tunesmith_runtime.train.imports import hidden


def test_a_hidden_package_looks_as_if_it_were_not_installed() -> None:
    with hidden(optional=["wave"]):
        assert importlib.util.find_spec("wave") is None
        with pytest.raises(ModuleNotFoundError):
            import wave  # noqa: F401
    assert importlib.util.find_spec("wave") is not None


def test_what_is_imported_already_stays() -> None:
    with hidden(optional=["sys"]):
        assert importlib.import_module("sys") is sys
    assert sys.modules["sys"] is sys


def test_an_error_brings_the_packages_back() -> None:
    with pytest.raises(KeyError), hidden(optional=["wave"]):
        raise KeyError
    assert "wave" not in sys.modules
