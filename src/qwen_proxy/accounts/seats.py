"""The accounts of a pool, in the order in which they are to be taken."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from qwen_proxy.accounts.health import HEALTHY_EXIT, AccountHealth, ExitHealth
from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.ground.secret import Secret

HealthChange = Callable[[AccountHealth, ExitHealth], tuple[AccountHealth, ExitHealth]]


class Exit:
    """One way out, shared by its accounts. `trial_until` is Unix seconds; see `health.ExitState`.

    health: what holds here. kept, kept_version: what is written, 0 for nothing; unsaved: what is not yet (saving.py).
    """

    __slots__ = ("health", "is_saving", "kept", "kept_version", "name", "trial_until", "unsaved")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.health: ExitHealth = HEALTHY_EXIT
        self.kept: ExitHealth = HEALTHY_EXIT
        self.kept_version = 0
        self.unsaved: list[tuple[Seat, HealthChange]] = []
        self.is_saving = False
        self.trial_until = 0.0


class Seat:
    """An account's place in the pool: what changes about it while the program runs.

    account: with the exit that holds for it. in_use: by this process. held: the uses at a time that this process has
    borrowed, at `borrowed_at` (monotonic) the last of them; full_until: others have them all, it was said.
    health, kept: as with an exit.
    """

    __slots__ = (
        "account",
        "borrowed_at",
        "credential",
        "exit",
        "full_until",
        "has_own_exit",
        "health",
        "held",
        "in_use",
        "kept",
        "kept_version",
        "rejected",
        "version",
    )

    def __init__(self, account: Account, credential: Credential | None, health: AccountHealth, exit: Exit) -> None:
        self.account = account
        self.credential = credential
        self.has_own_exit = bool(account.exit)
        self.rejected: Secret | None = None  # a token that is not to be used again, also if it is read anew
        self.version = 0  # of the account's document
        self.health = health
        self.kept = health
        self.kept_version = 0
        self.exit = exit
        self.in_use = 0
        self.held = 0
        self.borrowed_at = 0.0
        self.full_until = 0.0


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
