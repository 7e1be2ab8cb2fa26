"""The table shows the figures of a single race, and median and range of several."""

from tests.bench.scale.race import Result
from tests.bench.scale.table import TRAINER, TUNESMITH, race_table, summary


def result(name: str, jobs: float) -> Result:
    return Result(
        name=name,
        count=10,
        accepted=1.0,
        jobs=jobs,
        finished=50.0,
        delays=[1.0, 2.0],
        reads=20,
        writes=39,
        events=30,
        cpu=1.5,
        rss=100.0,
        plane_cpu={"etcd": 1.0, "kube-apiserver": 2.0},
    )


def test_several_values_are_summed_up_as_median_and_range() -> None:
    assert summary([3.0, 1.0, 2.0], 1) == "2.0 (1.0-3.0)"
    assert summary([3.0], 1) == "3.0"


def test_a_single_race_has_a_column_for_each_contestant() -> None:
    lines = list(race_table([[result("plain Jobs", 6), result(TUNESMITH, 35)]]))
    [exists] = [line for line in lines if line.startswith("every child Job exists")]
    assert exists.split()[-2:] == ["6", "35"]
    assert not [line for line in lines if "share" in line]


def test_the_share_of_the_time_of_trainer_is_that_of_each_race() -> None:
    races = [[result(TRAINER, 100), result(TUNESMITH, 40)], [result(TRAINER, 50), result(TUNESMITH, 10)]]
    [share] = [line for line in race_table(races) if "share" in line]
    assert share.endswith("0.30 (0.20-0.40)")
