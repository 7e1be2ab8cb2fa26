"""What streams and lists tell of children, in whatever order it arrives."""

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
    return {"metadata": {**metadata, "managedFields": [{"manager": "kubelet"}]}, "status": {"seen": version}}


def seen(children: ChildCache) -> dict[str, int] | None:
    there = children.of_kind(KEY, "Pod")
    return None if there is None else {thing["metadata"]["name"]: thing["status"]["seen"] for thing in there}


def streaming(version: int = 1) -> ChildCache:
    children = ChildCache()
    children.on_stream_start("Pod", None, str(version))
    children.open(KEY, "ours")
    return children


@given(
    history=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12),
    begun=st.integers(0, 12),
    late=st.integers(0, 12),
    data=st.data(),
)
def test_a_list_and_the_events_since_the_start_of_the_stream_give_the_current_state(
    history: list[tuple[str, bool]], begun: int, late: int, data: st.DataObject
) -> None:
    """`history`: at each version, one pod is written or (True) deleted. The list is of any version not older than where
    the stream began, and arrives before or after any of the events."""
    states: list[dict[str, int]] = [{}]
    for version, (name, gone) in enumerate(history, start=1):
        after = {other: number for other, number in states[-1].items() if other != name}
        states.append(after if gone else {**after, name: version})
    start = min(begun, len(history))
    listed = data.draw(st.integers(start, len(history)), "version of the list")
    children = streaming(start)
    for version, (name, gone) in enumerate(history, start=1):
        if version == start + 1 + late:
            children.add_listed(KEY, "Pod", [pod(other, number) for other, number in states[listed].items()])
        if version > start:
            children.on_event(KEY, "Pod", pod(name, version), gone)
    children.add_listed(KEY, "Pod", [pod(other, number) for other, number in states[listed].items()])
    assert seen(children) == states[-1]


def test_children_are_unknown_until_they_are_listed() -> None:
    children = streaming()
    children.on_event(KEY, "Pod", pod("a", 2), deleted=False)
    assert seen(children) is None
    children.add_listed(KEY, "Pod", [])
    assert seen(children) == {"a": 2}
    assert children.of_kind(KEY, "Job") is None


def test_a_kind_without_a_stream_is_listed_each_time() -> None:
    children = streaming()
    assert children.add_listed(KEY, "ControllerRevision", [pod("a", 1)]) == [pod("a", 1)]
    assert children.of_kind(KEY, "ControllerRevision") is None


def test_a_gap_in_a_stream_invalidates_the_cache_and_lists_under_way() -> None:
    for version in ("9", None):
        children = streaming()
        children.on_stream_start("Pod", None, version)
        assert children.add_listed(KEY, "Pod", [pod("a", 1)]) == [pod("a", 1)]
        assert seen(children) is None
        assert children.stream_version("Pod", "team") == version


def test_children_of_a_deleted_resource_of_the_same_name_are_not_cached() -> None:
    children = streaming()
    children.add_listed(KEY, "Pod", [])
    children.on_event(KEY, "Pod", pod("a", 2, uid="former"), deleted=False)
    assert seen(children) == {}
    children.open(KEY, "next")
    assert seen(children) is None


def test_a_resource_created_while_we_watch_has_no_children_until_an_event_shows_one() -> None:
    children = streaming()
    children.add_new_resource(KEY, "ours")
    assert (seen(children), children.may_be_stale(KEY)) == ({}, False)
    children.on_event(KEY, "Pod", pod("a", 2), deleted=False)
    assert (seen(children), children.may_be_stale(KEY)) == ({"a": 2}, True)
    children.on_stream_start("Pod", None, "3")
    assert (seen(children), children.may_be_stale(KEY)) == (None, False)


def test_an_event_is_relevant_if_it_could_change_a_plan() -> None:
    children = streaming()
    first, second, third = pod("a", 2), pod("a", 3), pod("a", 4)
    first["status"] = second["status"] = {"conditions": [{"type": "PodScheduled", "status": "True"}]}
    assert children.on_event(KEY, "Pod", first, deleted=False)
    assert not children.on_event(KEY, "Pod", second, deleted=False)
    assert children.on_event(KEY, "Pod", third, deleted=True)
    children.invalidate(KEY)
    assert children.on_event(KEY, "Pod", third, deleted=True)


def test_a_stream_of_one_namespace_does_not_cover_others() -> None:
    children = ChildCache()
    children.on_stream_start("Pod", "team", "1")
    assert children.stream_version("Pod", "team") == "1"
    assert children.stream_version("Pod", "others") is None


def test_managed_fields_are_not_cached() -> None:
    children = streaming()
    children.add_listed(KEY, "Pod", [pod("a", 1)])
    assert all("managedFields" not in thing["metadata"] for thing in children.of_kind(KEY, "Pod") or ())
