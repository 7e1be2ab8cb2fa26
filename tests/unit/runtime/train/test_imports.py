"""Optional packages are hidden during a run, except those that it needs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import make_run
from tunesmith_runtime import train
from tunesmith_runtime.train.imports import hidden
from tunesmith_runtime.train.methods import METHODS
from tunesmith_runtime.train.tuners import TUNERS


def test_a_hidden_package_appears_not_to_be_installed() -> None:
    with hidden(optional=["tabnanny"]):
        assert importlib.util.find_spec("tabnanny") is None
        with pytest.raises(ModuleNotFoundError):
            import tabnanny  # noqa: F401
    assert importlib.util.find_spec("tabnanny") is not None


def test_a_needed_package_is_not_hidden() -> None:
    with hidden(["tabnanny"], optional=["tabnanny", "turtle"]):
        assert importlib.util.find_spec("tabnanny") is not None
        assert importlib.util.find_spec("turtle") is None


def test_a_run_needs_the_packages_of_its_method_and_of_its_tuner(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hidden(Exception):
        pass

    def record(needed: Collection[str]) -> NoReturn:
        raise Hidden(sorted(needed))

    monkeypatch.setattr(train, "hidden", record)
    monkeypatch.setattr(
        train, "METHODS", {name: replace(each, needs=frozenset({f"for-{name}"})) for name, each in METHODS.items()}
    )
    monkeypatch.setattr(
        train, "TUNERS", {name: replace(each, needs=frozenset({f"for-{name}"})) for name, each in TUNERS.items()}
    )
    run = make_run(tmp_path, tiny, tinymodel.rows(2), method="pretrain", tuner="full")
    with pytest.raises(Hidden, match=r"\['for-full', 'for-pretrain'\]"):
        run.do(train.run)


def test_an_imported_package_stays_imported() -> None:
    with hidden(optional=["sys"]):
        assert importlib.import_module("sys") is sys
    assert sys.modules["sys"] is sys


def test_packages_are_visible_again_after_an_error() -> None:
    with pytest.raises(KeyError), hidden(optional=["tabnanny"]):
        raise KeyError
    assert "tabnanny" not in sys.modules
