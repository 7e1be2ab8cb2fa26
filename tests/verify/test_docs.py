"""The links of the documentation have targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("charts/**/*.md")]
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


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
