"""Models as specs of older releases name them."""

import pytest

from tunesmith_operator.plan.inferenceservice.promotion import source_as_recorded


@pytest.mark.parametrize("uri", ["s3://models/a", "s3://models/a//b"], ids=["valid", "refused by this release"])
def test_a_recorded_uri_is_read_whatever_this_release_admits(uri: str) -> None:
    assert source_as_recorded({"uri": uri}).uri == uri


def test_a_recorded_reference_is_read() -> None:
    reference = source_as_recorded({"fineTuneJob": {"name": "support"}}).fine_tune_job
    assert reference is not None
    assert reference.name == "support"
