import pytest

from devcluster.toolchain import GO_WANTED, parse_go_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 linux/arm64", (1, 27)),
        ("go version go1.26rc1 linux/amd64", (1, 26)),
        ("bash: go: command not found", ()),
    ],
)
def test_a_go_version_is_read(text: str, version: tuple[int, ...]) -> None:
    assert parse_go_version(text) == version


@pytest.mark.parametrize(
    ("text", "enough"), [("go1.19.8", False), ("go1.26.0", True), ("go1.100.1", True), ("", False)]
)
def test_a_go_that_is_too_old_is_not_used(text: str, enough: bool) -> None:
    assert (parse_go_version(text)[:2] >= GO_WANTED) is enough
