"""Rows with pictures are asked as a training learns them, or refused with what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tinyvision
from tests.unit.runtime.evaluate.test_pictures import encoded, two_colours
from tunesmith_api.evaljob import BenchmarkDataset, BenchmarkType
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.media_files import MediaFiles
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate.box_text import BoxText
from tunesmith_runtime.evaluate.picture_rows import PictureRows
from tunesmith_runtime.evaluate.pictures import Pictures

ROOT = "s3://data/own"
FILES = {
    "red.png": tinyvision.picture("red"),
    "blue.png": tinyvision.picture("blue", 64, 32),
    "turned.jpg": encoded(two_colours(), "JPEG", orientation=6),
    "broken.png": b"\x89PNG\r\n\x1a\n",
}
RED = {"type": "image", "image": "red.png"}
BLUE = {"type": "image", "image": "blue.png"}
ANSWER = {"role": "assistant", "content": "red"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: dict[str, str]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that writes boxes in thousandths."""
    return model_of(tmp_path, "qwen3_vl")


def model_of(folder: Path, model_type: str) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def converted(
    model: Path, row: dict[str, Any], kind: BenchmarkType = BenchmarkType.VQA, **fields: Any
) -> tuple[dict[str, Any], set[str]]:
    """The row for EvalScope, with the name of each picture in place of its copy, and the keys that are not read."""
    dataset = BenchmarkDataset.model_validate({"uri": f"{ROOT}/rows.jsonl", "type": kind, **fields})
    store = {f"{ROOT}/{name}": content for name, content in FILES.items()}
    rows = PictureRows(dataset, Pictures(store.get, model / "pictures"), BoxText(model))
    found, ignored = rows.convert(row, MediaFiles(ROOT, frozenset(FILES)), f"{ROOT}/rows.jsonl")
    names = {content: name for name, content in FILES.items()}
    for message in found["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image":
                part["image"] = names.get(Path(part["image"]).read_bytes(), "converted")
    return found, ignored


def asked(model: Path, row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return converted(model, row, **fields)[0]


@pytest.mark.parametrize(
    "row",
    [
        {"image_path": "red.png", "text": "what is it?", "answer": "red"},
        {"images": ["red.png"], "question": "what is it?", "answer": "red"},
        {"image": {"path": "red.png"}, "query": "<image>what is it?", "response": "red"},
        {"messages": [user(RED, text("what is it?")), ANSWER]},
        {"messages": [{"role": "user", "content": "<image>what is it?"}, ANSWER], "images": ["red.png"]},
        {"messages": [user({"type": "image_url", "image_url": {"url": "red.png"}}, text("what is it?")), ANSWER]},  # type: ignore[dict-item]
    ],
)
def test_every_form_gives_the_same_question(model: Path, row: dict[str, Any]) -> None:
    assert asked(model, row) == {
        "messages": [user(RED, text("what is it?"))],
        "references": ["red"],
        "pictures": ["red.png"],
    }


def test_a_caption_is_asked_by_the_picture_alone_as_it_is_learned(model: Path) -> None:
    found = asked(model, {"image": "red.png", "caption": "a red square"}, kind=BenchmarkType.CAPTION)
    assert found == {"messages": [user(RED)], "references": ["a red square"], "pictures": ["red.png"]}


def test_an_answer_may_be_a_list_of_right_ones(model: Path) -> None:
    people = {"image_path": "red.png", "text": "what is it?", "answer": ["red", "a red square"]}
    assert asked(model, people)["references"] == ["red", "a red square"]
    captions = {"image": "red.png", "caption": ["red", "a red square"]}
    assert asked(model, captions, kind=BenchmarkType.CAPTION)["references"] == ["red", "a red square"]


def test_pictures_stand_where_the_row_has_them(model: Path) -> None:
    row = {"images": ["red.png", "blue.png"], "text": "is <image> brighter than <image>?", "answer": "no"}
    found = asked(model, row)
    assert found["messages"] == [user(text("is "), RED, text(" brighter than "), BLUE, text("?"))]
    assert found["pictures"] == ["red.png", "blue.png"]


def test_earlier_turns_are_sent(model: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, user(RED, text("what is it?")), ANSWER, user(text("sure?"))]
    found = asked(model, {"messages": [*turns, {"role": "assistant", "content": "yes"}]})
    assert found["messages"] == [*turns[:3], {"role": "user", "content": "sure?"}]
    assert found["references"] == ["yes"]


def test_a_marker_in_a_typed_part_is_plain_text(model: Path) -> None:
    parts = (text("what does an <image> tag do?"), RED)
    assert asked(model, {"messages": [user(*parts), ANSWER]})["messages"] == [user(*parts)]


def test_keys_that_are_not_read_are_named_and_columns_renamed(model: Path) -> None:
    row = {"img": "red.png", "text": "what is it?", "answer": "red", "source": "a book"}
    assert converted(model, row, columns={"img": "image_path"})[1] == {"source"}


def test_boxes_are_written_as_the_model_writes_them(model: Path) -> None:
    row = {
        "image_path": "blue.png",
        "text": "where is <ref-object>, which <bbox> is not?",
        "answer": "<bbox>",
        "objects": {"ref": ["it"], "bbox": [[0, 0, 16, 16], [32, 16, 64, 32]]},
    }
    found = asked(model, row, kind=BenchmarkType.GROUNDING)
    assert found["messages"] == [user(BLUE, text("where is it, which [0, 0, 250, 500] is not?"))]
    assert found["references"] == ["[500, 500, 1000, 1000]"]
    shares = {**row, "objects": {"ref": ["it"], "bbox": [[0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1]], "bbox_type": "norm1"}}
    assert asked(model, shares, kind=BenchmarkType.GROUNDING) == found


def test_boxes_are_those_of_the_upright_picture(model: Path) -> None:
    row = {"image_path": "turned.jpg", "text": "where?", "answer": "<bbox>", "objects": {"bbox": [[0, 0, 10, 10]]}}
    assert asked(model, row, kind=BenchmarkType.GROUNDING)["references"] == ["[0, 0, 500, 250]"]


def test_boxes_that_a_row_writes_itself_are_in_the_coordinates_of_the_model(model: Path) -> None:
    row = {"image_path": "turned.jpg", "text": "where is the red corner?", "answer": "[0,0,10,10]"}
    assert asked(model, row, kind=BenchmarkType.GROUNDING)["references"] == ["[0,0,10,10]"]


def test_boxes_for_a_model_of_unknown_coordinates_are_refused(tmp_path: Path) -> None:
    row = {"image_path": "red.png", "text": "where?", "answer": "<bbox>", "objects": {"bbox": [[0, 0, 10, 10]]}}
    with pytest.raises(RunFailure, match="'llava', whose coordinates of boxes are not known") as wrong:
        asked(model_of(tmp_path, "llava"), row, kind=BenchmarkType.GROUNDING)
    assert wrong.value.failure is FailureClass.BAD_SPEC


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "what is it?", "answer": "red"}, "is of format text, which has no picture"),
        ({"messages": [{"role": "user", "content": "?"}, ANSWER]}, "has no image"),
        ({"image_path": "green.png", "text": "?", "answer": "red"}, r"names the file 'green\.png', which is not in"),
        ({"image_path": "broken.png", "text": "?", "answer": "red"}, "which is a damaged PNG"),
        ({"image_path": "https://example.com/a.png", "text": "?", "answer": "red"}, "read from the folder of the rows"),
        ({"image_path": "../a.png", "text": "?", "answer": "red"}, "outside the folder"),
        ({"image_path": "red.png", "text": "?", "answer": " … "}, "in which there is no word"),
        ({"image_path": "red.png", "text": "?", "answer": []}, r"'answer' is \[\]; expected a string, or several"),
        ({"image_path": "red.png", "text": "?", "answer": ["red", 1]}, "expected a string, or several in a list"),
        ({"image_path": "red.png", "text": "?", "answer": ""}, "has no answer to compare with"),
        ({"images": ["red.png"] * 4, "text": "<image><image>?", "answer": "red"}, "has 2 markers, 4 pictures"),
        ({"video_path": "red.png", "text": "?", "answer": "red"}, "has video media"),
        ({"messages": [user(RED, text("?")), {"role": "assistant", "content": [RED]}]}, "is not of the user"),
        ({"messages": [user(RED, text("?"))]}, "has no answer to compare with"),
        (
            {"messages": [user(RED, text("?")), ANSWER], "tools": [{"type": "function", "function": {"name": "f"}}]},
            "has 'tools', which evaluations do not support",
        ),
    ],
)
def test_a_row_that_cannot_be_asked_or_scored_is_refused(model: Path, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        asked(model, row)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"answer": "in the corner"}, "'in the corner', in which there is no box"),
        ({"answer": ["[0, 0, 1, 1]"]}, "'answer' is a list; expected a string"),
        ({"answer": "<bbox>", "objects": {"bbox": [[0, 0, 33, 10]]}}, "is not within the picture of 32 x 32 pixels"),
        ({"answer": "<bbox>", "objects": {"bbox": [[0, 0, 9, 9]], "image_id": [1]}}, "a box in image 1, and 1 images"),
        ({"answer": "<bbox>", "objects": {"bbox": [[5, 5]]}}, "is a point; expected a box"),
    ],
)
def test_an_answer_without_a_usable_box_is_refused(model: Path, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        asked(model, {"image_path": "red.png", "text": "where?", **fields}, kind=BenchmarkType.GROUNDING)
