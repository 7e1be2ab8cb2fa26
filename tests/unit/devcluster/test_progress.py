import re

import pytest

from devcluster.progress import elapsed, step


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4s"), (12.3, "12s"), (59.6, "1m00s"), (252, "4m12s")])
def test_elapsed_time_is_short(seconds: float, text: str) -> None:
    assert elapsed(seconds) == text


def test_a_step_is_a_line_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with step("build x"):
        pass
    assert re.fullmatch(r"build x \.\.\. [\d.]+s\n", capsys.readouterr().out)


def test_a_failed_step_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), step("build x"):
        raise ValueError("no")
    assert re.fullmatch(r"build x \.\.\. failed after [\d.]+s\n", capsys.readouterr().out)
