from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith_operator.configuration import load_config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "No such file"),
        ("a: [", "not YAML"),
        ("{}", "images: Field required"),
        ("{images: {runtime: r}, store: {uri: s3://store}, wokers: 3}", "wokers"),
        ("{images: {runtime: r}, store: {uri: s3://store}, workers: 0}", "workers"),
        ("[]", "images: Field required"),
        (
            "{images: {runtime: r}, store: {uri: s3://store}, leaderElection: {leaseSeconds: 10}}",
            "leaderElection: Value error, leaseSeconds must be more than renewSeconds",
        ),
        (
            "{images: {runtime: r}, store: {uri: s3://store}, leaderElection: {renewSeconds: 2}}",
            "and that more than retrySeconds: they are 15, 2 and 2",
        ),
    ],
)
def test_an_invalid_configuration_is_reported_with_file_and_field(
    tmp_path: Path, text: str | None, expected: str
) -> None:
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as caught:
        load_config(str(file))
    assert str(file) in str(caught.value)
    assert expected in str(caught.value)


def test_the_environment_variable_names_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("{images: {runtime: r}, store: {uri: s3://store}, client: {qps: 7, burst: 9}}")
    monkeypatch.setenv("TUNESMITH_CONFIG", str(file))
    assert load_config().client.qps == 7
