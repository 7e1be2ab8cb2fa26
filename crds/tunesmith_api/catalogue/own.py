"""Entries of a user's own, from the files models.yaml and datasets.yaml of a ConfigMap or a store.

    my-llama: s3://models/my-llama
    my-qwen: {huggingface: my-org/my-qwen, modelscope: my-org/my-qwen}

    my_rows: {train: s3://data/train.jsonl, val: s3://data/val.jsonl, format: {prompt: "{input}", completion: "{output}"}}
    hub_rows: {huggingface: my-org/rows, subset: main, split: train, columns: {question: prompt, answer: completion}}

Only the entry that is looked up is checked: a mistake in one entry leaves the others usable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from tunesmith_api.catalogue.entries import HUBS, DatasetEntry, DatasetTask, ModelEntry, ModelTask
from tunesmith_api.datasets import RowFormat, RowTemplate
from tunesmith_api.grammar import Grammar
from tunesmith_api.uris import DATA, MODEL

ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
MODEL_KEYS = ("uri", *HUBS, "task", "family", "tags", "needs")
DATASET_KEYS = ("train", "val", *HUBS, "subset", "split", "format", "columns", "task", "tags")


class BadEntry(ValueError):
    """A file or an entry that cannot be used: the fault, and the correct form."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def read_entries(text: str) -> Mapping[str, Any]:
    """Return the entries of a file by name, unchecked. Raises BadEntry if it is no map of names."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise BadEntry(f"{where}{getattr(error, 'problem', None) or 'is not YAML'}", "correct the YAML") from error
    except RecursionError as error:
        raise BadEntry("is nested too deeply", "write an entry as NAME: {KEY: VALUE}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadEntry(f"holds {_kind(content)}; expected a map of names", "write each entry as NAME: {KEY: VALUE}")
    return {str(name): entry for name, entry in content.items()}


def model_entry(name: str, value: Any) -> ModelEntry:
    """Return a model of a file. Raises BadEntry."""
    fields = _fields(value, "uri", MODEL_KEYS)
    ids, uri = _ids(fields), _uri(fields, "uri", MODEL)
    _check_one_place(uri, ids, "uri")
    return ModelEntry(
        name=name,
        huggingface=ids["huggingface"],
        modelscope=ids["modelscope"],
        uri=uri,
        tags=_texts(fields, "tags"),
        family=_text(fields, "family") or "",
        task=ModelTask(_choice(fields, "task", tuple(ModelTask), ModelTask.CHAT)),
        needs=_texts(fields, "needs"),
    )


def dataset_entry(name: str, value: Any) -> DatasetEntry:
    """Return a data set of a file. Raises BadEntry."""
    fields = _fields(value, "train", DATASET_KEYS)
    ids, uri = _ids(fields), _uri(fields, "train", DATA)
    _check_one_place(uri, ids, "train")
    subset = _text(fields, "subset")
    return DatasetEntry(
        name=name,
        huggingface=ids["huggingface"],
        modelscope=ids["modelscope"],
        uri=uri,
        tags=_texts(fields, "tags"),
        task=DatasetTask(_choice(fields, "task", tuple(DatasetTask), DatasetTask.SFT)),
        subsets=(subset,) if subset else (),
        split=_text(fields, "split"),
        columns=_map(fields, "columns") or {},
        format=_format(fields),
        validation_uri=_uri(fields, "val", DATA),
    )


def _fields(value: Any, shorthand: str, known: tuple[str, ...]) -> dict[str, Any]:
    """The keys of an entry; a plain text is its location."""
    if isinstance(value, str):
        return {shorthand: value}
    if not isinstance(value, dict):
        raise BadEntry(f"is {_kind(value)}; expected a URI or a map", f"write {shorthand}: s3://BUCKET/KEY below it")
    for key in value:
        if key not in known:
            raise BadEntry(f"has the unknown key {str(key)[:80]!r}", f"use {', '.join(known)}")
    return {key: item for key, item in value.items() if item is not None}


def _check_one_place(uri: str | None, ids: Mapping[str, str | None], key: str) -> None:
    hubs = " or ".join(HUBS)
    if uri and any(ids.values()):
        raise BadEntry(f"has {key} and the id of a hub", f"remove {key}, or {hubs}")
    if not uri and not any(ids.values()):
        raise BadEntry("names no place", f"set {key}, or {hubs}")


def _ids(fields: Mapping[str, Any]) -> dict[str, str | None]:
    ids = {hub: _text(fields, hub) for hub in HUBS}
    for hub, id_ in ids.items():
        if id_ is not None and not ID.fullmatch(id_):
            raise BadEntry(f"{hub} {id_[:80]!r} is not the id of a repository", f"write {hub}: ORG/NAME")
    return ids


def _uri(fields: Mapping[str, Any], key: str, grammar: Grammar) -> str | None:
    uri = _text(fields, key)
    if uri is not None and not grammar.admits(uri):
        raise BadEntry(f"{key}: {grammar.sentence(uri)}", f"correct {key}")
    return uri


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise BadEntry(f"{key} is {_kind(value)}; expected a text", f"write the value of {key} in quotes")
    return value or None


def _texts(fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = fields.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadEntry(f"{key} is {_kind(values)}; expected a list of texts", f"write {key}: [TEXT]")
    return tuple(values)


def _map(fields: Mapping[str, Any], key: str) -> dict[str, str] | None:
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise BadEntry(f"{key} is not a map of texts", f"write {key}: {{NAME: TEXT}}")
    return value


def _choice(fields: Mapping[str, Any], key: str, known: tuple[str, ...], default: str) -> str:
    value = _text(fields, key) or default
    if value not in known:
        raise BadEntry(f"{key} {value[:80]!r} is unknown", f"use {', '.join(known)}")
    return value


def _format(fields: Mapping[str, Any]) -> str | Mapping[str, str] | None:
    template = _map(fields, "format") if isinstance(fields.get("format"), dict) else None
    if template is not None:
        _check_template(template)
        return template
    return _choice(fields, "format", tuple(RowFormat), RowFormat.AUTO) if "format" in fields else None


def _check_template(template: Mapping[str, str]) -> None:
    """Raise BadEntry unless it is a template of columns as in spec.datasets[].template."""
    names = tuple(RowTemplate.model_fields)
    for name in template:
        if name not in names:
            raise BadEntry(f"format has the unknown key {name[:80]!r}", f"use {', '.join(names)}")
    try:
        RowTemplate.model_validate(template)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, ("format", *first["loc"])))
        raise BadEntry(
            f"{where}: {first['msg']}", "write format: {prompt: '{COLUMN}', completion: '{COLUMN}'}"
        ) from error


def _kind(value: Any) -> str:
    """The type of a YAML value in words."""
    names = {dict: "a map", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "empty" if value is None else "another value")
