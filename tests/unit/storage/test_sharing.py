"""How slots are shared out, against the plain way: one slot after the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.state.store import Hold, SlotsWanted
from qwen_proxy.storage.sharing import Claim, share, shared_out


@pytest.mark.parametrize(
    ("free", "extra", "processes", "granted"),
    [
        (10, 4, 1, 4),
        (10, 40, 1, 10),
        (10, 40, 0, 10),  # nobody has joined: who asks is alone
        (10, 40, 2, 3),
        (10, 2, 2, 2),
        (10, 40, 6, 0),
        (11, 40, 6, 1),
        (0, 5, 1, 0),
        (-3, 5, 1, 0),
        (10, 0, 1, 0),
        (10, -1, 1, 0),
    ],
)
def test_extra_comes_out_of_plenty(free: int, extra: int, processes: int, granted: int) -> None:
    assert share(free, extra, processes) == granted


def one_by_one(taken: dict[str, int], wanted: SlotsWanted, count: int) -> dict[str, int]:
    granted: dict[str, int] = {}
    for _ in range(count):
        free = [name for name in wanted.names if taken[name] + granted.get(name, 0) < wanted.capacity]
        name = min(free, key=lambda name: taken[name] + granted.get(name, 0)) if wanted.is_spread else free[0]
        granted[name] = granted.get(name, 0) + 1
    return granted


@given(
    taken=st.lists(st.integers(0, 7), max_size=6),
    capacity=st.integers(0, 6),
    need=st.integers(0, 20),
    extra=st.integers(0, 20),
    is_spread=st.booleans(),
    processes=st.integers(0, 4),
)
def test_it_is_as_one_slot_after_the_other(
    taken: list[int], capacity: int, need: int, extra: int, is_spread: bool, processes: int
) -> None:
    names = tuple("abcdef"[: len(taken)])
    claims = [Claim(name, count) for name, count in zip(names, taken, strict=True)]
    wanted = SlotsWanted(names=names, capacity=capacity, need=need, extra=extra, is_spread=is_spread)
    free = sum(max(0, capacity - count) for count in taken)
    count = min(need, free)
    count += share(free - count, extra, processes)

    holds = shared_out(claims, wanted, processes)

    expected = one_by_one(dict(zip(names, taken, strict=True)), wanted, count)
    assert holds == tuple(Hold(name, expected[name]) for name in names if name in expected)
