"""The commands of accounts."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy.admin.account_bodies import AccountBody, AccountPatchBody, AccountTestBody, NewAccountBody
from qwen_proxy.app.commons import open_commons
from qwen_proxy.app.door import open_door
from qwen_proxy.app.machine import Machine
from qwen_proxy.cli.asking import Yes, goes_ahead, read_password, words
from qwen_proxy.cli.output import Json, console, print_json, print_mark, say, table
from qwen_proxy.cli.work import administer, run, settings_now
from qwen_proxy.operations import accounts
from qwen_proxy.operations.administration import Administration
from qwen_proxy.operations.advice import Verdict
from qwen_proxy.operations.moments import shown
from qwen_proxy.operations.places import own_place
from qwen_proxy.operations.upstream import open_destination
from qwen_proxy.runtime.clock import SystemClock

commands: Final = typer.Typer(help="The accounts of chat.qwen.ai.", no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(metavar="EMAIL…", help="The accounts, by their emails.")]
Labels = Annotated[str, typer.Option(help="Labels, with commas between.")]


@commands.command("list")
def accounts_list(
    state: Annotated[str | None, typer.Option(help="Only those in this state, such as ready.")] = None,
    label: Annotated[str | None, typer.Option(help="Only those with this label.")] = None,
    text: Annotated[str | None, typer.Option(help="Only those with this text in email, label or note.")] = None,
    as_json: Json = False,
) -> None:
    """List the accounts, how they are, and what they were used for today."""
    found = administer(lambda admin: admin.accounts(label=label, state=state, text=text))
    if as_json:
        print_json(found)
        return
    if not found.accounts:
        say("There is no such account." if found.states else "There is no account; 'qwen-proxy accounts add' adds one.")
        return
    rows = table("Account", "State", "Exit", "Token until", "In use", "Today", "Labels")
    for account in found.accounts:
        rows.add_row(*_row(account))
    console().print(rows)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
    say(f"{found.total} of {sum(found.states.values())} accounts ({counts})" if found.states else "")
    for account in found.accounts:
        if account.enabled and account.health.next_action:
            reason = f"{account.health.reason}. " if account.health.reason else ""
            say(f"{account.email}: {reason}{account.health.next_action}", "yellow")


def _row(account: AccountBody) -> Sequence[Text]:
    health, used = account.health, account.usage_today
    state = health.state + (f" until {shown(health.until)}" if health.until else "")
    style = "green" if health.state == "ready" else "dim" if not account.enabled else "yellow"
    today = f"{used.requests} ({used.failures} failed), {used.prompt_tokens + used.completion_tokens:,} tokens"
    cells = (
        health.exit,
        shown(health.token_expires_at) if health.has_token else "none",
        str(health.in_use),
        today if used.requests or used.prompt_tokens else "",
        ", ".join(account.labels),
    )
    return (Text(account.email), Text(state, style), *map(Text, cells))


@commands.command("add")
def accounts_add(
    email: Annotated[str, typer.Argument(help="The account's email.")],
    password_file: Annotated[Path | None, typer.Option(help="File whose first line is the password.")] = None,
    cookies_file: Annotated[
        Path | None, typer.Option(help="File with cookies copied from a browser: a header, cookies.txt or cURL.")
    ] = None,
    proxy: Annotated[str | None, typer.Option(help="Its own proxy, such as socks5://user:password@host:1080.")] = None,
    labels: Labels = "",
    weight: Annotated[float, typer.Option(help="Its share, where the strategy is weighted.")] = 1.0,
    priority: Annotated[int, typer.Option(help="Those with a higher one are taken first.")] = 0,
    note: Annotated[str, typer.Option(help="Anything to remember.")] = "",
    test: Annotated[bool, typer.Option("--test/--no-test", help="Whether to wait for its sign-in.")] = True,
    as_json: Json = False,
) -> None:
    """Add an account and sign it in; its password is asked for, or read from a file or a pipe."""
    cookies = None if cookies_file is None else cookies_file.read_text("utf-8-sig")
    password = None
    if password_file is not None or cookies is None:
        password = read_password(password_file)
    body = NewAccountBody(
        email=email,
        password=password,
        proxy=proxy,
        cookies=cookies,
        labels=words(labels),
        weight=weight,
        priority=priority,
        note=note,
    )
    tests = test and password is not None

    async def add(admin: Administration) -> AccountBody | AccountTestBody:
        added = await admin.add_account(body)
        if not as_json:
            say(f"{added.email} was added.")
        return await admin.test_account(added.id) if tests else added

    told = administer(add, works=tests)
    if as_json:
        print_json(told)
    elif isinstance(told, AccountTestBody):
        _print_test(told)
    if isinstance(told, AccountTestBody) and not told.signed_in:
        sys.exit(1)


@commands.command("test")
def accounts_test(names: Names, as_json: Json = False) -> None:
    """Sign accounts in now, one after the other, and tell how it went."""

    async def test(admin: Administration) -> list[AccountTestBody]:
        told: list[AccountTestBody] = []
        for name in names:
            told.append(await admin.test_account(name))
            if not as_json:
                _print_test(told[-1])
        return told

    told = administer(test, works=True)
    if as_json:
        print_json({"tests": told})
    if not all(each.signed_in for each in told):
        sys.exit(1)


def _print_test(told: AccountTestBody) -> None:
    health = told.account.health
    line = f"{told.account.email}, through {health.exit}: "
    line += f"signed in until {shown(health.token_expires_at)} UTC" if told.signed_in else told.reason
    print_mark(Verdict.OK if told.signed_in else Verdict.FAIL, f"{line} ({told.took_seconds:.1f} s)", told.next_action)


@commands.command("enable")
def accounts_enable(names: Names, as_json: Json = False) -> None:
    """Have accounts used again."""
    _each(
        names, "is used again", lambda admin, name: admin.change_account(name, AccountPatchBody(enabled=True)), as_json
    )


@commands.command("disable")
def accounts_disable(names: Names, as_json: Json = False) -> None:
    """Have accounts not used for now; what runs goes on."""
    _each(
        names, "is not used", lambda admin, name: admin.change_account(name, AccountPatchBody(enabled=False)), as_json
    )


@commands.command("remove")
def accounts_remove(names: Names, yes: Yes = False, as_json: Json = False) -> None:
    """Forget accounts, their passwords and their tokens. Their usage stays."""
    if not goes_ahead(dry_run=False, yes=yes, as_json=as_json, question=f"Forget {', '.join(names)}?"):
        say("Nothing was done; with --yes it is.")
        return
    _each(names, "is forgotten", lambda admin, name: admin.remove_account(name), as_json)


def _each(
    names: Sequence[str], outcome: str, act: Callable[[Administration, str], Awaitable[object]], as_json: bool
) -> None:
    """Do it to each in turn; the first that the server refuses ends it."""

    async def work(admin: Administration) -> list[object]:
        told: list[object] = []
        for name in names:
            told.append(await act(admin, name))
            if not as_json:
                say(f"{name} {outcome}. {getattr(told[-1], 'note', '') if outcome == 'is forgotten' else ''}".rstrip())
        return told

    told = administer(work)
    if as_json:
        print_json({"accounts": told})


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
    until = f" until {shown(result.expires_at)} UTC" if result.expires_at else ""
    line = f"{result.account}, through {result.exit}: {result.says}{until} ({result.seconds:.1f} s)"
    print_mark(Verdict.FAIL if result.trouble else Verdict.OK, line, result.advice)
