"""The accounts of this process as they stand in the store: seats that follow what any process writes."""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from qwen_proxy.accounts.book import AccountBook, AccountDocument
from qwen_proxy.accounts.health import HEALTHY, AccountHealth, ExitHealth
from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.accounts.ordering import Order
from qwen_proxy.accounts.saving import Saver
from qwen_proxy.accounts.seats import Exit, Seat
from qwen_proxy.config.choices import Strategy
from qwen_proxy.state.collection import Entry
from qwen_proxy.state.kinds import ACCOUNT, EXIT, HEALTH
from qwen_proxy.state.store import Record
from qwen_proxy.state.watching import Watch


class Followers(Protocol):
    """Who has to know: the pool."""

    def joined(self, seat: Seat) -> None: ...

    def leaving(self, seat: Seat) -> None:
        """It is still in the roster."""
        ...

    def left(self, seat: Seat) -> None: ...

    def changed(self, seat: Seat) -> None:
        """Its account, its token or its health; or its exit's."""
        ...


class Roster:
    """general_exit: the exit of accounts without a proxy of their own. only_account: the others are not here."""

    def __init__(
        self,
        book: AccountBook,
        followers: Followers,
        general_exit: str,
        strategy: Strategy = Strategy.LEAST_LOADED,
        only_account: str = "",
    ) -> None:
        self.seats: Final = Order(strategy)
        self._book = book
        self._followers = followers
        self._general_exit = general_exit
        self._only_account = only_account
        self._exits: dict[str, Exit] = {}
        self._by_id: dict[str, Exit] = {}
        self._exit_entries: dict[str, Entry[ExitHealth]] = {}
        self._health_entries: dict[str, Entry[AccountHealth]] = {}  # that came before their account
        self._saver: Saver

    def follow(self, watch: Watch, saver: Saver) -> None:
        """To be called before the watch is loaded."""
        self._saver = saver
        watch.subscribe(EXIT, self._exits_changed)
        watch.subscribe(ACCOUNT, self._accounts_changed)
        watch.subscribe(HEALTH, self._healths_changed)

    def find(self, account_id: str) -> Seat | None:
        return self.seats.get(account_id)

    def exit(self, name: str) -> Exit:
        found = self._exits.get(name)
        if found is None:
            found = self._exits[name] = Exit(name)
            exit_id = self._book.exit_id(name)
            self._by_id[exit_id] = found
            if (entry := self._exit_entries.get(exit_id)) is not None:
                self._saver.take_exit(found, entry)
        return found

    def exit_of(self, account: Account) -> Exit:
        return self.exit(account.exit or self._general_exit)

    def exits(self) -> Iterable[Exit]:
        return self._exits.values()

    def use(self, general_exit: str) -> None:
        """From now on."""
        if general_exit == self._general_exit:
            return
        was, self._general_exit = self._general_exit, general_exit
        for seat in [seat for seat in self.seats if seat.exit.name == was and not seat.has_own_exit]:
            self._set(seat, replace(seat.account, exit=""), seat.credential)
            self._followers.changed(seat)

    # --- documents

    def take_account(self, entry: Entry[AccountDocument]) -> None:
        """As it stands in the store; one that is older than what is known changes nothing."""
        if self._only_account not in ("", entry.id):
            return
        document, seat = entry.value, self.find(entry.id)
        if seat is None:
            seat = Seat(document.account, None, HEALTHY, self.exit_of(document.account))
            self._set(seat, document.account, document.credential)
            seat.version = entry.version
            if (health := self._health_entries.pop(entry.id, None)) is not None:
                self._saver.take_health(seat, health)
            self.seats.add(seat)
            self._followers.joined(seat)
        elif entry.version > seat.version:
            self._followers.leaving(seat)  # of what it was
            seat.version = entry.version
            self._set(seat, document.account, document.credential)
            self._followers.changed(seat)

    def forget(self, account_id: str) -> None:
        self._health_entries.pop(account_id, None)
        if (seat := self.find(account_id)) is not None:
            self._followers.leaving(seat)
            self.seats.remove(account_id)
            self._followers.left(seat)

    def _set(self, seat: Seat, account: Account, credential: Credential | None) -> None:
        exit = self.exit_of(account)
        seat.has_own_exit = bool(account.exit)
        seat.account, seat.exit = replace(account, exit=exit.name), exit
        if credential is not None and credential.token == seat.rejected:
            credential = None
        if credential is not None:
            credential = replace(credential, exit=exit.name, cookies=account.cookies or credential.cookies)
        seat.credential = credential

    def _accounts_changed(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        for entry in self._book.accounts.readable(records):
            self.take_account(entry)
        for account_id in gone:
            self.forget(account_id)

    def _healths_changed(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        for entry in self._book.healths.readable(records):
            if (seat := self.find(entry.id)) is None:
                self._health_entries[entry.id] = entry
            else:
                self._saver.take_health(seat, entry)
                self._followers.changed(seat)
        for account_id in gone:
            self._health_entries.pop(account_id, None)

    def _exits_changed(self, records: Sequence[Record], gone: Sequence[str]) -> None:
        for entry in self._book.exits.readable(records):
            self._exit_entries[entry.id] = entry
            if (exit := self._by_id.get(entry.id)) is not None:
                self._saver.take_exit(exit, entry)
                for seat in [seat for seat in self.seats if seat.exit is exit]:
                    self._followers.changed(seat)
