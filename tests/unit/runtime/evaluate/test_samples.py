"""Stored answers about pictures: the page for readers, and files without the pictures."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import tinyvision
from tunesmith_runtime.evaluate.samples import PAGE, SHOWN, Sample, page, thumbnail, without_embedded, write_samples

PICTURE = tinyvision.picture("red", 640, 320)
EMBEDDED = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"


def review(index: int, image: str, **metadata: Any) -> dict[str, Any]:
    asked = {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": f"<{index}>?"}]}
    score = {"value": {"accuracy": 0.5}, "prediction": "a <b>red</b> one"}
    return {
        "index": index,
        "target": ["red"],
        "messages": [asked, {"role": "assistant", "content": "a <b>red</b> one"}],
        "sample_score": {"score": score, "sample_metadata": metadata or None},
    }


def stored(folder: Path, *reviews: dict[str, Any]) -> Path:
    for name in ("reviews", "predictions"):
        file = folder / name / "m" / "vqa_default.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(each) + "\n" for each in reviews))
    (folder / "reports").mkdir()
    write_samples(folder, "colours", reviews)
    return folder


def test_the_page_shows_picture_question_expected_and_given_answer(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PICTURE)
    folder = stored(tmp_path / "run", review(0, str(file), references=["red", "crimson"], pictures=["red & round.png"]))
    (row,) = re.findall("<tr><td>.*?</tr>", (folder / PAGE).read_text(), re.DOTALL)
    figure, *texts = re.findall("<td>(.*?)</td>", row, re.DOTALL)
    assert figure.endswith("red &amp; round.png")
    assert texts == ["&lt;0&gt;?", "red\ncrimson", "a &lt;b&gt;red&lt;/b&gt; one", "accuracy 0.5"]


def test_a_picture_on_the_page_is_small() -> None:
    small = thumbnail(EMBEDDED)
    assert small is not None
    assert Image.open(BytesIO(base64.b64decode(small.partition(",")[2]))).size == (128, 64)


@pytest.mark.parametrize("picture", ["https://example.com/a.png", "gone.png", "data:image/png;base64,AAAA"])
def test_a_picture_that_is_not_there_has_its_name_alone(picture: str) -> None:
    assert thumbnail(picture) is None
    assert "<tr><td>a.png</td>" in page("colours", [Sample((picture,), ("a.png",), "?", ("red",), "red", {})])


def test_the_page_has_the_first_questions_in_their_order(tmp_path: Path) -> None:
    folder = stored(tmp_path, *(review(index, "gone.png") for index in range(SHOWN + 20, -1, -1)))
    shown = re.findall("&lt;([0-9]+)&gt;", (folder / PAGE).read_text())
    assert list(map(int, shown)) == list(range(SHOWN))


def test_a_benchmark_of_text_has_no_page(tmp_path: Path) -> None:
    words = review(0, "")
    words["messages"][0]["content"] = "what is it?"
    assert not (stored(tmp_path, words) / PAGE).exists()


def test_stored_answers_have_digests_in_place_of_embedded_pictures(tmp_path: Path) -> None:
    folder = stored(tmp_path, review(0, EMBEDDED), review(1, EMBEDDED))
    described = f"image/png, {len(PICTURE)} bytes, sha256 {sha256(PICTURE).hexdigest()}"
    for name in ("reviews", "predictions"):
        rows = [json.loads(line) for line in (folder / name / "m" / "vqa_default.jsonl").read_text().splitlines()]
        assert [row["messages"][0]["content"][0]["image"] for row in rows] == [described] * 2
    assert "data:image/jpeg" in (folder / PAGE).read_text()


def test_other_text_is_stored_unchanged() -> None:
    for line in ("what is data:image/png, and base64?", "a data:text/plain;charset=utf-8,x", "红色"):
        assert without_embedded(line) == line
