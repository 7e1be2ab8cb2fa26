"""Accelerators are found by the labels that vendors and cloud providers put on nodes."""

from __future__ import annotations

import pytest

from tunesmith_api.pods import Accelerator
from tunesmith_runtime.estimate.devices import DEVICES, GIB, find_device, partition_bytes, smallest_that_fits

LABELS = {
    "NVIDIA-L4": "L4",
    "nvidia-l4": "L4",
    "NVIDIA-L40S": "L40S",
    "NVIDIA-L40": "L40",
    "Tesla-T4": "T4",
    "nvidia-tesla-t4": "T4",
    "NVIDIA-A10G": "A10G",
    "NVIDIA-A10": "A10",
    "a10g": "A10G",
    "NVIDIA-A100-SXM4-40GB": "A100 40 GB",
    "nvidia-tesla-a100": "A100 40 GB",
    "NVIDIA-A100-SXM4-80GB": "A100 80 GB",
    "NVIDIA-A100-80GB-PCIe": "A100 80 GB",
    "nvidia-a100-80gb": "A100 80 GB",
    "NVIDIA-H100-80GB-HBM3": "H100",
    "nvidia-h100-80gb": "H100",
    "NVIDIA-H100-PCIe": "H100 PCIe",
    "NVIDIA-H100-NVL": "H100 NVL",
    "NVIDIA-H200": "H200",
    "nvidia-h200-141gb": "H200",
    "NVIDIA-GeForce-RTX-4090": "RTX 4090",
    "NVIDIA-RTX-A6000": "RTX A6000",
    "NVIDIA-RTX-6000-Ada-Generation": "RTX 6000 Ada",
    "Tesla-V100-SXM2-16GB": "V100 16 GB",
    "Tesla-V100-SXM2-32GB": "V100 32 GB",
    "NVIDIA-B200": "B200",
    "910B4": "Ascend 910B",
    "AMD_Instinct_MI300X_OAM": "MI300X",
    "AMD_Instinct_MI210": "MI210",
}


@pytest.mark.parametrize("label", LABELS)
def test_a_label_of_a_node_names_its_device(label: str) -> None:
    found = find_device(["us-central1-a", label])
    assert found is not None
    assert found.name == LABELS[label]


def test_other_labels_name_no_device() -> None:
    assert find_device(["gpu", "zone-b", "amd64", "linux"]) is None


def test_devices_have_names_of_their_own_and_plausible_figures() -> None:
    assert len({each.name for each in DEVICES}) == len(DEVICES)
    for each in DEVICES:
        assert 50 < each.teraflops < 5000
        assert 10 < each.memory_gib < 300
        assert each.source.startswith("https://")


def test_the_smallest_device_that_holds_the_memory_is_found() -> None:
    found = smallest_that_fits(Accelerator.NVIDIA, 23 * GIB)
    assert found is not None
    assert found.memory_gib == 24
    least = smallest_that_fits(Accelerator.NVIDIA, GIB)
    assert least is not None
    assert least.name == "L4"
    assert smallest_that_fits(Accelerator.NVIDIA, 1000 * GIB) is None


@pytest.mark.parametrize(
    ("profile", "mebibytes"),
    [("mig-1g.5gb", 4864), ("mig-3g.20gb", 19968), ("mig-3g.40gb", 40192), ("mig-7g.80gb", 81152)],
)
def test_the_memory_of_a_mig_partition_is_not_overestimated(profile: str, mebibytes: int) -> None:
    assert 0.94 * mebibytes <= partition_bytes(profile) / 2**20 <= mebibytes
