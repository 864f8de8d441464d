"""Many accounts at once: the batches, and following one."""

import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.text import Text

from qwen_proxy.accounts.bulk.model import BatchStatus, LineStatus
from qwen_proxy.accounts.bulk.report import BatchProgress
from qwen_proxy.admin.batches import CheckBody, NewBatchBody
from qwen_proxy.cli.asking import DryRun, words
from qwen_proxy.cli.output import Json, console, print_json, progress_bar, say, say_aside, table, warn_of
from qwen_proxy.cli.work import administer
from qwen_proxy.operations.administration import Administration
from qwen_proxy.operations.moments import shown

commands: Final = typer.Typer(help="Batches of accounts that are added.", no_args_is_help=True)

MOST_WRONG_LINES: Final = 40

BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="Its id, as 'batches list' tells it.")]


class Following:
    """What is known of a batch when a person stops looking."""

    id = ""
    is_running = False


def accounts_import(
    file: Annotated[str, typer.Argument(help="Lines email:password or email:password|proxy; - is stdin.")],
    labels: Annotated[str, typer.Option(help="Labels of all of them, with commas between.")] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add many accounts: the lines are looked at first, then signed in at a pace that the site bears."""
    text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8-sig")
    following = Following()

    async def work(admin: Administration) -> tuple[CheckBody, BatchProgress | None]:
        looked = await admin.create_batch(NewBatchBody(lines=text, labels=words(labels), dry_run=True))
        if not as_json:
            _print_check(looked.check)
        if dry_run or not looked.check.good:
            return looked.check, None
        created = await admin.create_batch(NewBatchBody(lines=text, labels=words(labels)))
        assert created.batch is not None  # it was no dry run
        return created.check, await _follow(admin, created.batch.id, following, as_json=as_json)

    try:
        check, progress = administer(work, works=True)
    except KeyboardInterrupt:
        _left(following)
    if as_json:
        print_json({"check": check, "batch": progress})
    elif progress is not None:
        _print_end(progress)
    elif dry_run:
        say("Nothing was added.")
    if check.invalid or (progress is not None and not _is_well(progress)):
        sys.exit(1)


@commands.command("list")
def batches_list(as_json: Json = False) -> None:
    """List the batches, the newest first."""
    found = administer(lambda admin: admin.batches())
    if as_json:
        print_json({"batches": found})
        return
    rows = table("Batch", "Begun", "Status", "Done", "Added", "Failed", "")
    for each in found:
        done = f"{each.done} of {each.total}"
        rows.add_row(
            Text(each.id),
            shown(each.created_at),
            each.status.value,
            done,
            str(each.succeeded),
            str(each.failed),
            Text(each.message),
        )
    console().print(rows)


@commands.command("follow")
def batches_follow(id: BatchId, as_json: Json = False) -> None:
    """Look at a batch until it is over or paused. Where no server runs, it goes on meanwhile."""
    following = Following()
    try:
        progress = administer(lambda admin: _follow(admin, id, following, as_json=as_json), works=True)
    except KeyboardInterrupt:
        _left(following)
    if as_json:
        print_json(progress)
    else:
        _print_end(progress)
    if not _is_well(progress):
        sys.exit(1)


@commands.command("pause")
def batches_pause(id: BatchId, as_json: Json = False) -> None:
    """Begin no more of its lines for now."""
    _steer(id, "pause", as_json=as_json)


@commands.command("resume")
def batches_resume(id: BatchId, as_json: Json = False) -> None:
    """Go on with it, whatever it was paused by."""
    _steer(id, "resume", as_json=as_json)


@commands.command("cancel")
def batches_cancel(id: BatchId, as_json: Json = False) -> None:
    """Do none of the lines that are left."""
    _steer(id, "cancel", as_json=as_json)


@commands.command("retry")
def batches_retry(id: BatchId, as_json: Json = False) -> None:
    """Try its failed lines again."""
    _steer(id, "retry", as_json=as_json)


def _steer(id: str, action: str, *, as_json: bool) -> None:
    async def work(admin: Administration) -> tuple[BatchProgress, bool]:
        return await admin.steer_batch(id, action), admin.is_running

    progress, is_running = administer(work)
    if as_json:
        print_json(progress)
        return
    say(f"{progress.id}: {progress.message}")
    if not is_running and not progress.is_over and progress.paused_by is None:
        say_aside(f"No server runs: it goes on with the next, or with 'qwen-proxy batches follow {progress.id}'.")


async def _follow(admin: Administration, id: str, following: Following, *, as_json: bool) -> BatchProgress:
    following.id, following.is_running = id, admin.is_running
    failed: set[int] = set()
    progress = await admin.batch(id)
    async with aclosing(admin.follow_batch(id)) as steps:
        with progress_bar("accounts", shows=not as_json) as tell:
            async for progress in steps:
                tell(progress.done, progress.total)
                for line in reversed(progress.recent):
                    if line.status is LineStatus.FAILED and line.number not in failed and not as_json:
                        failed.add(line.number)
                        say_aside(f"line {line.number}, {line.email}: {line.message}", "yellow")
    return progress


def _left(following: Following) -> NoReturn:
    """Ctrl-C: whoever looks goes, the batch stays."""
    if following.id:
        where = "goes on in the server" if following.is_running else "waits for a server, or for you"
        say_aside(f"The batch {where}. To look at it again: qwen-proxy batches follow {following.id}")
    sys.exit(130)


def _print_check(check: CheckBody) -> None:
    warn_of(f"line {line.number}: {line.problem}" for line in check.invalid[:MOST_WRONG_LINES])
    if len(check.invalid) > MOST_WRONG_LINES:
        warn_of([f"{len(check.invalid) - MOST_WRONG_LINES} more lines are wrong"])
    say(f"{check.total} lines: {check.good} good, {len(check.repeated)} known already, {len(check.invalid)} wrong.")


def _print_end(progress: BatchProgress) -> None:
    say(f"{progress.id}: {progress.message}")
    if progress.next_action:
        say(progress.next_action, "yellow")
    if progress.paused_by is not None:
        say_aside(f"Then: qwen-proxy batches resume {progress.id}")
    elif progress.can_retry:
        say_aside(f"To try the failed lines again: qwen-proxy batches retry {progress.id}")


def _is_well(progress: BatchProgress) -> bool:
    return progress.status is BatchStatus.COMPLETED and not progress.failed
