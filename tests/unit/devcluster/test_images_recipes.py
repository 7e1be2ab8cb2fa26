"""The tag of an image identifies its content."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devcluster.images_recipes import IMAGES, Image, content_tag, reference, source_files

ROOT = Path(__file__).resolve().parents[3]
IMAGE = Image("runtime", "runtime/Containerfile", ("locks/runtime.txt", "runtime/code"))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in (".dockerignore", "runtime/Containerfile", "locks/runtime.txt", "runtime/code/train.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def tag(clone: Path, base: str = "base:1") -> str:
    return content_tag(clone, source_files(clone, IMAGE), base)


def test_equal_content_has_an_equal_tag_whatever_its_dates(clone: Path) -> None:
    before = tag(clone)
    (clone / "runtime/code/train.py").touch()
    assert tag(clone) == before


@pytest.mark.parametrize(
    "name", [".dockerignore", "runtime/Containerfile", "locks/runtime.txt", "runtime/code/train.py"]
)
def test_a_change_of_any_source_is_another_tag(clone: Path, name: str) -> None:
    before = tag(clone)
    (clone / name).write_text("changed")
    assert tag(clone) != before


def test_a_new_a_renamed_and_a_removed_file_are_each_another_tag(clone: Path) -> None:
    tags = [tag(clone)]
    file = clone / "runtime/code/export.py"
    file.write_text("new")
    tags.append(tag(clone))
    file.rename(clone / "runtime/code/merge.py")
    tags.append(tag(clone))
    (clone / "runtime/code/train.py").unlink()
    tags.append(tag(clone))
    assert len(set(tags)) == 4


def test_another_base_is_another_tag(clone: Path) -> None:
    assert tag(clone, "base:1") != tag(clone, "base:2")


def test_byte_code_and_files_of_others_do_not_count(clone: Path) -> None:
    before = tag(clone)
    for name in ("runtime/code/__pycache__/train.cpython-311.pyc", "runtime/README.md", "operator/app.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("unrelated")
    assert tag(clone) == before


def test_a_missing_source_is_named(clone: Path) -> None:
    (clone / "locks/runtime.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"locks/runtime\.txt"):
        source_files(clone, IMAGE)


@given(names=st.lists(st.text("abc/", min_size=1, max_size=6), unique=True, max_size=6))
def test_the_tag_is_valid_for_a_registry(names: list[str]) -> None:
    tag = content_tag(ROOT, [Path("pyproject.toml")], "".join(names))
    assert len(tag) == 16
    assert set(tag) <= set("0123456789abcdef")


def test_a_reference_names_registry_image_and_tag() -> None:
    assert reference("localhost:5001", IMAGES[0], "0123") == "localhost:5001/tunesmith/operator:0123"


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_the_tag_covers_the_files_that_the_containerfile_copies(image: Image) -> None:
    lines = (ROOT / image.containerfile).read_text().replace("${LOCK}", "runtime").splitlines()
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignore if line.startswith("!") and "*" not in line}
    folders = {name for name in let_in if name.split("/")[0] in copied}
    files = {name for name in copied if "/" in name}
    assert folders | files == set(image.sources)
