"""How far a batch is, as an operator is told; and the same in the shape of the original. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, assert_never

from msgspec import Struct

from qwen_proxy.accounts.bulk.model import Batch, BatchLine, BatchStatus, LineStatus, PauseCause
from qwen_proxy.accounts.report import exit_name


class LineReport(Struct, frozen=True, kw_only=True):
    """exit: without user and password; empty when the line has none of its own. Never a password."""

    number: int
    email: str
    exit: str
    status: LineStatus
    message: str
    finished_at: float | None


class BatchProgress(Struct, frozen=True, kw_only=True):
    """`total` lines are good, repeated or invalid; of the good ones, `pending` and `running` have no end yet.

    done: lines that need no more work, of `total`. active: lines that are being signed in, by number. recent: the lines
    that ended last, newest first, at most 12. can_retry: there are failed lines whose passwords are still known.
    """

    id: str
    status: BatchStatus
    paused_by: PauseCause | None
    reason: str
    next_action: str
    message: str
    labels: tuple[str, ...]
    created_by: str
    total: int
    good: int
    repeated: int
    invalid: int
    pending: int
    running: int
    succeeded: int
    failed: int
    skipped: int
    cancelled: int
    done: int
    percent: float
    concurrency: int
    can_retry: bool
    is_over: bool
    active: tuple[LineReport, ...]
    recent: tuple[LineReport, ...]
    created_at: float
    started_at: float | None
    finished_at: float | None


class TaskResult(Struct, frozen=True):
    """status: "success" or "failed"."""

    email: str
    status: str
    message: str


class TaskSnapshot(Struct, frozen=True, kw_only=True, rename="camel"):
    """`GET /api/batchTasks/{taskId}` of the original, field by field (upstream protocol §10.5). Times are milliseconds.

    What it has no word for: a paused batch is `running` there, so that who polls goes on, and a cancelled one has
    `failed`; `message` says which. Cancelled lines count as skipped.
    """

    task_id: str
    status: str
    message: str
    total: int
    valid: int
    skipped: int
    invalid: int
    processed: int
    completed: int
    pending: int
    success: int
    failed: int
    progress: float
    concurrency: int
    active_emails: Sequence[str]
    failed_emails: Sequence[str]
    recent_results: Sequence[TaskResult]
    created_at: int
    started_at: int | None
    finished_at: int | None


_TASK_STATUS: Final[Mapping[BatchStatus, str]] = {
    BatchStatus.PENDING: "pending",
    BatchStatus.RUNNING: "running",
    BatchStatus.PAUSED: "running",
    BatchStatus.CANCELLED: "failed",
    BatchStatus.COMPLETED: "completed",
    BatchStatus.FAILED: "failed",
}


def line_report(number: int, line: BatchLine) -> LineReport:
    return LineReport(
        number=number,
        email=line.email,
        exit=exit_name(line.exit) if line.exit else "",
        status=line.status,
        message=line.message,
        finished_at=line.finished_at,
    )


def batch_progress(id: str, batch: Batch, lines: Mapping[int, BatchLine]) -> BatchProgress:
    """lines: at least those of `batch.active` and `batch.recent`; one that is missing is left out."""

    def reports(numbers: Sequence[int]) -> tuple[LineReport, ...]:
        return tuple(line_report(number, lines[number]) for number in numbers if number in lines)

    done = batch.total - batch.open
    return BatchProgress(
        id=id,
        status=batch.status,
        paused_by=batch.paused_by,
        reason=batch.reason,
        next_action=batch.next_action,
        message=message_of(batch),
        labels=batch.labels,
        created_by=batch.created_by,
        total=batch.total,
        good=batch.good,
        repeated=batch.repeated,
        invalid=batch.invalid,
        pending=batch.open - len(batch.active),
        running=len(batch.active),
        succeeded=batch.succeeded,
        failed=len(batch.failed),
        skipped=batch.skipped,
        cancelled=batch.cancelled,
        done=done,
        percent=round(100 * done / batch.total, 2) if batch.total else 100.0,
        concurrency=batch.concurrency,
        can_retry=bool(batch.failed) and batch.has_passwords and batch.status is not BatchStatus.CANCELLED,
        is_over=batch.is_over,
        active=reports(batch.active),
        recent=reports(batch.recent),
        created_at=batch.created_at,
        started_at=batch.started_at,
        finished_at=batch.finished_at,
    )


def message_of(batch: Batch) -> str:
    """One sentence on how it stands."""
    done = batch.total - batch.open
    ends = f"{batch.succeeded} added, {len(batch.failed)} failed"
    match batch.status:
        case BatchStatus.PENDING:
            return "waiting to begin"
        case BatchStatus.RUNNING:
            under_way = f", {len(batch.active)} being signed in" if batch.active else ""
            return f"{done} of {batch.total} done{under_way}"
        case BatchStatus.PAUSED:
            why = f": {batch.reason}" if batch.reason else " by an operator"
            return f"paused at {done} of {batch.total}{why}"
        case BatchStatus.CANCELLED:
            return f"cancelled: {ends}"
        case BatchStatus.COMPLETED:
            return f"completed: {ends}"
        case BatchStatus.FAILED:
            return f"given up: {batch.reason}"
        case _:
            assert_never(batch.status)


def task_snapshot(progress: BatchProgress, failed_emails: Sequence[str]) -> TaskSnapshot:
    skipped = progress.repeated + progress.skipped + progress.cancelled
    ends = (LineStatus.SUCCEEDED, LineStatus.FAILED)
    return TaskSnapshot(
        task_id=progress.id,
        status=_TASK_STATUS[progress.status],
        message=progress.message,
        total=progress.total,
        valid=progress.good + progress.repeated,
        skipped=skipped,
        invalid=progress.invalid,
        processed=progress.succeeded + progress.failed,
        completed=progress.done,
        pending=progress.total - progress.done,
        success=progress.succeeded,
        failed=progress.failed,
        progress=progress.percent,
        concurrency=progress.concurrency,
        active_emails=[line.email for line in progress.active],
        failed_emails=failed_emails,
        recent_results=[_result(line) for line in progress.recent if line.status in ends],
        created_at=int(progress.created_at * 1000),
        started_at=_milliseconds(progress.started_at),
        finished_at=_milliseconds(progress.finished_at),
    )


def _result(line: LineReport) -> TaskResult:
    return TaskResult(line.email, "success" if line.status is LineStatus.SUCCEEDED else "failed", line.message)


def _milliseconds(at: float | None) -> int | None:
    return None if at is None else int(at * 1000)
