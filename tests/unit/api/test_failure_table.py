"""The failure table is complete, and an exit code identifies its class."""

from __future__ import annotations

from tunesmith_api.failures import BY_EXIT_CODE, FAILURES, FailureClass, Retry


def test_every_class_has_a_row_with_a_hint() -> None:
    assert set(FAILURES) == set(FailureClass)
    assert all(len(row.hint) > 10 for row in FAILURES.values())


def test_an_exit_code_names_one_class() -> None:
    codes = [row.exit_code for row in FAILURES.values() if row.exit_code is not None]
    assert len(codes) == len(set(codes))
    assert all(FAILURES[name].exit_code == code for code, name in BY_EXIT_CODE.items())
    assert set(codes) == set(BY_EXIT_CODE)


def test_exit_codes_differ_from_those_of_the_shell_and_of_signals() -> None:
    own = {
        code for code, name in BY_EXIT_CODE.items() if name not in {FailureClass.PROCESS_ERROR, FailureClass.OOM_KILLED}
    }
    assert all(64 <= code < 126 for code in own)


def test_a_failure_that_the_user_must_fix_is_not_retried() -> None:
    mended_by_the_user = {
        FailureClass.BAD_SPEC,
        FailureClass.BAD_ROW,
        FailureClass.EMPTY_DATASET,
        FailureClass.DATASET_NOT_FOUND,
        FailureClass.MODEL_NOT_FOUND,
        FailureClass.STORAGE_403,
        FailureClass.UNSAFE_WEIGHTS,
        FailureClass.BAD_MODEL,
        FailureClass.STORAGE_UNSUPPORTED,
        FailureClass.NOTHING_LEARNED,
        FailureClass.HUB_FORBIDDEN,
    }
    assert {FAILURES[name].retry for name in mended_by_the_user} == {Retry.NEVER}


def test_a_failure_to_start_a_pod_is_waited_out() -> None:
    assert {name for name, row in FAILURES.items() if row.retry is Retry.WAITS} == {
        FailureClass.UNSCHEDULABLE,
        FailureClass.VOLUME_UNAVAILABLE,
        FailureClass.IMAGE_PULL,
        FailureClass.QUOTA_EXCEEDED,
        FailureClass.POD_REFUSED,
        FailureClass.POD_START,
    }


def test_an_exit_code_never_changes_its_meaning() -> None:
    """Codes may be added but not changed, as images and scripts of others depend on them."""
    assert {code: str(name) for code, name in sorted(BY_EXIT_CODE.items())} == {
        1: "ProcessError",
        64: "BadSpec",
        65: "BadRow",
        66: "EmptyDataset",
        67: "DatasetNotFound",
        68: "ModelNotFound",
        69: "StorageUnreachable",
        71: "DeviceOutOfMemory",
        72: "UnsafeWeights",
        73: "DiskFull",
        74: "ChatTemplateMissing",
        75: "Preempted",
        77: "Storage403",
        79: "StorageTLS",
        80: "StorageCorrupt",
        81: "HubUnreachable",
        82: "MergeMismatch",
        83: "EngineFailed",
        84: "EvaluationFailed",
        85: "Diverged",
        86: "CollectiveFailed",
        87: "DeviceFailed",
        88: "SharedMemoryFull",
        89: "BadModel",
        90: "StorageUnsupported",
        91: "NothingLearned",
        92: "HubForbidden",
        93: "HubRateLimited",
        94: "HubCorrupt",
        95: "WillNotFit",
        96: "JudgeFailed",
        97: "RewardCodeFailed",
        98: "ReloadMismatch",
        137: "OOMKilled",
    }


def test_a_failure_of_the_cluster_counts_no_attempt() -> None:
    assert {
        FAILURES[name].retry
        for name in (FailureClass.PREEMPTED, FailureClass.EVICTED, FailureClass.NODE_LOST, FailureClass.NODE_REFUSED)
    } == {Retry.ALWAYS}
