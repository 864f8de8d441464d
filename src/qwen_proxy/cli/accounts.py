"""The commands of accounts."""

import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import typer
from rich.text import Text

from qwen_proxy.accounts.bulk.model import BatchStatus, LineStatus
from qwen_proxy.accounts.bulk.report import BatchProgress
from qwen_proxy.admin.account_bodies import (
    AccountBody,
    AccountPatchBody,
    AccountsBody,
    AccountTestBody,
    NewAccountBody,
)
from qwen_proxy.admin.batches import BASE as BATCHES
from qwen_proxy.admin.batches import CheckBody, CreatedBody, NewBatchBody
from qwen_proxy.app.commons import open_commons
from qwen_proxy.app.door import open_door
from qwen_proxy.app.machine import Machine
from qwen_proxy.cli.asking import read_password
from qwen_proxy.cli.output import Json, console, print_json, print_mark, progress_bar, say, say_aside, table
from qwen_proxy.cli.work import run, settings_now, through_server
from qwen_proxy.operations import accounts
from qwen_proxy.operations.advice import Verdict
from qwen_proxy.operations.client import ServerClient
from qwen_proxy.operations.places import own_place
from qwen_proxy.operations.upstream import open_destination
from qwen_proxy.runtime.clock import SystemClock

commands: Final = typer.Typer(help="The accounts of chat.qwen.ai.", no_args_is_help=True)

PATH: Final = "/api/admin/accounts"
TEST_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.5

Email = Annotated[str, typer.Argument(help="The account's email.")]


@commands.command("add")
def add(
    email: Email,
    password_file: Annotated[Path | None, typer.Option(help="File whose first line is the password.")] = None,
    proxy: Annotated[str, typer.Option(help="Its own outbound proxy.")] = "",
    labels: Annotated[str, typer.Option(help="Labels, with commas between.")] = "",
    as_json: Json = False,
) -> None:
    """Add an account; its password is asked for, or read from a file or a pipe."""
    wish = NewAccountBody(
        email=email,
        password=read_password(password_file),
        proxy=proxy or None,
        labels=tuple(label.strip() for label in labels.split(",") if label.strip()),
    )
    made = run(through_server(settings_now(), lambda client: client.call("POST", PATH, AccountBody, wish)))
    if as_json:
        print_json(made)
    else:
        say(f"{made.email} was added, and is signed in by itself; 'qwen-proxy accounts list' tells how that went.")


@commands.command("import")
def import_accounts(
    file: Annotated[Path, typer.Argument(help="A file of lines email:password or email:password|proxy; - is stdin.")],
    labels: Annotated[str, typer.Option(help="Labels of all of them, with commas between.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look at the lines.")] = False,
    as_json: Json = False,
) -> None:
    """Add many accounts: the lines are looked at first, then signed in at the pace that the site bears."""
    text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    told = tuple(label.strip() for label in labels.split(",") if label.strip())
    wish = NewBatchBody(lines=text, labels=told, dry_run=dry_run)

    async def work(client: ServerClient) -> tuple[CheckBody, BatchProgress | None]:
        made = await client.call("POST", BATCHES, CreatedBody, wish, seconds=TEST_SECONDS)
        if not as_json:
            _print_check(made.check)
        return made.check, None if made.batch is None else await _watched(client, made.batch, shows=not as_json)

    check, progress = run(through_server(settings_now(), work))
    if as_json:
        print_json({"check": check, "batch": progress})
    elif progress is not None:
        _print_end(progress)
    if check.invalid or (progress is not None and (progress.failed or not progress.is_over)):
        sys.exit(1)


@commands.command("list")
def list_accounts(as_json: Json = False) -> None:
    """List the accounts, how each is doing, and what to do about it."""
    path = f"{PATH}?limit=5000"
    body = run(through_server(settings_now(), lambda client: client.call("GET", path, AccountsBody)))
    if as_json:
        print_json(body)
        return
    rows = table("Account", "State", "In use", "Proxy", "Labels", "Requests today", "What to do")
    for account in body.accounts:
        health = account.health
        state = f"{health.state} ({health.reason})" if health.reason else health.state
        proxy, labels, today = account.proxy or "", ", ".join(account.labels), account.usage_today
        cells = (account.email, state, str(health.in_use), proxy, labels, f"{today.requests:,}", health.next_action)
        rows.add_row(*map(Text, cells), style="" if account.enabled else "dim")
    console().print(rows)


