"""Rows of the tables of what goes with what: values that this version has, and values that cannot go together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith_api.refusal import Refusal
from tunesmith_api.spec_fields import values_at

NOT_AVAILABLE = "not available in this version"
SEVERAL = "> 1"
"""Stands for all values of a number above 1."""
Values = tuple[str | bool, ...]
"""Values of a field that a row is about; empty for any value, of a field that may be absent."""
ANY: Values = ()


@dataclass(frozen=True)
class Choice:
    """Values of a field, and the values of other fields that they cannot go with."""

    field: str
    """Path below spec, as in `Limit.field`."""
    values: Values
    is_available: bool = True
    excludes: Mapping[str, Values] = dataclasses.field(default_factory=dict)
    """Path below spec -> the values there that `values` cannot go with."""
    reason: str = ""
    """Why they cannot go with the excluded values."""
    hint: str = ""
    """What to write instead of the combination."""

    @property
    def combination(self) -> Mapping[str, Values]:
        """Path below spec -> values, of which a spec must not have one at each path."""
        return {self.field: self.values, **self.excludes}

    def matches(self, spec: Mapping[str, Any]) -> bool:
        """Whether `spec` has one of these values together with excluded ones."""
        return bool(self.excludes) and all(_among(spec, path, values) for path, values in self.combination.items())

    def refusal(self, spec: Mapping[str, Any] | None = None) -> Refusal:
        """The refusal of the values that `spec` has, or of all."""

        def listed(path: str, values: Values) -> str:
            return " or ".join(shown(value) for value in _among(spec or {}, path, values) or values)

        return Refusal(self.message(listed), self.hint)

    def message(self, text_of: Callable[[str, Values], str]) -> str:
        """The message of the refusal, where `text_of` gives the text of the values at a path."""
        own, *others = (
            " ".join(
                (path if path == self.field else path.split(".")[-1], *([text_of(path, values)] if values else ()))
            )
            for path, values in self.combination.items()
        )
        return f"{own} with {' and '.join(others)}: {self.reason}"


def _among(spec: Mapping[str, Any], path: str, values: Values) -> list[str | bool]:
    """Return those of `values` that a spec has at a path."""
    found = (SEVERAL if SEVERAL in values and _is_several(value) else value for value in values_at(spec, path))
    return [value for value in found if value in values or not values]


def _is_several(value: Any) -> bool:
    return isinstance(value, int) and value > 1


def shown(value: str | bool) -> str:
    """Return a value as it is written in YAML."""
    return str(value).lower() if isinstance(value, bool) else value


@dataclass(frozen=True)
class Limit:
    """The values of a field that this version has."""

    kind: str
    field: str
    """Dotted camelCase path below spec; `[]` after a list stands for each of its items."""
    hint: str
    """What to write instead."""
    allowed: tuple[str, ...] = ()
    """The values that it may have. Empty, and no refused_schemes: it may not be set."""
    refused_schemes: tuple[str, ...] = ()
    """For a URI: the schemes that it may not have."""

    def allows(self, value: Any) -> bool:
        """Whether the field may have `value`."""
        if self.refused_schemes:
            return str(value).partition("://")[0] not in self.refused_schemes
        return value in self.allowed

    def refusal(self, value: Any = None) -> Refusal:
        """The refusal of `value`, or of the field as such."""
        text = f" {shown(value)}" if value is not None and (self.allowed or self.refused_schemes) else ""
        return Refusal(f"{self.field}{text}: {NOT_AVAILABLE}", self.hint)
