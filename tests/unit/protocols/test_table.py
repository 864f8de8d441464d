"""The table of client protocols."""

from qwen_proxy.protocols.table import PROTOCOLS


def test_names_and_paths_are_each_there_once():
    assert len({route.name for route in PROTOCOLS}) == len(PROTOCOLS)
    assert len({route.path for route in PROTOCOLS}) == len(PROTOCOLS)
    assert all(route.path.startswith("/") for route in PROTOCOLS)
