"""What the site's own search is asked for."""

import pytest

from qwen_proxy.upstreams.qwen_web.queries import MOST_CHARACTERS, Queries


@pytest.mark.parametrize(
    "frames",
    [
        ['{"queries": ["a {b}", "c"]}'],
        ['{"queries": ["a {b}', '", "c"]}'],
        ['{"quer', '{"queries": ["a {b}"', '{"queries": ["a {b}", "c"]}'],
        [{"queries": ["a {b}", "c"]}],
        ['{"queries": ["a {b}", "", 7, "c", "c"]}', '{"queries": ["c"]}'],
    ],
)
def test_queries_come_in_increments_or_snapshots(frames: list[object]) -> None:
    queries = Queries()
    assert [query for frame in frames for query in queries.take(frame)] == ["a {b}", "c"]


def test_each_search_tells_what_is_new() -> None:
    queries = Queries()
    assert queries.take('{"queries": ["a"]}') == ("a",)
    assert queries.take('{"queries": ["a"]}') == ()
    assert queries.take('{"queries": ["a", ') == ()
    assert queries.take('"b"]}') == ("b",)


@pytest.mark.parametrize(
    "frame", [None, 7, "", "{}", "[1]}", '{"queries": 7}', '{"queries": []}', "x" * MOST_CHARACTERS + "}"]
)
def test_what_tells_nothing(frame: object) -> None:
    assert Queries().take(frame) == ()
