"""Entries of users: what is read, and what is refused with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.catalogue.own import DATASET_KEYS, MODEL_KEYS, BadEntry, dataset_entry, model_entry, read_entries


def test_an_entry_of_a_model_is_a_uri_or_the_ids_on_hubs() -> None:
    assert model_entry("a", "s3://models/a").uris() == ["s3://models/a"]
    both = model_entry("b", {"huggingface": "org/b", "modelscope": "team/b", "needs": ["transformers>=5"]})
    assert (both.uris(["modelscope", "huggingface"]), both.needs) == (
        ["ms://team/b", "hf://org/b"],
        ("transformers>=5",),
    )


def test_an_entry_of_a_data_set_has_rows_to_train_and_to_validate_on_and_their_format() -> None:
    text = 'mine: {train: s3://data/train.jsonl, val: s3://data/val.jsonl, format: {prompt: "{input}", completion: "{output}"}, task: sft}'
    entry = dataset_entry("mine", read_entries(text)["mine"])
    assert (entry.uris(), entry.validation_uri) == (["s3://data/train.jsonl"], "s3://data/val.jsonl")
    assert entry.format == {"prompt": "{input}", "completion": "{output}"}
    hub = dataset_entry(
        "hub", {"huggingface": "org/rows", "subset": "main", "split": "test", "columns": {"q": "prompt"}}
    )
    assert (hub.subset, hub.split, hub.columns) == ("main", "test", {"q": "prompt"})


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ({"train": "s3://Data/x"}, 'train: "s3://Data/x" has a bucket that S3 does not allow', "correct train"),
        (
            {"train": "s3://data/x", "huggingface": "a/b"},
            "has train and the id of a hub",
            "remove train, or huggingface",
        ),
        ({}, "names no place", "set train, or huggingface or modelscope"),
        ({"huggingface": "gsm8k"}, "huggingface 'gsm8k' is not the id of a repository", "write huggingface: ORG/NAME"),
        ({"train": "s3://data/x", "lines": 3}, "has the unknown key 'lines'", "use train, val, "),
        ({"train": 3}, "train is a number; expected a text", "write the value of train in quotes"),
        ({"train": "s3://data/x", "format": "csv"}, "format 'csv' is unknown", "use auto, messages, "),
        (
            {"train": "s3://data/x", "format": {"prompt": 1}},
            "format is not a map of texts",
            "write format: {NAME: TEXT}",
        ),
        (
            {"train": "s3://data/x", "format": {"prompt": "{a}", "answer": "{b}"}},
            "format has the unknown key 'answer'",
            "use system, prompt, completion",
        ),
        (
            {"train": "s3://data/x", "format": {"prompt": "{a}"}},
            "format.completion: Field required",
            "write format: {prompt: ",
        ),
        ({"train": "s3://data/x", "columns": ["a"]}, "columns is not a map of texts", "write columns: {NAME: TEXT}"),
        ({"train": "s3://data/x", "task": "magic"}, "task 'magic' is unknown", "use sft, "),
        ({"train": "s3://data/x", "tags": "a"}, "tags is a text; expected a list of texts", "write tags: [TEXT]"),
        (["s3://data/x"], "is a list; expected a URI or a map", "write train: s3://BUCKET/KEY below it"),
    ],
)
def test_an_entry_at_fault_is_refused_with_what_to_write(entry: Any, message: str, hint: str) -> None:
    with pytest.raises(BadEntry) as refused:
        dataset_entry("mine", entry)
    assert refused.value.message.startswith(message)
    assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "line 1: "),
        ("- a", "holds a list; expected a map of names"),
        ("[" * 1000, "is nested too deeply"),
        ("a: !!python/object:os.system x", "line 1: could not determine a constructor"),
    ],
)
def test_a_file_that_holds_no_names_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadEntry) as refused:
        read_entries(text)
    assert refused.value.message.startswith(message)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["s3://data/x", "org/name"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def fault(parse: Callable[[], Any]) -> BadEntry | None:
    """Why something is refused; None if it is read."""
    try:
        parse()
    except BadEntry as error:
        return error
    return None


@given(st.dictionaries(st.sampled_from([*MODEL_KEYS, *DATASET_KEYS, "other"]), VALUES) | VALUES)
def test_any_value_is_an_entry_or_refused(value: Any) -> None:
    for parse in (model_entry, dataset_entry):
        refused = fault(lambda parse=parse: parse("mine", value))
        assert (refused.message and refused.hint) if refused else parse("mine", value).uris()


@given(st.text() | VALUES.map(yaml.safe_dump))
def test_any_text_is_a_map_of_names_or_refused(text: str) -> None:
    refused = fault(lambda: read_entries(text))
    assert refused.hint if refused else all(isinstance(name, str) for name in read_entries(text))
