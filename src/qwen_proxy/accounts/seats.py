"""The places of accounts in a pool, and of the exits they share."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from qwen_proxy.accounts.health import HEALTHY_EXIT, AccountHealth, ExitHealth
from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.ground.secret import Secret

HealthChange = Callable[[AccountHealth, ExitHealth], tuple[AccountHealth, ExitHealth]]


class Watcher(Protocol):
    """Who has to know when an account may be of use again: the order it stands in (ordering.py)."""

    def reordered(self, seat: "Seat") -> None:
        """Its account was edited."""
        ...

    def reconsidered(self, seat: "Seat") -> None:
        """What keeps it from being taken may have changed."""
        ...


class Exit:
    """One way out, shared by its accounts. `trial_until` is Unix seconds; see `health.ExitState`.

    health: what holds here. kept, kept_version: what is written, 0 for nothing; unsaved: what is not yet (saving.py).
    kept_back: the seats that were passed over because of this exit; they are looked at again when it changes.
    """

    __slots__ = ("_health", "_trial_until", "is_saving", "kept", "kept_back", "kept_version", "name", "unsaved")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self._health: ExitHealth = HEALTHY_EXIT
        self._trial_until = 0.0
        self.kept: ExitHealth = HEALTHY_EXIT
        self.kept_version = 0
        self.unsaved: list[tuple[Seat, HealthChange]] = []
        self.is_saving = False
        self.kept_back: Final[dict[Seat, None]] = {}

    @property
    def health(self) -> ExitHealth:
        return self._health

    @health.setter
    def health(self, health: ExitHealth) -> None:
        was, self._health = self._health, health
        if self.kept_back and (was.challenge != health.challenge or was.unreachable != health.unreachable):
            self._let_go()

    @property
    def trial_until(self) -> float:
        return self._trial_until

    @trial_until.setter
    def trial_until(self, until: float) -> None:
        self._trial_until = until
        self._let_go()

    def _let_go(self) -> None:
        seats = list(self.kept_back)
        self.kept_back.clear()
        for seat in seats:
            seat.reconsider()


class Seat:
    """An account's place in the pool: what changes about it while the program runs.

    account: with the exit that holds for it. in_use: by this process. held: the uses at a time that this process has
    borrowed, at `borrowed_at` (monotonic) the last of them; full_until: others have them all, it was said.
    health, kept: as with an exit. Where something is set that may let it be taken, its watcher hears of it.
    """

    __slots__ = (
        "_account",
        "_credential",
        "_exit",
        "_health",
        "_held",
        "borrowed_at",
        "full_until",
        "has_own_exit",
        "in_use",
        "kept",
        "kept_version",
        "rejected",
        "version",
        "watcher",
    )

    def __init__(self, account: Account, credential: Credential | None, health: AccountHealth, exit: Exit) -> None:
        self._account = account
        self._credential = credential
        self._exit = exit
        self._health = health
        self._held = 0
        self.watcher: Watcher | None = None
        self.has_own_exit = bool(account.exit)
        self.rejected: Secret | None = None  # a token that is not to be used again, also if it is read anew
        self.version = 0  # of the account's document
        self.kept = health
        self.kept_version = 0
        self.in_use = 0
        self.borrowed_at = 0.0
        self.full_until = 0.0

    @property
    def account(self) -> Account:
        return self._account

    @account.setter
    def account(self, account: Account) -> None:
        self._account = account
        if self.watcher is not None:
            self.watcher.reordered(self)

    @property
    def credential(self) -> Credential | None:
        return self._credential

    @credential.setter
    def credential(self, credential: Credential | None) -> None:
        self._credential = credential
        self.reconsider()

    @property
    def health(self) -> AccountHealth:
        return self._health

    @health.setter
    def health(self, health: AccountHealth) -> None:
        self._health = health
        self.reconsider()

    @property
    def exit(self) -> Exit:
        return self._exit

    @exit.setter
    def exit(self, exit: Exit) -> None:
        self._exit = exit
        self.reconsider()

    @property
    def held(self) -> int:
        return self._held

    @held.setter
    def held(self, held: int) -> None:
        self._held = held
        self.reconsider()

    def reconsider(self) -> None:
        """Look at it again before it is passed over."""
        if self.watcher is not None:
            self.watcher.reconsidered(self)


class Seats:
    """Iterating gives the preferred first: fewest uses now, then longest since last taken or returned, then id.

    One dict per number of uses, each in order of last use: taking and returning move a seat to the end of another,
    so no order is ever computed.
    """

    def __init__(self, seats: Iterable[Seat] = ()) -> None:
        ordered = sorted(seats, key=lambda seat: (seat.health.last_used_at, seat.account.id))
        self._by_load: list[dict[str, Seat]] = [{seat.account.id: seat for seat in ordered}]
        self._all = dict(self._by_load[0])
        self._lowest = 0  # no level below it holds anyone: with one busy account there would be hundreds to pass

    def __iter__(self) -> Iterator[Seat]:
        for level in self._by_load[self._lowest :]:
            yield from level.values()

    def get(self, account_id: str) -> Seat | None:
        return self._all.get(account_id)

    def add(self, seat: Seat) -> None:
        self._all[seat.account.id] = self._by_load[0][seat.account.id] = seat
        self._lowest = 0

    def remove(self, account_id: str) -> None:
        """Its leases may still be out; they end as they do."""
        seat = self._all.pop(account_id)
        del self._by_load[seat.in_use][account_id]

    def take(self, seat: Seat) -> None:
        self._move(seat, +1)

    def give_back(self, seat: Seat) -> None:
        self._move(seat, -1)

    def _move(self, seat: Seat, step: int) -> None:
        load = seat.in_use
        seat.in_use = load + step
        account_id = seat.account.id
        if self._all.get(account_id) is not seat:
            return  # removed while it was in use
        del self._by_load[load][account_id]
        if seat.in_use == len(self._by_load):
            self._by_load.append({})
        self._by_load[seat.in_use][account_id] = seat
        if seat.in_use < self._lowest or (load == self._lowest and not self._by_load[load]):
            self._lowest = seat.in_use
