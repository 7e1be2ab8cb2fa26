"""Scalar types, and API objects as data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tunesmith_api.base import (
    LONGEST_SECONDS,
    DataUri,
    Duration,
    ModelUri,
    Name,
    Quantity,
    StoreUri,
    parse_duration,
)
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.pods import is_reserved

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400), ("0s", 0)]
)
def test_a_duration_is_parsed_to_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from("smhd")), min_size=1, max_size=5))
def test_the_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    text = TypeAdapter(Duration).validate_python("".join(f"{number}{unit}" for number, unit in parts))
    assert parse_duration(text) == min(sum(number * UNITS[unit] for number, unit in parts), LONGEST_SECONDS)


@given(st.from_regex(r"([0-9]{1,6}(\.[0-9]{1,6})?[smhd]){1,4}", fullmatch=True))
def test_every_duration_fits_a_deployment_and_a_calendar(text: str) -> None:
    seconds = parse_duration(text)
    assert 0 <= seconds < 2**31
    assert datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "1w", "-1h", "1h 30m", "h", "PT1H", "3000000d"])
def test_a_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize(
    ("kind", "uri"),
    [
        (ModelUri, "hf://Qwen/Qwen3-8B"),
        (ModelUri, "hf://Qwen/Qwen3-8B@refs/pr/1"),
        (ModelUri, "ms://Qwen/Qwen3-8B@v1"),
        (ModelUri, "s3://models"),
        (ModelUri, "s3://models/base/"),
        (ModelUri, "file:///models/base"),
        (DataUri, "s3://data/train.jsonl"),
        (DataUri, "pvc://claim/train.jsonl"),
        (StoreUri, "s3://bucket/prefix"),
    ],
)
def test_a_uri_of_each_scheme_is_accepted(kind: type[str], uri: str) -> None:
    assert TypeAdapter(kind).validate_python(uri) == uri


@pytest.mark.parametrize(
    ("kind", "uri"),
    [
        (ModelUri, "Qwen/Qwen3-8B"),
        (ModelUri, "hf://Qwen"),
        (ModelUri, "https://models/base"),
        (ModelUri, "s3:///base"),
        (ModelUri, "s3://a b/c"),
        (DataUri, "file://relative"),
        (StoreUri, "hf://org/name"),
    ],
)
def test_a_malformed_uri_is_refused(kind: type[str], uri: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(uri)


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a-", "a" * 46, "a_b"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


@pytest.mark.parametrize("quantity", [1, "500m", "2", "16Gi", "1.5"])
def test_a_quantity_is_a_number_or_a_string(quantity: int | str) -> None:
    assert TypeAdapter(Quantity).validate_python(quantity) == quantity


@pytest.mark.parametrize("quantity", [-1, "-1", "1e3", "x", 10**15, "", "1 Gi"])
def test_a_malformed_quantity_is_refused(quantity: int | str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Quantity).validate_python(quantity)


def test_an_object_as_data_has_camel_case_names_and_no_nulls() -> None:
    data = FineTuneJobSpec.model_validate(
        {"model": {"fineTuneJob": {"name": "a"}}, "datasets": [{"uri": "s3://data/t"}]}
    ).to_dict()
    assert data["model"] == {"fineTuneJob": {"name": "a"}, "trustRemoteCode": False}
    assert data["training"]["globalBatchSize"] == 16
    assert "lora" not in data
    assert FineTuneJobSpec.model_validate(data).to_dict() == data


def test_an_unknown_field_of_a_later_version_is_ignored() -> None:
    data = {"model": {"uri": "s3://models/b"}, "datasets": [{"uri": "s3://data/t"}], "later": True}
    assert "later" not in FineTuneJobSpec.model_validate(data).to_dict()


@pytest.mark.parametrize(
    "name",
    ["AWS_PROFILE", "TUNESMITH_POD", "PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "HF_ENDPOINT", "MODELSCOPE_ENDPOINT",
     "HUGGINGFACE_CO_STAGING", "NCCL_NET_PLUGIN", "CUDA_INJECTION64_PATH", "OMP_TOOL_LIBRARIES", "TORCHINDUCTOR_CACHE_DIR",
     "TRITON_PTXAS_PATH", "VLLM_PLUGINS", "CC", "GLIBC_TUNABLES",
     "HOME", "PATH", "https_proxy", "ALL_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NVIDIA_VISIBLE_DEVICES"],
)  # fmt: skip
def test_a_variable_that_decides_what_a_pod_trusts_loads_or_writes_is_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "MODELSCOPE_API_TOKEN", "HF_HUB_OFFLINE", "PYTORCH_CUDA_ALLOC_CONF", "OMP_NUM_THREADS", "PATHS"],
)
def test_users_may_set_other_variables(name: str) -> None:
    assert not is_reserved(name)
