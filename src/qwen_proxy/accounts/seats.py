"""The accounts of a pool, in the order in which they are to be taken."""

from collections.abc import Iterable, Iterator
from typing import Final

from qwen_proxy.accounts.health import HEALTHY_EXIT, AccountHealth, ExitHealth
from qwen_proxy.accounts.model import Account, Credential


class Exit:
    """One way out, shared by its accounts. `trial_until` is Unix seconds; see `health.ExitState`."""

    __slots__ = ("health", "name", "trial_until")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.health: ExitHealth = HEALTHY_EXIT
        self.trial_until = 0.0


class Seat:
    """An account's place in the pool: what changes about it while the program runs."""

    __slots__ = ("account", "credential", "exit", "health", "in_use")

    def __init__(self, account: Account, credential: Credential | None, health: AccountHealth, exit: Exit) -> None:
        self.account = account
        self.credential = credential
        self.health = health
        self.exit = exit
        self.in_use = 0


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
