"""Wildcards in paths."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.fetch.globs import parent_of, pattern


@pytest.mark.parametrize(
    ("glob", "paths", "others"),
    [
        ("*.jsonl", ["a.jsonl", ".jsonl"], ["a/b.jsonl", "a.jsonl.gz"]),
        ("part-*/x*.csv", ["part-1/x.csv", "part-/x2.csv"], ["part-1/a/x.csv", "x.csv"]),
        ("**/*.csv", ["a.csv", "a/b.csv", "a/b/c.csv"], ["a.csvx"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a"]),
        ("*a*b/*.csv", ["ab/x.csv", "xaxaxbxb/.csv"], ["a/b/x.csv", "ba/x.csv"]),
        ("a*a**b*b", ["aab b", "aa/x/b/bb"], ["aab", "a/abb"]),
        ("**/a*/**/b*", ["a/b", "x/a1/y/z/b2", "a/a/b/b"], ["a", "b/a", "xa/b"]),
        ("a.b(c)[d]*", ["a.b(c)[d]", "a.b(c)[d]e"], ["aXb(c)d"]),
    ],
)
def test_a_star_stays_within_a_folder_and_two_do_not(glob: str, paths: list[str], others: list[str]) -> None:
    found = pattern(glob)
    assert all(found.fullmatch(path) for path in paths)
    assert not any(found.fullmatch(path) for path in others)


def test_a_data_card_has_question_marks_and_brackets_too() -> None:
    found = pattern("data/train-0000[0-2]-of-?.parquet", brackets=True)
    assert found.fullmatch("data/train-00001-of-3.parquet")
    assert not found.fullmatch("data/train-00003-of-3.parquet")


@pytest.mark.parametrize(
    ("uri", "folder", "glob"),
    [
        ("s3://data/vqa/*.jsonl.gz", "s3://data/vqa", "*.jsonl.gz"),
        ("s3://data/vqa/a*/b.csv", "s3://data/vqa", "a*/b.csv"),
        ("s3://data/*", "s3://data", "*"),
        ("file:///d/e/**/x.csv", "file:///d/e", "**/x.csv"),
    ],
)
def test_the_folder_above_a_wildcard_is_listed(uri: str, folder: str, glob: str) -> None:
    assert parent_of(uri) == (folder, glob)


@pytest.mark.parametrize(
    ("glob", "paths", "others"),
    [
        ("[z-a].csv", ["[z-a].csv"], ["b.csv"]),
        ("[!].csv", ["[!].csv"], ["a.csv"]),
        ("[a!].csv", ["a.csv", "!.csv"], ["b.csv"]),
        ("[!a].csv", ["b.csv"], ["a.csv"]),
    ],
)
def test_brackets_that_are_no_set_of_characters_stand_for_themselves(
    glob: str, paths: list[str], others: list[str]
) -> None:
    found = pattern(glob, brackets=True)
    assert all(found.fullmatch(path) for path in paths)
    assert not any(found.fullmatch(path) for path in others)


@pytest.mark.parametrize("part", ["*a", "**a", "**a*a", "**/*a", "**a*b"])
def test_many_stars_take_no_time(part: str) -> None:
    started = time.monotonic()
    assert not pattern(part * 8 + "c").fullmatch("ab/a" * 200)
    assert time.monotonic() - started < 2


@given(st.text())
def test_any_text_is_a_pattern_that_matches_itself_without_its_stars(text: str) -> None:
    for brackets in (False, True):
        found = pattern(text, brackets)
        if not set("*?[") & set(text):
            assert found.fullmatch(text)
