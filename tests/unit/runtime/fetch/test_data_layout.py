"""Subsets and splits by README.md and by the names of files; those there are, for a name that is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.fetch.data import FOR_EVALUATION, FOR_TRAINING, FOR_VALIDATION
from tunesmith_runtime.fetch.data_layout import LayoutError, caption_files, choose, subsets_of

GSM8K = """---
license: mit
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: socratic
  data_files:
  - split: train
    path: socratic/train-*
---
# Grade school maths
"""
GSM8K_PATHS = [
    "README.md", "main/test-00000-of-00001.parquet", "main/train-00000-of-00001.parquet",
    "socratic/test-00000-of-00001.parquet", "socratic/train-00000-of-00001.parquet",
]  # fmt: skip


def of(paths: list[str], card: str | None = None, subset: str | None = None, split: str | None = None) -> list[str]:
    return choose(paths, card, subset, split, FOR_TRAINING)


def test_a_card_defines_subsets_and_splits() -> None:
    assert of(GSM8K_PATHS, GSM8K, "main", "test") == ["main/test-00000-of-00001.parquet"]
    assert of(GSM8K_PATHS, GSM8K, "socratic") == ["socratic/train-00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("subset", "split", "sentence", "hint"),
    [
        (None, None, "has the subsets main, socratic; one must be named", "set subset to one of main, socratic"),
        (
            "math",
            None,
            "has no subset math; it has main, socratic",
            "set subset to one of main, socratic, or remove it",
        ),
        ("main", "dev", "has no split dev; it has train, test", "set split to one of train, test"),
        ("socratic", "test", "has no split test; it has train", "set split to one of train"),
    ],
)
def test_an_unknown_name_is_answered_with_those_there_are(
    subset: str | None, split: str | None, sentence: str, hint: str
) -> None:
    with pytest.raises(LayoutError) as error:
        of(GSM8K_PATHS, GSM8K, subset, split)
    assert (str(error.value), error.value.hint) == (sentence, hint)


@pytest.mark.parametrize(
    "files",
    [
        "data_files: data/a.csv",
        "data_files: [data/a.csv, data/b.csv]",
        "data_files:\n  - split: train\n    path: [data/a.csv, data/b.csv]",
        "data_files:\n    train: data/*.csv",
        "data_files:\n  - split: train\n    path: data",
        "data_dir: data",
    ],
)
def test_a_card_may_write_its_files_in_several_ways(files: str) -> None:
    card = f"---\nconfigs:\n- config_name: one\n  {files}\n---\n"
    paths = ["data/a.csv", "data/b.csv", "more/c.csv"]
    assert of(paths, card) == (paths[:1] if files == "data_files: data/a.csv" else paths[:2])


def test_the_default_subset_is_the_marked_one_or_the_one_of_that_name() -> None:
    def card(*names: str, marked: str = "") -> str:
        configs = "".join(
            f"- config_name: {name}\n  data_files: {name}.csv\n" + ("  default: true\n" if name == marked else "")
            for name in names
        )
        return f"---\nconfigs:\n{configs}---\n"

    paths = ["a.csv", "b.csv", "default.csv"]
    assert of(paths, card("a", "b", marked="b")) == ["b.csv"]
    assert of(paths, card("a", "default")) == ["default.csv"]
    assert of(paths, card("a")) == ["a.csv"]


@pytest.mark.parametrize(
    ("paths", "split", "chosen"),
    [
        (["train.jsonl", "dev.jsonl", "test.jsonl"], "validation", ["dev.jsonl"]),
        (["data/my_train_v2.csv", "data/my-eval.csv"], "test", ["data/my-eval.csv"]),
        (["train/a.parquet", "train/b.parquet", "valid/a.parquet"], None, ["train/a.parquet", "train/b.parquet"]),
        (["data/extra-00000-of-00002.parquet", "data/extra-00001-of-00002.parquet"], "extra",
         ["data/extra-00000-of-00002.parquet", "data/extra-00001-of-00002.parquet"]),
        (["a.jsonl", "b.jsonl"], None, ["a.jsonl", "b.jsonl"]),
        (["a.jsonl", "b.jsonl"], "train", ["a.jsonl", "b.jsonl"]),
        (["contest.csv", "latest.csv"], "train", ["contest.csv", "latest.csv"]),
        (["train.json", "dataset_infos.json", "LICENSE.txt"], None, ["train.json"]),
        (["data/train.parquet", "old/train.csv", "README.md"], None, ["data/train.parquet"]),
        ([".cache/train.csv", "a.csv", "__pycache__/b.csv"], None, ["a.csv"]),
    ],
)  # fmt: skip
def test_without_a_card_the_split_follows_from_names_of_files_and_folders(
    paths: list[str], split: str | None, chosen: list[str]
) -> None:
    assert of(paths, None, None, split) == chosen


def test_without_a_card_a_folder_is_a_subset() -> None:
    paths = ["main/train.jsonl", "main/test.jsonl", "other/train.jsonl"]
    assert of(paths, None, "main", "train") == ["main/train.jsonl"]
    with pytest.raises(LayoutError, match="has no subset third; it has main, other"):
        of(paths, None, "third")


def test_an_evaluation_and_a_validation_prefer_other_splits_than_a_training() -> None:
    paths = ["train.csv", "test.csv", "validation.csv"]
    assert choose(paths, None, None, None, FOR_TRAINING) == ["train.csv"]
    assert choose(paths, None, None, None, FOR_VALIDATION) == ["validation.csv"]
    assert choose(paths, None, None, None, FOR_EVALUATION) == ["test.csv"]
    with pytest.raises(LayoutError, match="has the splits train; one must be named"):
        choose(["train.csv"], None, None, None, FOR_VALIDATION)


def test_the_parquet_copies_of_a_hub_have_a_folder_for_each_subset_and_split() -> None:
    paths = ["main/partial-train/0000.parquet", "main/test/0000.parquet", "socratic/train/0000.parquet"]
    assert choose(paths, None, "main", None, FOR_TRAINING, is_converted=True) == paths[:1]
    with pytest.raises(LayoutError, match="has the subsets main, socratic"):
        choose(paths, None, None, None, FOR_TRAINING, is_converted=True)


def test_a_folder_without_rows_is_refused_with_the_types_that_are_read() -> None:
    with pytest.raises(LayoutError, match="has no file of rows") as error:
        of(["README.md", "gsm8k.py"])
    assert "parquet" in error.value.hint


@given(
    card=st.text() | st.text(alphabet="-\n: []{}configsdata_files*&").map(lambda text: f"---\nconfigs:\n{text}\n---\n")
)
def test_any_card_has_subsets_or_an_error(card: str) -> None:
    try:
        found = subsets_of(card)
        choose(GSM8K_PATHS, card, None, None, FOR_TRAINING)
    except LayoutError:
        return
    assert isinstance(found, list)


def test_a_text_beside_an_image_of_its_name_is_its_caption() -> None:
    paths = ["a.jpg", "a.txt", "b/c.d.PNG", "b/c.d.txt", "b/a.txt", "README.txt", "e.webp", "f.mp4", "f.txt"]
    assert caption_files(paths) == {"a.txt": "a.jpg", "b/c.d.txt": "b/c.d.PNG"}
