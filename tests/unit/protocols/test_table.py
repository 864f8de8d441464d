"""The tables of client protocols."""

from itertools import groupby

from qwen_proxy.config.keys import ENDPOINTS
from qwen_proxy.protocols.table import AREAS, COUNTERS, FIXED, KEY_IN_QUERY, MODEL_LISTS, PROTOCOLS, REFUSED, SHOWN


def test_names_and_paths_are_each_there_once():
    asked = (*PROTOCOLS, *COUNTERS)
    assert len({route.name for route in asked}) == len(asked)
    assert len({(route.path, getattr(route, "query", "")) for route in asked}) == len(asked)
    posted = {route.path for route in asked} | {route.path for route in (*SHOWN, *REFUSED)}
    assert len(posted) == len({route.path for route in asked}) + len(SHOWN) + len(REFUSED)
    assert all(path.startswith("/") for path in posted | {route.path for route in (*MODEL_LISTS, *FIXED)})


def test_keys_can_be_limited_to_every_route():
    assert {route.word for route in (*PROTOCOLS, *COUNTERS, *FIXED, *REFUSED)} <= set(ENDPOINTS)


def test_of_the_protocols_at_one_path_only_the_last_is_for_every_query():
    groups = [list(group) for _, group in groupby(PROTOCOLS, lambda route: route.path)]
    assert len({group[0].path for group in groups}) == len(groups)
    for group in groups:
        assert [not route.query for route in group] == [False] * (len(group) - 1) + [True]


def test_of_the_lists_at_one_path_only_the_last_is_for_everybody():
    groups = [list(group) for _, group in groupby(MODEL_LISTS, lambda route: route.path)]
    assert len({group[0].path for group in groups}) == len(groups)
    for group in groups:
        assert [not route.header for route in group] == [False] * (len(group) - 1) + [True]
        assert len({route.one_path for route in group}) == 1


def test_a_path_that_is_not_served_is_of_the_protocol_whose_paths_stand_around_it():
    def area(path: str) -> str | None:
        return next((type(area.dialect).__name__ for area in AREAS if area.has(path)), None)

    assert [area(path) for path in ("/v1/messages", "/v1/messages/batches")] == ["AnthropicModels"] * 2
    assert [area(path) for path in ("/v1beta", "/v1beta/files")] == ["GeminiModels"] * 2
    assert [area(path) for path in ("/api", "/api/pull")] == ["OllamaModels"] * 2
    assert [area(path) for path in ("/v1/nothing", "/v1/messagesx", "/apis")] == [None] * 3


def test_a_key_may_stand_in_the_query_of_geminis_paths_alone():
    for route in PROTOCOLS:
        for path in filter(None, (route.path, route.also)):
            assert path.startswith(KEY_IN_QUERY) == (route.word == "gemini")
