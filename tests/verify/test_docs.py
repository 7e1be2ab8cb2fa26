"""The links of the documentation have targets, its manifests of methods are accepted, and its prose is wrapped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith_api.compatibility import refusals
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import METHOD_FACTS, Method

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("charts/**/*.md")]
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
GENERATED = ROOT / "docs" / "reference"
WIDTH = 120
"""Characters of a line of prose (docs/STYLE.md)."""
NOT_BROKEN = re.compile(r"\[[^\]]*\]\([^)]*\)|`[^`]*`")
"""Links and code, in which no line ends."""
MARKER = re.compile(r"\s*(?:[-*+] |\d+\. |> )?")
"""The beginning of a line, before its text."""


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_has_a_target(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def links(page: Path) -> set[Path]:
    """The pages that a page links to."""
    targets = {(page.parent / target.partition("#")[0]).resolve() for target in LINK.findall(page.read_text())}
    return {target for target in targets if target.suffix == ".md" and target.is_file()}


def test_every_page_of_docs_is_in_the_index_and_every_decision_in_the_index_of_decisions() -> None:
    docs = ROOT / "docs"
    index, decisions = docs / "README.md", docs / "design" / "decisions" / "README.md"
    pages = set(docs.glob("**/*.md")) - {index}
    assert pages - links(index) == set(decisions.parent.glob("*.md")) - {decisions}
    assert set(decisions.parent.glob("*.md")) - {decisions} <= links(decisions)


def manifests() -> Iterator[dict[str, Any]]:
    """Yield the specs on the pages of methods and training that name a method, with a model and data where they leave them out."""
    for page in ("methods.md", "training.md"):
        for block in re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL):
            for document in yaml.safe_load_all(block):
                if "method" in document.get("spec", {}):
                    yield {
                        "model": {"name": "tiny"},
                        "datasets": [{"uri": "s3://my-bucket/rows.jsonl"}],
                        **document["spec"],
                    }


def test_every_method_has_a_manifest_that_is_accepted() -> None:
    specs = [FineTuneJobSpec.model_validate(spec).to_dict() for spec in manifests()]
    assert {spec["method"] for spec in specs} | {Method.SFT} == {*METHOD_FACTS}
    assert [refusal for spec in specs for refusal in refusals("FineTuneJob", spec)] == []


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Lines of a page with their numbers, without code, tables and headings."""
    is_code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        is_code ^= line.lstrip().startswith("```")
        if not is_code and not line.startswith(("|", "#", "<", "    ", "```")):
            yield number, line


def is_too_wide(line: str) -> bool:
    """Whether a line is wider than WIDTH although a space before it could end it."""
    text = NOT_BROKEN.sub(lambda part: "x" * len(part[0]), line)
    marker = MARKER.match(text)
    assert marker
    return len(line) > WIDTH and " " in text[marker.end() : WIDTH + 1]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if not page.is_relative_to(GENERATED)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_prose_is_wrapped(page: Path) -> None:
    assert [number for number, line in prose(page) if is_too_wide(line)] == []
