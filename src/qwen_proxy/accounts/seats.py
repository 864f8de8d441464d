"""The places of accounts in a pool, and of the exits they share."""

from collections.abc import Callable
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
