"""Answers about pictures for readers: a page that shows them beside the pictures, and stored answers without the pictures themselves."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from heapq import nsmallest
from html import escape
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import Any

from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.media.picture_error import PictureError
from tunesmith_runtime.media.pictures import read_picture
from tunesmith_runtime.multimodal.sources import DATA, decoded

PAGE = Path("reports", "samples.html")
SHOWN = 200
"""Answers on the page, from the first."""
THUMBNAIL = 128
"""Longer side of a picture on the page, in pixels."""
EMBEDDED = re.compile(
    r"data:([a-z]+/[a-z0-9.+-]+);base64,((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)"
)

_STYLE = (
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.4em;vertical-align:top;white-space:pre-wrap}"
)
_COLUMNS = ("picture", "question", "expected", "given", "scores")


@dataclass(frozen=True)
class Sample:
    """A question with the answer to it."""

    pictures: tuple[str, ...]
    """Paths, URLs or data URIs."""
    names: tuple[str, ...]
    """Of the pictures, where the rows name them."""
    question: str
    expected: tuple[str, ...]
    given: str
    scores: Mapping[str, float]

    @classmethod
    def of(cls, review: Mapping[str, Any]) -> Sample:
        """The sample of a row of EvalScope's reviews."""
        asked = next((each for each in reversed(review["messages"]) if each["role"] == "user"), {"content": ""})
        score, metadata = review["sample_score"]["score"], review["sample_score"].get("sample_metadata") or {}
        return cls(
            tuple(part["image"] for each in review["messages"] for part in _parts(each) if part["type"] == "image"),
            tuple(metadata.get("pictures", ())),
            "".join(part.get("text", " ") for part in _parts(asked)).strip(),
            tuple(metadata.get("references") or review.get("target") or ()),
            score.get("prediction") or "",
            score.get("value") or {},
        )


def write_samples(folder: Path, title: str, reviews: Iterable[Mapping[str, Any]]) -> None:
    """Write the page of a benchmark's first answers if they are about pictures, and take pictures out of the stored files of all answers.

    `folder` is the benchmark's folder in the report, with the files of EvalScope's reviews and predictions.
    """
    samples = [Sample.of(review) for review in nsmallest(SHOWN, reviews, key=itemgetter("index"))]
    if any(sample.pictures for sample in samples):
        (folder / PAGE).write_text(page(title, samples), encoding="utf-8")
    for name in ("reviews", "predictions"):
        for file in _files(folder / name):
            _take_out(file)


def page(title: str, samples: list[Sample]) -> str:
    """Return an HTML page that loads nothing."""
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    rows = "\n".join(map(_row, samples))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1><p>The first {len(samples)} questions.</p>\n"
        f"<table><tr>{head}</tr>\n{rows}\n</table></body></html>\n"
    )


def _row(sample: Sample) -> str:
    names = sample.names or tuple("" for _ in sample.pictures)
    pictures = "\n".join(_figure(each, name) for each, name in zip(sample.pictures, names, strict=False))
    scores = "\n".join(f"{name} {value:.4g}" for name, value in sample.scores.items())
    texts = (sample.question, "\n".join(sample.expected), sample.given, scores)
    return "<tr><td>" + pictures + "</td>" + "".join(f"<td>{escape(text)}</td>" for text in texts) + "</tr>"


def _figure(picture: str, name: str) -> str:
    """A picture's thumbnail with its name; the name alone of a picture that is not here."""
    small = thumbnail(picture)
    return (f'<img alt="" src="{small}">\n' if small else "") + escape(name)


def thumbnail(picture: str) -> str | None:
    """Return a small JPEG of the picture at a path or in a data URI, as a data URI; None if it is not here or cannot be read."""
    try:
        content = decoded(picture) if picture.startswith(DATA) else Path(picture).read_bytes()
        pixels = read_picture(content).pixels
    except (OSError, RowError, PictureError):
        return None
    pixels.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = BytesIO()
    pixels.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def without_embedded(line: str) -> str:
    """Return a line with the type, size and digest of embedded files in place of their content."""
    return EMBEDDED.sub(_described, line)


def _described(found: re.Match[str]) -> str:
    content = base64.b64decode(found[2])
    return f"{found[1]}, {len(content)} bytes, sha256 {sha256(content).hexdigest()}"


def _take_out(file: Path) -> None:
    """Rewrite a file line by line without embedded files."""
    shorter = file.with_suffix(".incomplete")
    with file.open(encoding="utf-8") as lines, shorter.open("w", encoding="utf-8") as target:
        target.writelines(map(without_embedded, lines))
    shorter.replace(file)


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.jsonl"))


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The content of a message as parts."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
