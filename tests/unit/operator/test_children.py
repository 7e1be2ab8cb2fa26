"""The cache of children under events and lists in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesmith_operator.children import ChildCache
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.resources import ResourceKey

KEY = ResourceKey("FineTuneJob", "team", "support")
Event = tuple[Raw, bool]


def pod(name: str, version: int, uid: str = "ours") -> Raw:
    metadata = {"name": name, "resourceVersion": str(version), "labels": {"tunesmith.dev/uid": uid}}
    return {"metadata": {**metadata, "managedFields": [{"manager": "kubelet"}]}, "status": {"observed": version}}


def cached_versions(cache: ChildCache) -> dict[str, int] | None:
    there = cache.of_kind(KEY, "Pod")
    return None if there is None else {thing["metadata"]["name"]: thing["status"]["observed"] for thing in there}


def watched(version: int = 1) -> ChildCache:
    cache = ChildCache()
    cache.on_stream_start("Pod", None, str(version))
    cache.open(KEY, "ours")
    return cache


@given(
    history=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12),
    first_watched=st.integers(0, 12),
    late=st.integers(0, 12),
    data=st.data(),
)
def test_a_list_and_the_events_since_the_start_of_the_stream_give_the_current_state(
    history: list[tuple[str, bool]], first_watched: int, late: int, data: st.DataObject
) -> None:
    """`history`: at each version, one pod is written or (True) deleted. The list is of any version not older than where
    the stream began, and arrives before or after any of the events."""
    states: list[dict[str, int]] = [{}]
    for version, (name, deleted) in enumerate(history, start=1):
        after = {other: number for other, number in states[-1].items() if other != name}
        states.append(after if deleted else {**after, name: version})
    start = min(first_watched, len(history))
    listed = data.draw(st.integers(start, len(history)), "version of the list")
    cache = watched(start)
    for version, (name, deleted) in enumerate(history, start=1):
        if version == start + 1 + late:
            cache.add_listed(KEY, "Pod", [pod(other, number) for other, number in states[listed].items()])
        if version > start:
            cache.on_event(KEY, "Pod", pod(name, version), deleted)
    cache.add_listed(KEY, "Pod", [pod(other, number) for other, number in states[listed].items()])
    assert cached_versions(cache) == states[-1]


def test_children_are_unknown_until_they_are_listed() -> None:
    cache = watched()
    cache.on_event(KEY, "Pod", pod("a", 2), deleted=False)
    assert cached_versions(cache) is None
    cache.add_listed(KEY, "Pod", [])
    assert cached_versions(cache) == {"a": 2}
    assert cache.of_kind(KEY, "Job") is None


def test_a_kind_without_a_stream_is_listed_each_time() -> None:
    cache = watched()
    assert cache.add_listed(KEY, "ControllerRevision", [pod("a", 1)]) == [pod("a", 1)]
    assert cache.of_kind(KEY, "ControllerRevision") is None


def test_a_gap_in_a_stream_invalidates_the_cache_and_lists_under_way() -> None:
    for version in ("9", None):
        cache = watched()
        cache.on_stream_start("Pod", None, version)
        assert cache.add_listed(KEY, "Pod", [pod("a", 1)]) == [pod("a", 1)]
        assert cached_versions(cache) is None
        assert cache.stream_version("Pod", "team") == version


def test_children_of_a_deleted_resource_of_the_same_name_are_not_cached() -> None:
    cache = watched()
    cache.add_listed(KEY, "Pod", [])
    cache.on_event(KEY, "Pod", pod("a", 2, uid="former"), deleted=False)
    assert cached_versions(cache) == {}
    cache.open(KEY, "next")
    assert cached_versions(cache) is None


def test_a_resource_created_while_we_watch_has_no_children_until_an_event_shows_one() -> None:
    cache = watched()
    cache.add_new_resource(KEY, "ours")
    assert (cached_versions(cache), cache.may_be_stale(KEY)) == ({}, False)
    cache.on_event(KEY, "Pod", pod("a", 2), deleted=False)
    assert (cached_versions(cache), cache.may_be_stale(KEY)) == ({"a": 2}, True)
    cache.on_stream_start("Pod", None, "3")
    assert (cached_versions(cache), cache.may_be_stale(KEY)) == (None, False)


def test_an_event_is_relevant_if_it_could_change_a_plan() -> None:
    cache = watched()
    first, second, third = pod("a", 2), pod("a", 3), pod("a", 4)
    first["status"] = second["status"] = {"conditions": [{"type": "PodScheduled", "status": "True"}]}
    assert cache.on_event(KEY, "Pod", first, deleted=False)
    assert not cache.on_event(KEY, "Pod", second, deleted=False)
    assert cache.on_event(KEY, "Pod", third, deleted=True)
    cache.invalidate(KEY)
    assert cache.on_event(KEY, "Pod", third, deleted=True)


def test_a_stream_of_one_namespace_does_not_cover_others() -> None:
    cache = ChildCache()
    cache.on_stream_start("Pod", "team", "1")
    assert cache.stream_version("Pod", "team") == "1"
    assert cache.stream_version("Pod", "others") is None


def test_managed_fields_are_not_cached() -> None:
    cache = watched()
    cache.add_listed(KEY, "Pod", [pod("a", 1)])
    assert all("managedFields" not in thing["metadata"] for thing in cache.of_kind(KEY, "Pod") or ())
