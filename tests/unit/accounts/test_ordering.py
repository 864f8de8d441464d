"""The order in which accounts are taken, against the plain rule over all of them."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from qwen_proxy.accounts.affinity import SessionReport
from qwen_proxy.accounts.health import HEALTHY, AccountHealth, ExitHealth, Obstacle, Rest, choose, hindrance
from qwen_proxy.accounts.model import Account, Credential, Feature
from qwen_proxy.accounts.ordering import Order
from qwen_proxy.accounts.seats import Exit, Seat
from qwen_proxy.config.choices import Strategy
from qwen_proxy.ground.secret import Secret

NOW = 1_800_000_000.0
CHAT, IMAGE = Feature.CHAT, Feature.IMAGE
LIMIT = 2


def account(name: str, *, weight: float = 1.0, priority: int = 0, exit: str = "", added_at: float = 0.0) -> Account:
    return Account(id=name, email=name, weight=weight, priority=priority, exit=exit, added_at=added_at)


def seat(account: Account, exit: Exit | None = None) -> Seat:
    made = Seat(account, Credential(account_id=account.id, token=Secret("t")), HEALTHY, exit or Exit(account.exit))
    made.held = LIMIT
    return made


def seats(names: Iterable[str]) -> list[Seat]:
    return [seat(account(name)) for name in names]


def taken(order: Order, count: int, *, feature: Feature = CHAT, limit: int = LIMIT, session: str = "") -> str:
    """Take so many, and return each at once."""
    found = ""
    for _ in range(count):
        chosen = order.choose(feature, NOW, limit, session=session)
        assert chosen is not None
        order.take(chosen, session)
        order.give_back(chosen)
        found += chosen.account.id
    return found


def held(order: Order, count: int, *, limit: int = LIMIT) -> str:
    """Take so many, and keep them."""
    found = ""
    for _ in range(count):
        chosen = order.choose(CHAT, NOW, limit)
        if chosen is None:
            return found + "-"
        order.take(chosen)
        found += chosen.account.id
    return found


# --- strategies --------------------------------------------------------------------------------------------


def test_the_least_loaded_then_the_longest_unused_is_taken() -> None:
    order = Order(Strategy.LEAST_LOADED, seats("cab"))
    assert taken(order, 4) == "abca"
    assert held(order, 4) == "bcab"
    first = order.get("c")
    assert first is not None
    order.give_back(first)
    assert held(order, 3) == "cac"


def test_accounts_take_turns_whatever_their_load_with_round_robin() -> None:
    order = Order(Strategy.ROUND_ROBIN, seats("abc"))
    assert held(order, 2, limit=0) == "ab"
    second = order.get("b")
    assert second is not None
    order.give_back(second)
    assert held(order, 5, limit=0) == "cabca"


def test_the_one_added_first_is_filled_first() -> None:
    order = Order(
        Strategy.FILL_FIRST, [seat(account("a", added_at=7)), seat(account("b", added_at=5)), seat(account("c"))]
    )
    assert taken(order, 3) == "ccc"
    assert held(order, 7) == "ccbbaa-"
    last = order.get("b")
    assert last is not None
    order.give_back(last)
    assert held(order, 1) == "b"


def test_weights_share_out_smoothly() -> None:
    order = Order(Strategy.WEIGHTED, [seat(account("a", weight=5)), *seats("bc")])
    found = taken(order, 70)
    assert Counter(found) == {"a": 50, "b": 10, "c": 10}
    for start in range(0, 70, 7):
        assert Counter(found[start : start + 7]) == {"a": 5, "b": 1, "c": 1}
    assert "aaaaa" not in found[:5]


def test_time_off_gives_no_claim_to_more_afterwards() -> None:
    order = Order(Strategy.WEIGHTED, seats("ab"))
    resting = order.get("a")
    assert resting is not None
    resting.health = AccountHealth(challenge=Rest(NOW + 60))
    assert taken(order, 20) == "b" * 20
    resting.health = HEALTHY
    assert Counter(taken(order, 20)) == {"a": 10, "b": 10}


def test_a_newcomer_takes_its_share_and_no_more() -> None:
    order = Order(Strategy.WEIGHTED, seats("ab"))
    taken(order, 40)
    order.add(seat(account("c", weight=2)))
    assert Counter(taken(order, 40)) == pytest.approx({"a": 10, "b": 10, "c": 20}, abs=1)


def test_a_weight_of_nothing_stops_nobody() -> None:
    order = Order(Strategy.WEIGHTED, [seat(account("a", weight=0)), *seats("b")])
    assert Counter(taken(order, 50))["b"] >= 49
    assert taken(Order(Strategy.SESSION, [seat(account("a", weight=0))]), 1, session="s") == "a"


@pytest.mark.parametrize("strategy", Strategy)
def test_a_lower_priority_is_for_when_the_higher_is_exhausted(strategy: Strategy) -> None:
    order = Order(strategy, [seat(account(name, priority=name.isupper())) for name in "aBcD"])
    for session in ("", "one", "two"):
        assert set(taken(order, 8, session=session)) <= {"B", "D"}
    assert sorted(held(order, 9)) == sorted("BBDDaacc-")


@pytest.mark.parametrize("strategy", Strategy)
def test_priority_and_weight_can_be_edited(strategy: Strategy) -> None:
    order = Order(strategy, seats("ab"))
    held(order, 1)
    last = order.get("b")
    assert last is not None
    last.account = replace(last.account, priority=1)
    assert taken(order, 4, session="s") == "bbbb"
    last.account = replace(last.account, enabled=False)
    assert taken(order, 2, session="s") == "aa"


def test_the_strategy_can_be_changed_while_accounts_are_in_use() -> None:
    order = Order(Strategy.FILL_FIRST, seats("abc"))
    assert held(order, 3) == "aab"
    order.use(Strategy.LEAST_LOADED)
    assert held(order, 2) == "cb"
    order.use(Strategy.LEAST_LOADED)
    order.use(Strategy.WEIGHTED)
    assert held(order, 2) == "c-"


def test_shares_by_weight_begin_anew_when_the_strategy_changes() -> None:
    order = Order(Strategy.LEAST_LOADED, [seat(account("a", weight=4)), *seats("b")])
    taken(order, 100)
    order.use(Strategy.WEIGHTED)
    assert Counter(taken(order, 10)) == {"a": 8, "b": 2}


# --- who can't be taken ------------------------------------------------------------------------------------


def test_features_rest_apart() -> None:
    order = Order(Strategy.FILL_FIRST, seats("ab"))
    first = order.get("a")
    assert first is not None
    first.health = AccountHealth(parked={IMAGE: Rest(NOW + 60)})
    assert taken(order, 1, feature=IMAGE) + taken(order, 1) == "ba"
    assert order.choose(IMAGE, NOW + 60, LIMIT) is first


def test_one_that_lacks_uses_is_told_as_lacking_until_it_gets_some() -> None:
    order = Order(Strategy.LEAST_LOADED, seats("abc"))
    resting = order.get("c")
    assert resting is not None
    resting.health = AccountHealth(challenge=Rest(NOW + 60))
    assert [each.account.id for each in order.lacking(CHAT, NOW, LIMIT)] == []
    assert held(order, 5) == "abab-"
    assert [each.account.id for each in order.lacking(CHAT, NOW, LIMIT)] == ["a", "b"]
    assert [each.account.id for each in order.lacking(CHAT, NOW + 60, LIMIT)] == ["a", "b"]
    assert order.choose(CHAT, NOW + 60, LIMIT) is resting


def test_one_that_lacks_uses_is_no_more_told_once_its_exit_rests() -> None:
    order = Order(Strategy.LEAST_LOADED, seats("ab"))
    assert held(order, 5) == "abab-"
    first = order.get("a")
    assert first is not None
    first.exit.health = ExitHealth(unreachable=Rest(NOW + 60))
    assert [each.account.id for each in order.lacking(CHAT, NOW, LIMIT)] == ["b"]
    first.exit.health = ExitHealth()
    assert [each.account.id for each in order.lacking(CHAT, NOW, LIMIT)] == ["a", "b"]


def test_another_limit_holds_at_once() -> None:
    order = Order(Strategy.LEAST_LOADED, seats("a"))
    assert held(order, 3) == "aa-"
    assert held(order, 1, limit=0) == "a"
    assert held(order, 1) == "-"


def test_one_that_was_removed_while_in_use_is_not_taken_again() -> None:
    order = Order(Strategy.LEAST_LOADED, seats("ab"))
    chosen = order.get("a")
    assert chosen is not None
    order.take(chosen)
    order.remove("a")
    order.take(chosen)
    order.give_back(chosen)
    chosen.health = HEALTHY
    chosen.account = replace(chosen.account, priority=9)
    assert (chosen.in_use, len(order), list(order), order.get("a")) == (1, 1, [order.get("b")], None)
    assert taken(order, 2) == "bb"


def test_one_removed_while_its_exit_rests_does_not_come_back_with_it() -> None:
    exit = Exit("http://proxy")
    order = Order(Strategy.LEAST_LOADED, [seat(account("a"), exit), seat(account("b"), exit)])
    exit.health = ExitHealth(unreachable=Rest(NOW + 60))
    assert held(order, 1) == "-"
    order.remove("a")
    exit.health = ExitHealth()
    assert held(order, 3) == "bb-"


def test_looks_at_what_rests_are_not_repeated() -> None:
    """A thousand of them cost a look each, once, though two thousand changes of others come between."""
    looks = Counter[str]()

    class Watched(Seat):
        @property
        def health(self) -> AccountHealth:
            looks[self.account.id] += 1
            return super().health

        @health.setter
        def health(self, health: AccountHealth) -> None:
            Seat.health.__set__(self, health)

    parked = AccountHealth(parked={CHAT: Rest(NOW + 60)})
    resting = [
        Watched(account(f"r{i}"), Credential(account_id="r", token=Secret("t")), parked, Exit("")) for i in range(1000)
    ]
    order = Order(Strategy.LEAST_LOADED, [*resting, *seats("ab")])
    looks.clear()
    assert Counter(taken(order, 1000)) == {"a": 500, "b": 500}
    assert set(looks.values()) <= {1, 2}  # `hindrance` reads it once or twice a look


def test_what_woke_before_its_time_leaves_nothing_behind() -> None:
    order = Order(Strategy.LEAST_LOADED, seats("ab"))
    first = order.get("a")
    assert first is not None
    for again in range(200):
        first.health = AccountHealth(challenge=Rest(NOW + 60 + again))
        assert taken(order, 1) == "b"
    assert order.choose(CHAT, NOW + 258, LIMIT) is order.get("b")
    assert order.choose(CHAT, NOW + 259, LIMIT) is first


def test_an_account_given_another_exit_is_looked_at_again() -> None:
    resting = Exit("http://proxy")
    resting.health = ExitHealth(challenge=Rest(NOW + 60, 1))
    order = Order(Strategy.LEAST_LOADED, [seat(account("a"), resting)])
    assert held(order, 1) == "-"
    moved = order.get("a")
    assert moved is not None
    moved.exit = Exit("")
    assert held(order, 1) == "a"


# --- sessions ----------------------------------------------------------------------------------------------


def ids(found: Iterable[Seat]) -> str:
    return "".join(each.account.id for each in found)


def test_a_session_keeps_its_account_and_escapes_only_while_that_rests() -> None:
    order = Order(Strategy.SESSION, seats("abcdef"))
    own, following, *_ = ids(order.preferred("s"))
    assert taken(order, 5, session="s") == own * 5
    resting = order.get(own)
    assert resting is not None
    resting.health = AccountHealth(challenge=Rest(NOW + 60))
    assert taken(order, 3, session="s") == following * 3
    resting.health = HEALTHY
    assert taken(order, 2, session="s") == own * 2
    order.remove(own)
    assert taken(order, 2, session="s") == following * 2
    assert order.sessions.report() == SessionReport(hits=9, escapes=3, sessions=1)


def test_without_a_session_no_account_is_preferred() -> None:
    order = Order(Strategy.SESSION, seats("abcdef"))
    assert Counter(taken(order, 60)) == dict.fromkeys("abcdef", 10)
    assert order.sessions.report() == SessionReport(hits=0, escapes=0, sessions=0)


def test_sessions_matter_to_no_other_strategy() -> None:
    order = Order(Strategy.LEAST_LOADED, seats("abc"))
    assert taken(order, 3, session="s") == "abc"
    assert list(order.preferred("s")) == []
    assert order.own("s", CHAT, NOW, LIMIT) is None
    order.use(Strategy.SESSION)
    assert len(set(taken(order, 5, session="s"))) == 1


def test_a_session_retries_elsewhere() -> None:
    order = Order(Strategy.SESSION, seats("abc"))
    own, following, _ = ids(order.preferred("s"))
    chosen = order.choose(CHAT, NOW, LIMIT, {own}, session="s")
    assert chosen is order.get(following)
    only = Order(Strategy.SESSION, seats("a"))
    assert only.choose(CHAT, NOW, LIMIT, {"a"}, session="s") is only.get("a")


def test_the_account_of_a_session_is_the_next_that_lacks_uses_at_most() -> None:
    order = Order(Strategy.SESSION, seats("abc"))
    first, second, third = order.preferred("s")
    first.health = AccountHealth(challenge=Rest(NOW + 60))
    order.take(second)
    order.take(second)
    assert order.own("s", CHAT, NOW, LIMIT) is second
    chosen = order.choose(CHAT, NOW, LIMIT, session="s")
    assert chosen is third
    second.health = third.health = first.health
    assert order.own("s", CHAT, NOW, LIMIT) is None
    assert order.choose(CHAT, NOW, LIMIT, session="s") is None


# --- against the plain rule --------------------------------------------------------------------------------

EXITS = ("", "http://one", "http://two")
RESTS = st.builds(Rest, st.sampled_from([0.0, NOW + 5, NOW + 20, NOW + 50]), st.integers(0, 1))
HEALTHS = st.builds(
    AccountHealth,
    parked=st.dictionaries(st.sampled_from([CHAT, IMAGE]), RESTS, max_size=2),
    challenge=RESTS,
    failing=RESTS,
)
EXIT_HEALTHS = st.builds(ExitHealth, challenge=RESTS, unreachable=RESTS)
NAMES = st.sampled_from("abcdefgh")


class AgainstTheRule(RuleBasedStateMachine):
    """Any course of changes; after each, what is chosen is what `choose` says of all accounts in plain order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.limit = LIMIT
        self.strategy = Strategy.LEAST_LOADED
        self.order = Order(self.strategy)
        self.exits = {name: Exit(name) for name in EXITS}
        self.seats: dict[str, Seat] = {}
        self.out: list[Seat] = []
        self.uses = 0
        self.used: dict[str, int] = {}
        self.taken: dict[str, int] = {}

    @rule(name=NAMES, exit=st.sampled_from(EXITS), weight=st.sampled_from([0.5, 1.0, 3.0]), priority=st.integers(0, 2))
    def add(self, name: str, exit: str, weight: float, priority: int) -> None:
        if name in self.seats:
            self.seats[name].account = account(name, exit=exit, weight=weight, priority=priority)
            self.seats[name].exit = self.exits[exit]
        else:
            made = seat(account(name, exit=exit, weight=weight, priority=priority), self.exits[exit])
            self.seats[name] = made
            self.order.add(made)
            self._use(name, self.used, self.taken)

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.seats)))
        self.order.remove(name)
        del self.seats[name]

    @rule(name=NAMES, health=HEALTHS, held=st.integers(0, 3), enabled=st.booleans(), has_token=st.booleans())
    def change(self, name: str, health: AccountHealth, held: int, enabled: bool, has_token: bool) -> None:
        if (each := self.seats.get(name)) is not None:
            each.health = health
            each.held = held
            each.account = replace(each.account, enabled=enabled)
            each.credential = Credential(account_id=name, token=Secret("t")) if has_token else None

    @rule(name=st.sampled_from(EXITS), health=EXIT_HEALTHS, trial_seconds=st.sampled_from([0.0, 10.0]))
    def change_exit(self, name: str, health: ExitHealth, trial_seconds: float) -> None:
        self.exits[name].health = health
        self.exits[name].trial_until = self.now + trial_seconds

    @rule(session=st.sampled_from(["", "one", "two"]))
    def take(self, session: str) -> None:
        chosen = self.order.choose(CHAT, self.now, self.limit, session=session)
        if chosen is not None:
            self.order.take(chosen)
            self.out.append(chosen)
            self._use(chosen.account.id, self.used, self.taken)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        returned = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.order.give_back(returned)
        if self.seats.get(returned.account.id) is returned:
            self._use(returned.account.id, self.used)

    @rule(seconds=st.sampled_from([1.0, 7.0, -3.0]))
    def wait(self, seconds: float) -> None:
        """The clock of a machine may be set back, too."""
        self.now += seconds

    @rule(strategy=st.sampled_from([each for each in Strategy if each is not Strategy.WEIGHTED]))
    def use(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.order.use(strategy)

    @rule(limit=st.integers(0, 2))
    def set_limit(self, limit: int) -> None:
        self.limit = limit

    def _use(self, name: str, *numbers: dict[str, int]) -> None:
        self.uses += 1
        for each in numbers:
            each[name] = self.uses

    def _plain(self) -> list[Seat]:
        def rank(each: Seat) -> tuple[float, ...]:
            name = each.account.id
            match self.strategy:
                case Strategy.ROUND_ROBIN:
                    by = (self.taken[name],)
                case Strategy.FILL_FIRST:
                    by = (ord(name),)
                case _:
                    by = (each.in_use, self.used[name])
            return (-each.account.priority, *by)

        return sorted(self.seats.values(), key=rank)

    def _near(self, feature: Feature, avoided: set[str], exits: set[str], session: str) -> Seat | None:
        """The plain rule, with a session: its ring in the highest priority that has anybody."""
        plain = self._plain()
        best = choose(plain, feature, self.now, self.limit)
        if session and self.strategy is Strategy.SESSION and best is not None:
            for each in self.order.preferred(session):
                usable = hindrance(each, feature, self.now, self.limit) is None
                failing = each.health.failing.until > self.now
                is_avoided = each.account.id in avoided or each.account.exit in exits
                if each.account.priority == best.account.priority and usable and not failing and not is_avoided:
                    return each
        return choose(plain, feature, self.now, self.limit, avoided, exits)

    @invariant()
    def chooses_as_the_rule_does(self) -> None:
        some = set(sorted(self.seats)[::2])
        for feature in (CHAT, IMAGE):
            for avoided, exits in ((set[str](), set[str]()), (some, set[str]()), (set[str](), {EXITS[1]})):
                for session in ("", "one", "three"):
                    found = self.order.choose(feature, self.now, self.limit, avoided, exits, session)
                    assert found is self._near(feature, avoided, exits, session)

    @invariant()
    def tells_who_lacks_uses(self) -> None:
        lacking = [
            each
            for each in self._plain()
            if (found := hindrance(each, CHAT, self.now, self.limit)) is not None and found.obstacle is Obstacle.BUSY
        ]
        assert _ids(self.order.lacking(CHAT, self.now, self.limit)) == _ids(lacking)
        assert sorted(_ids(self.order)) == sorted(self.seats)


def _ids(found: Iterable[Seat]) -> Sequence[str]:
    return [each.account.id for each in found]


AgainstTheRule.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAgainstTheRule = AgainstTheRule.TestCase