@commands.command("test")
def test(email: Email, as_json: Json = False) -> None:
    """Sign one account in now, whatever came of it before, and tell how it went."""
    path = f"{PATH}/{quote(email.lower())}/test"
    body = run(
        through_server(settings_now(), lambda client: client.call("POST", path, AccountTestBody, seconds=TEST_SECONDS))
    )
    if as_json:
        print_json(body)
    else:
        says = "signed in" if body.signed_in else body.reason
        print_mark(Verdict.OK if body.signed_in else Verdict.FAIL, f"{email}: {says}", body.next_action)
    if not body.signed_in:
        sys.exit(1)


@commands.command("remove")
def remove(email: Email, as_json: Json = False) -> None:
    """Forget an account, its token and what is known of it."""
    path = f"{PATH}/{quote(email.lower())}"
    run(through_server(settings_now(), lambda client: client.do("DELETE", path)))
    if as_json:
        print_json({"removed": email})
    else:
        say(f"{email} was removed. If ACCOUNTS lists it, it comes back with the next start.")


@commands.command("enable")
def enable(email: Email, as_json: Json = False) -> None:
    """Use an account again."""
    _switch(email, True, as_json)


@commands.command("disable")
def disable(email: Email, as_json: Json = False) -> None:
    """Keep an account, and do not use it."""
    _switch(email, False, as_json)


def _switch(email: str, enabled: bool, as_json: bool) -> None:
    path, wish = f"{PATH}/{quote(email.lower())}", AccountPatchBody(enabled=enabled)
    body = run(through_server(settings_now(), lambda client: client.call("PATCH", path, AccountBody, wish)))
    if as_json:
        print_json(body)
    else:
        say(f"{body.email} is {'enabled' if body.enabled else 'disabled'}.")


async def _watched(client: ServerClient, batch: BatchProgress, *, shows: bool) -> BatchProgress:
    """Until it is over or paused. Leaving (Ctrl-C) does not stop it where a server runs."""
    clock = SystemClock()
    if shows:
        say_aside(f"Batch {batch.id}: Ctrl-C leaves it to a running server; GET {BATCHES}/{batch.id} tells more.")
    with progress_bar("signing in", shows=shows) as tell:
        while True:
            tell(batch.done, batch.total)
            if batch.is_over or batch.status is BatchStatus.PAUSED:
                return batch
            await clock.sleep(POLL_SECONDS)
            batch = await client.call("GET", f"{BATCHES}/{batch.id}", BatchProgress)


def _print_check(check: CheckBody) -> None:
    say(f"{check.total} lines: {check.good} good, {len(check.repeated)} known already, {len(check.invalid)} wrong")
    for line in check.invalid:
        print_mark(Verdict.FAIL, f"line {line.number}: {line.problem}")


def _print_end(progress: BatchProgress) -> None:
    say(f"{progress.message}")
    if progress.next_action:
        say(f"-> {progress.next_action}")
    for line in progress.recent:
        if line.status is LineStatus.FAILED:
            print_mark(Verdict.FAIL, f"line {line.number}, {line.email}: {line.message}")


@commands.command("check")
def accounts_check(as_json: Json = False) -> None:
    """Sign each account in, one after the other, and tell how it went."""
    settings = settings_now()

    async def check() -> list[accounts.SignInResult]:
        results: list[accounts.SignInResult] = []
        machine = Machine()
        async with (
            open_commons(own_place(settings, machine.ids), machine) as commons,
            open_destination(settings, commons, machine) as destination,
            open_door(destination.settings, destination.base_url, machine) as door,
            aclosing(
                accounts.check_accounts(
                    await accounts.known(commons.book, destination.settings),
                    door.sign_in,
                    SystemClock(),
                    settings.signin_spacing_seconds,
                )
            ) as checks,
        ):
            async for result in checks:
                results.append(result)
                if not as_json:
                    _print_sign_in(result)
        return results

    results = run(check())
    if as_json:
        print_json({"accounts": results})
    elif not results:
        say("There is no account: set ACCOUNTS to email:password.")
    if not results or any(result.trouble for result in results):
        sys.exit(1)


def _print_sign_in(result: accounts.SignInResult) -> None:
    until = f" until {datetime.fromtimestamp(result.expires_at, UTC):%Y-%m-%d %H:%M} UTC" if result.expires_at else ""
    line = f"{result.account}, through {result.exit}: {result.says}{until} ({result.seconds:.1f} s)"
    print_mark(Verdict.FAIL if result.trouble else Verdict.OK, line, result.advice)
