"""One line of a batch: its account is signed in and added, and what came of it is written down."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from msgspec import Struct

from qwen_proxy.accounts.bulk import model
from qwen_proxy.accounts.bulk.book import BatchBook
from qwen_proxy.accounts.bulk.model import Batch, BatchLine, LineChange, LineStatus
from qwen_proxy.accounts.model import Account, Credential, Origin
from qwen_proxy.accounts.report import exit_name
from qwen_proxy.ground.errors import (
    ExitUnreachable,
    InternalError,
    NoAccountUsable,
    ProxyError,
    ShuttingDown,
    StoreUnavailable,
    Unreadable,
    UpstreamChallenged,
    UpstreamError,
)
from qwen_proxy.ground.redact import masked_email
from qwen_proxy.runtime.clock import Clock

log = logging.getLogger(__name__)

STORE_RETRY_SECONDS: Final = 0.5
# Nobody has looked at the account's password: it may be tried again.
NO_ANSWER: Final = (ExitUnreachable, UpstreamError, NoAccountUsable)

ADDED: Final = "signed in and added"
LOOK_AT_EXIT: Final = "Check that the site and the outbound proxies can be reached, then resume."

T = TypeVar("T")


class Enrolment(Struct, frozen=True):
    """How an account comes in. `sign_in` keeps to the pace of its exit and raises ProxyError. `add` stores the account
    with its token; `find` gives one that is there. Both raise StoreUnavailable and Unreadable."""

    sign_in: Callable[[Account], Awaitable[Credential]]
    add: Callable[[Account, Credential], Awaitable[object]]
    find: Callable[[str], Awaitable[Account | None]]


class LineWork:
    """A line under way. May be cancelled at any time; then it is to be put back, or taken up anew by another keeper."""

    def __init__(
        self, book: BatchBook, enrolment: Enrolment, clock: Clock, batch_id: str, number: int, exit: str
    ) -> None:
        self.batch_id: Final = batch_id
        self.number: Final = number
        self.exit: Final = exit
        self.has_ended = False  # what came of it is written
        self.is_unsure = False  # how the line stands has to be read: it was refused, or changed by another
        self.is_pending = False  # it has ended, and is to be done again
        self.tries = 0  # how many of them got no answer
        self.is_signing_in = False
        self._book = book
        self._enrolment = enrolment
        self._clock = clock

    async def run(self) -> None:
        begun = await self._write(model.begin)
        if begun is None:
            self._learn(begun)
            return
        try:
            result = await self._enrol(_account(*begun, self._clock.now()))
        except Unreadable as error:
            result = self._result(LineStatus.FAILED, str(error))
        except Exception:  # a bug must not leave the line, and with it the batch, without an end
            log.exception("a line of a batch failed", extra={"batch": self.batch_id, "line": self.number})
            result = self._result(LineStatus.FAILED, str(InternalError()))
        if result is not None:
            await self._end(result)

    async def put_back(self) -> None:
        """Raises StoreUnavailable."""
        self._learn(await self._book.change_line(self.batch_id, self.number, model.put_back))

    async def _enrol(self, account: Account) -> LineChange | None:
        """What came of it; None when that is of no meaning for the line, which is to be put back."""
        known = await self._insist(lambda: self._enrolment.find(account.id))
        if known is not None:
            return self._found(known, account)
        self.is_signing_in = True
        try:
            credential = await self._enrolment.sign_in(account)
        except (ShuttingDown, StoreUnavailable):
            return None
        except UpstreamChallenged as error:
            return model.challenged(f"{error} (line {self.number})", _open_in_browser(self.number, self.exit))
        except NO_ANSWER as error:
            return model.unanswered(str(error), LOOK_AT_EXIT, self._clock.now())
        except ProxyError as error:
            return self._result(LineStatus.FAILED, str(error))
        finally:
            self.is_signing_in = False
        await self._insist(lambda: self._enrolment.add(account, credential))
        return self._result(LineStatus.SUCCEEDED, ADDED)

    def _result(self, status: LineStatus, message: str) -> LineChange:
        return model.end(status, message, self._clock.now())

    def _found(self, known: Account, account: Account) -> LineChange:
        """With this password it was probably this very line, whose keeper died before it wrote that down."""
        if known.password == account.password:
            return self._result(LineStatus.SUCCEEDED, ADDED)
        return self._result(LineStatus.SKIPPED, "this account was added by other means, with another password")

    async def _end(self, change: LineChange) -> None:
        changed = await self._write(change)
        self._learn(changed)
        if changed is not None:
            names = {"batch": self.batch_id, "line": self.number, "account": masked_email(changed[1].email)}
            log.info("line of a batch", extra={**names, "status": changed[1].status, "reason": changed[1].message})

    def _learn(self, changed: tuple[Batch, BatchLine] | None) -> None:
        self.has_ended = True
        self.is_unsure = changed is None
        if changed is not None:
            self.is_pending = changed[1].status is LineStatus.PENDING
            self.tries = changed[1].tries

    async def _write(self, change: LineChange) -> tuple[Batch, BatchLine] | None:
        return await self._insist(lambda: self._book.change_line(self.batch_id, self.number, change))

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Until the store answers: what was found out is not given up because it can't be written down now."""
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await self._clock.sleep(STORE_RETRY_SECONDS)


def _account(batch: Batch, line: BatchLine, now: float) -> Account:
    return Account(
        id=line.email.lower(),
        email=line.email,
        password=line.password,
        exit=line.exit,
        labels=batch.labels,
        origin=Origin.ADDED,
        added_at=now,
    )


def _open_in_browser(number: int, exit: str) -> str:
    name = f" ({exit_name(exit)})" if exit else ""
    return (
        f"Open chat.qwen.ai once by hand from the exit of line {number}{name} and complete the check there, or give "
        "these accounts another exit; then resume."
    )
