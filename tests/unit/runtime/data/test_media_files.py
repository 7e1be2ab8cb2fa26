"""Rows with images, videos or sounds: files that they name must be there; they are counted, and nothing is learned from them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.runtime.data.loading import given_files
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.load import Data, load
from tunesmith_runtime.data.media_files import MediaFiles
from tunesmith_runtime.data.records import Caption, Media, MediaKind
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.methods import METHODS
from tunesmith_runtime.workdir import Work

ROOT = "s3://data/part-0"
TURNS = [{"role": "user", "content": "<image><image>?"}, {"role": "assistant", "content": "Kiwi."}]
FILES = MediaFiles(ROOT, frozenset({"train.jsonl", "a.jpg", "sub/b.png", "sub/train.jsonl"}))


def read(work: Work, tokenizer: Any, form: str, **spec: Any) -> Data:
    job = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "s3://models/base"},
            "datasets": [{"uri": f"{ROOT}/train.jsonl", "format": form}],
            "until": "data",
            **spec,
        }
    )
    encoder = Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training)
    return load(work, job, encoder, METHODS[job.method].learnable(job, work))


def listed(work: Work) -> None:
    """Write the listing of the folder of the rows."""
    FILES.write(work.data / "files-00.json")
    work.write_data_files([file.model_copy(update={"listing": "files-00.json"}) for file in work.data_files()])


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("caption", {"image": "a.jpg", "caption": "a kiwi"}),
        ("vqa", {"image_path": "./sub\\b.png", "text": "What is it?", "answer": "A kiwi."}),
        ("vqa", {"messages": TURNS, "images": ["sub/b.png", "https://host/c.jpg"]}),
    ],
)
def test_rows_with_media_are_counted_and_have_no_examples(
    work: Work, tokenizer: Any, form: str, row: dict[str, Any]
) -> None:
    given_files(work, (0, [row, row]))
    listed(work)
    data = read(work, tokenizer, form, drop=["Duplicate"])
    assert data.rows.to_dict() == {"kept": 1, "dropped": [{"reason": "Duplicate", "count": 1}]}
    assert len(data.train) == 0


@pytest.mark.parametrize("image", ["b.png", "a.JPG", "sub", "train"])
def test_a_file_that_is_not_there_is_named_with_file_and_line(work: Work, tokenizer: Any, image: str) -> None:
    there, gone = ({"image": name, "caption": "a kiwi"} for name in ("a.jpg", image))
    given_files(work, (0, [there, gone]))
    listed(work)
    with pytest.raises(
        RunFailure, match=rf"train\.jsonl line 2: names the file '{image}', which is not in {ROOT}"
    ) as found:
        read(work, tokenizer, "caption")
    assert found.value.failure is FailureClass.BAD_ROW
    assert read(work, tokenizer, "caption", onBadRow="Drop", maxBadShare=0.5).rows.kept == 1


def test_paths_are_relative_to_the_file_of_the_row_or_to_the_data() -> None:
    record = Caption(Media(MediaKind.IMAGE, ("b.png",)), "a kiwi")
    FILES.check(record, f"{ROOT}/sub/train.jsonl")
    FILES.check(Caption(Media(MediaKind.IMAGE, ("sub/b.png",)), "a kiwi"), f"{ROOT}/sub/train.jsonl")
    with pytest.raises(RowError):
        FILES.check(record, f"{ROOT}/train.jsonl")


def test_without_until_data_the_format_is_refused(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"image": "a.jpg", "caption": "a kiwi"}]))
    with pytest.raises(RunFailure, match=r"datasets\[\]\.format caption: method sft learns from"):
        read(work, tokenizer, "caption", until="export")
