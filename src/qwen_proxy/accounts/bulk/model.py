"""A batch of accounts to be added, its lines, and every way in which they change. Pure.

| batch | becomes | by |
|---|---|---|
| pending | running | the keeper, when it begins |
| pending, running | paused | an operator; a challenge; no answer several times in a row |
| paused | pending, running | an operator |
| pending, running, paused | cancelled | an operator; it is over once the keeper has dealt with what is left |
| running | completed | the keeper, when no line is left |
| running | failed | the keeper, when a line can't be read |
| completed | running | an operator, who has the failed lines tried again |

| line | becomes | |
|---|---|---|
| pending | running | about to be signed in |
| running | succeeded, failed, skipped | its end; skipped: the account was added by other means meanwhile |
| running | pending | put back: a challenge, a pause, or no answer; also when its keeper died |
| pending, running | cancelled | with its batch |
| failed | pending | tried again |

A line and its batch are written in one step, so that the counts are those of the lines, whenever a process dies.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.ground.redact import masked_email
from qwen_proxy.ground.secret import Secret

MOST_RECENT: Final = 12
MOST_TRIES: Final = 3  # of a line that gets no answer
MOST_SETBACKS: Final = 8  # in a row, over all lines: then it is not the lines


class BatchStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    FAILED = "failed"


class PauseCause(StrEnum):
    OPERATOR = "operator"
    CHALLENGE = "challenge"
    NO_ANSWER = "no_answer"


class LineStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    INVALID = "invalid"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        return self in (LineStatus.PENDING, LineStatus.RUNNING)


class Batch(Struct, frozen=True, kw_only=True):
    """The document of a batch. Lines go by their number in what was pasted.

    total: lines that were neither blank nor comments; each is good, repeated (an account that is there, or is on an
    earlier line) or invalid. Of the good ones, those without an end yet are `open`. failed: the numbers of these lines.
    active: the lines being signed in. recent: those that ended last, newest first. reason, next_action: sentences, for
    a batch that is paused or has failed. wants_retry: an operator wants the failed lines tried again. setbacks: how
    many sign-ins in a row got no answer. has_passwords: of failed lines. Times are Unix seconds.
    """

    created_at: float
    created_by: str = ""
    labels: tuple[str, ...] = ()
    concurrency: int = 1
    status: BatchStatus = BatchStatus.PENDING
    paused_by: PauseCause | None = None
    reason: str = ""
    next_action: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    total: int = 0
    good: int = 0
    repeated: int = 0
    invalid: int = 0
    succeeded: int = 0
    skipped: int = 0
    cancelled: int = 0
    failed: tuple[int, ...] = ()
    active: tuple[int, ...] = ()
    recent: tuple[int, ...] = ()
    setbacks: int = 0
    wants_retry: bool = False
    has_passwords: bool = True

    @property
    def open(self) -> int:
        return self.good - self.succeeded - self.skipped - self.cancelled - len(self.failed)

    @property
    def is_over(self) -> bool:
        return self.finished_at is not None


class BatchLine(Struct, frozen=True, kw_only=True):
    """The document of a line. password: None once it is of no more use. tries: how many got no answer."""

    email: str
    password: Secret | None = None
    exit: str = ""
    status: LineStatus = LineStatus.PENDING
    message: str = ""
    tries: int = 0
    finished_at: float | None = None

    def __repr__(self) -> str:
        return f"BatchLine({masked_email(self.email)!r}, {self.status}, {self.message!r})"


Changed = tuple[Batch, BatchLine]
LineChange = Callable[[Batch, int, BatchLine], Changed | None]  # None: it may not be, or is so already


# --- lines -------------------------------------------------------------------------------------------------


def begin(batch: Batch, number: int, line: BatchLine) -> Changed | None:
    """Only while the batch runs. A line found running is one whose keeper died."""
    if batch.status is not BatchStatus.RUNNING or not line.status.is_open:
        return None
    active = batch.active if number in batch.active else (*batch.active, number)
    return replace(batch, active=active), replace(line, status=LineStatus.RUNNING)


def end(status: LineStatus, message: str, now: float) -> LineChange:
    """The site, or our own accounts, have given an answer. A failed line keeps its password to be tried again."""

    def change(batch: Batch, number: int, line: BatchLine) -> Changed | None:
        if not line.status.is_open:
            return None
        return _ended(replace(batch, setbacks=0), number, line, status, message, now)

    return change


def _ended(batch: Batch, number: int, line: BatchLine, status: LineStatus, message: str, now: float) -> Changed:
    is_failed = status is LineStatus.FAILED
    batch = replace(
        batch,
        active=tuple(each for each in batch.active if each != number),
        recent=(number, *(each for each in batch.recent if each != number))[:MOST_RECENT],
        succeeded=batch.succeeded + (status is LineStatus.SUCCEEDED),
        skipped=batch.skipped + (status is LineStatus.SKIPPED),
        cancelled=batch.cancelled + (status is LineStatus.CANCELLED),
        failed=(*batch.failed, number) if is_failed else batch.failed,
    )
    password = line.password if is_failed else None
    return batch, replace(line, status=status, message=message, finished_at=now, password=password)


def put_back(batch: Batch, number: int, line: BatchLine) -> Changed | None:
    """It was begun and has no result."""
    if line.status is not LineStatus.RUNNING:
        return None
    active = tuple(each for each in batch.active if each != number)
    return replace(batch, active=active), replace(line, status=LineStatus.PENDING)


def challenged(reason: str, next_action: str) -> LineChange:
    """The batch stops at once; the line is put back."""

    def change(batch: Batch, number: int, line: BatchLine) -> Changed | None:
        changed = put_back(batch, number, line)
        if changed is None:
            return None
        batch, line = changed
        return pause(replace(batch, setbacks=0), PauseCause.CHALLENGE, reason, next_action) or batch, line

    return change


def unanswered(message: str, next_action: str, now: float) -> LineChange:
    """Nobody looked at the account: the line is put back, at most MOST_TRIES times. When that happens MOST_SETBACKS
    times in a row, the batch waits for an operator instead of failing line after line."""

    def change(batch: Batch, number: int, line: BatchLine) -> Changed | None:
        changed = put_back(batch, number, line)
        if changed is None:
            return None
        batch, line = changed
        batch = replace(batch, setbacks=batch.setbacks + 1)
        line = replace(line, tries=line.tries + 1, message=message)
        if line.tries >= MOST_TRIES:
            batch, line = _ended(batch, number, line, LineStatus.FAILED, message, now)
        if batch.setbacks >= MOST_SETBACKS:
            reason = f"{batch.setbacks} sign-ins in a row got no answer, the last one on line {number}: {message}"
            batch = pause(batch, PauseCause.NO_ANSWER, reason, next_action) or batch
        return batch, line

    return change


def cancel_line(now: float) -> LineChange:
    def change(batch: Batch, number: int, line: BatchLine) -> Changed | None:
        if batch.status is not BatchStatus.CANCELLED or not line.status.is_open:
            return None
        return _ended(batch, number, line, LineStatus.CANCELLED, "the batch was cancelled", now)

    return change


def retry_line(batch: Batch, number: int, line: BatchLine) -> Changed | None:
    if line.status is not LineStatus.FAILED or line.password is None:
        return None
    return (
        replace(
            batch,
            failed=tuple(each for each in batch.failed if each != number),
            recent=tuple(each for each in batch.recent if each != number),
        ),
        replace(line, status=LineStatus.PENDING, message="", tries=0, finished_at=None),
    )


def forget_password(batch: Batch, number: int, line: BatchLine) -> Changed | None:
    """Of a batch that is over, and has not been taken up again meanwhile."""
    return (batch, replace(line, password=None)) if batch.is_over and line.password is not None else None


# --- batches -----------------------------------------------------------------------------------------------


def start(batch: Batch, now: float) -> Batch | None:
    """None from these functions: not from the state it is in."""
    if batch.status is not BatchStatus.PENDING:
        return None
    return replace(batch, status=BatchStatus.RUNNING, started_at=batch.started_at or now)


def pause(batch: Batch, cause: PauseCause, reason: str = "", next_action: str = "") -> Batch | None:
    if batch.status not in (BatchStatus.PENDING, BatchStatus.RUNNING):
        return None
    return replace(batch, status=BatchStatus.PAUSED, paused_by=cause, reason=reason, next_action=next_action)


def resume(batch: Batch) -> Batch | None:
    if batch.status is not BatchStatus.PAUSED:
        return None
    return _going(batch)


def _going(batch: Batch) -> Batch:
    status = BatchStatus.PENDING if batch.started_at is None else BatchStatus.RUNNING
    return replace(batch, status=status, paused_by=None, reason="", next_action="", setbacks=0, finished_at=None)


def cancel(batch: Batch) -> Batch | None:
    if batch.status not in (BatchStatus.PENDING, BatchStatus.RUNNING, BatchStatus.PAUSED):
        return None
    return replace(batch, status=BatchStatus.CANCELLED, paused_by=None, reason="", next_action="", wants_retry=False)


def retry(batch: Batch) -> Batch | None:
    """The failed lines are to be tried again; a paused batch stays paused."""
    if batch.status not in (BatchStatus.RUNNING, BatchStatus.PAUSED, BatchStatus.COMPLETED):
        return None
    if not batch.failed or not batch.has_passwords:
        return None
    batch = replace(batch, wants_retry=True)
    return _going(batch) if batch.status is BatchStatus.COMPLETED else batch


def retried(batch: Batch) -> Batch | None:
    """They are pending again."""
    return replace(batch, wants_retry=False) if batch.wants_retry else None


def complete(batch: Batch, now: float) -> Batch | None:
    """Once nothing of it is left to do, also of one that was cancelled."""
    if batch.open or batch.is_over or batch.wants_retry:
        return None
    if batch.status is BatchStatus.RUNNING:
        return replace(batch, status=BatchStatus.COMPLETED, finished_at=now)
    return replace(batch, finished_at=now) if batch.status is BatchStatus.CANCELLED else None


def forgotten(batch: Batch) -> Batch | None:
    """No line has its password any more."""
    return replace(batch, has_passwords=False) if batch.is_over and batch.has_passwords else None


def fail(batch: Batch, reason: str, next_action: str, now: float) -> Batch | None:
    if batch.is_over:
        return None
    return replace(batch, status=BatchStatus.FAILED, reason=reason, next_action=next_action, finished_at=now, active=())
