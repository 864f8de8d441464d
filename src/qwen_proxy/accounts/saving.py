"""What the pool learns, written to the store in the background."""

from collections.abc import Callable

from qwen_proxy.accounts.seats import Seat
from qwen_proxy.accounts.store import AccountStore
from qwen_proxy.runtime.tasks import Tasks


class Saver:
    """Writes an account's newest state after it changed; changes that come while it writes are written once."""

    def __init__(self, store: AccountStore, tasks: Tasks, seat: Callable[[str], Seat | None]) -> None:
        self._store = store
        self._tasks = tasks
        self._seat = seat
        self._unsaved: dict[str, bool] = {}  # account -> whether its credential changed too
        self._is_running = False

    def changed(self, account_id: str, *, credential: bool = False) -> None:
        self._unsaved[account_id] = credential or self._unsaved.get(account_id, False)
        if not self._is_running:
            self._is_running = True
            self._tasks.spawn(self.flush(), name="save accounts")

    async def flush(self) -> None:
        """Write all that is unsaved."""
        try:
            while self._unsaved:
                account_id = next(iter(self._unsaved))
                with_credential = self._unsaved.pop(account_id)
                if (seat := self._seat(account_id)) is None:
                    continue
                if with_credential:
                    await self._store.save_credential(account_id, seat.credential)
                await self._store.save_health(account_id, seat.health)
        finally:
            self._is_running = False
