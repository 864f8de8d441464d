"""The commands of accounts."""

import sys
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

import typer

from qwen_proxy.app.commons import open_commons
from qwen_proxy.app.door import open_door
from qwen_proxy.app.machine import Machine
from qwen_proxy.cli.output import Json, print_json, print_mark, say
from qwen_proxy.cli.work import run, settings_now
from qwen_proxy.operations import accounts
from qwen_proxy.operations.advice import Verdict
from qwen_proxy.operations.places import own_place
from qwen_proxy.operations.upstream import open_destination
from qwen_proxy.runtime.clock import SystemClock

commands: Final = typer.Typer(help="The accounts of ACCOUNTS.", no_args_is_help=True)


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
