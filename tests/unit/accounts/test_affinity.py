"""Which account a session belongs to."""

import subprocess
import sys
from collections import Counter

import pytest

from qwen_proxy.accounts.affinity import (
    MOST_SESSIONS,
    Ring,
    SessionCounts,
    SessionReport,
    account_points,
    session_point,
)

SESSIONS = [session_point(f"session {i}") for i in range(4000)]


def ring(*names: str, weight: float = 1.0) -> Ring:
    made = Ring()
    for name in names:
        made.put(name, weight)
    return made


def own(ring: Ring, point: int) -> str:
    return next(ring.walk(point))


def names(count: int) -> list[str]:
    return [f"account{i}@x.org" for i in range(count)]


def test_every_process_finds_the_same_account_whatever_its_hash_seed() -> None:
    program = (
        "from qwen_proxy.accounts.affinity import Ring, session_point as p\n"
        "r = Ring()\n"
        "for i in {order}: r.put(f'account{{i}}@x.org', 1.0 + i)\n"
        "print([next(r.walk(p(f'session {{i}}'))) for i in range(50)])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program.format(order=order)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed, order in (("1", "range(9)"), ("2", "reversed(range(9))"))
    }
    assert len(told) == 1
    assert len(set(told.pop().split(", "))) > 5


def test_only_the_sessions_of_a_newcomer_move() -> None:
    accounts = names(20)
    before = ring(*accounts)
    after = ring(*accounts, "new@x.org")
    moved = [point for point in SESSIONS if own(before, point) != own(after, point)]
    assert {own(after, point) for point in moved} == {"new@x.org"}
    assert len(moved) / len(SESSIONS) == pytest.approx(1 / 21, abs=0.025)


def test_the_sessions_of_one_that_leaves_go_to_the_next_on_their_ring_and_no_others_move() -> None:
    accounts = names(20)
    before = ring(*accounts)
    neighbours = [list(dict.fromkeys(before.walk(point))) for point in SESSIONS]
    before.remove(accounts[3])
    before.remove("nobody@x.org")
    for point, order in zip(SESSIONS, neighbours, strict=True):
        assert own(before, point) == (order[1] if order[0] == accounts[3] else order[0])
    assert len({order[1] for order in neighbours if order[0] == accounts[3]}) > 10  # not all on one


def test_a_walk_passes_everybody() -> None:
    accounts = names(50)
    assert set(ring(*accounts).walk(SESSIONS[0])) == set(accounts)
    assert list(ring().walk(SESSIONS[0])) == []
    assert list(ring("a").walk(2**64 - 1)) == ["a"] * 64


def test_accounts_get_sessions_by_weight() -> None:
    weighted = ring(*names(6))
    weighted.put("heavy@x.org", 3.0)
    share = Counter(own(weighted, point) for point in SESSIONS)["heavy@x.org"] / len(SESSIONS)
    assert share == pytest.approx(3 / 9, abs=0.06)
    weighted.put("heavy@x.org", 1.0)
    share = Counter(own(weighted, point) for point in SESSIONS)["heavy@x.org"] / len(SESSIONS)
    assert share == pytest.approx(1 / 7, abs=0.05)


@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_the_unit_in_which_weights_are_given_does_not_matter(unit: float) -> None:
    accounts = names(5)
    plain, scaled = ring(*accounts), ring(*accounts, weight=unit)
    spread = Counter(own(scaled, point) for point in SESSIONS)
    assert min(spread.values()) > len(SESSIONS) / 5 / 2
    assert 0 < len(list(scaled.walk(0))) <= 2 * len(list(plain.walk(0)))


def test_points_go_on_where_there_are_more_of_them() -> None:
    assert account_points("a", 100)[:7] == account_points("a", 7)
    assert account_points("a", 7) != account_points("b", 7)


def test_the_same_put_twice_changes_nothing() -> None:
    made = ring(*names(3))
    before = list(made.walk(0))
    made.put(names(3)[0], 1.0)
    assert list(made.walk(0)) == before
    assert len(made) == 3


def test_sessions_are_counted_and_no_more_remembered_than_is_said() -> None:
    counts = SessionCounts()
    counts.count("a", is_hit=True)
    counts.count("a", is_hit=False)
    counts.count("b", is_hit=True)
    assert counts.report() == SessionReport(hits=2, escapes=1, sessions=2)
    for i in range(MOST_SESSIONS + 5):
        counts.count(f"other {i}", is_hit=True)
    assert counts.report().sessions == MOST_SESSIONS
