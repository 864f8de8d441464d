from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.ground.request_id import RANDOM_DIGITS, came_at, request_id


@given(st.floats(0, 2**32 - 1))
def test_it_tells_when_it_came(now: float):
    made = request_id(now, "0" * RANDOM_DIGITS)
    assert came_at(made) == int(now) and len(made) == len("req_") + 24


@given(st.text())
def test_of_another_nothing_is_known(text: str):
    assert came_at("req_not hexadecimal") == 0 and came_at("") == 0
    assert came_at(text) >= 0 or text.removeprefix("req_").startswith("-")
