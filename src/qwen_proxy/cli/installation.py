"""The commands that look at this installation: its configuration, its keys, its health."""

import sys
from contextlib import aclosing
from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy import __version__
from qwen_proxy.app.machine import Machine
from qwen_proxy.cli.output import Json, console, print_json, print_mark, table, warn_of
from qwen_proxy.cli.work import DOTENV, run, settings_now
from qwen_proxy.config import listing
from qwen_proxy.config.credentials import load_keys
from qwen_proxy.config.variables import GROUPS
from qwen_proxy.operations import advice, doctor
from qwen_proxy.operations.in_force import in_force
from qwen_proxy.operations.local import serve_locally
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.environment import environment
from qwen_proxy.runtime.ids import SystemIds

commands: Final = typer.Typer()


@commands.command()
def config(
    as_json: Json = False,
    example: Annotated[bool, typer.Option("--example", help="Print a .env to begin with.")] = False,
) -> None:
    """Show the settings in force and where each came from, secrets masked."""
    if example:
        sys.stdout.write(listing.dotenv())
        return
    found = run(in_force(settings_now(), Machine()))
    settings = found.settings
    if as_json:
        rows = [
            {
                "name": variable.name,
                "value": settings.texts[variable.name],
                "source": settings.sources[variable.name],
                "default": variable.default,
                "group": group.title,
                "meaning": variable.meaning,
            }
            for group in GROUPS
            for variable in group.variables
        ]
        print_json({"variables": rows, "warnings": found.warnings})
        return
    rows = table("Variable", "Value", "From")
    for group in GROUPS:
        rows.add_row(Text(group.title, "bold"))
        for variable in group.variables:
            source = settings.sources[variable.name]
            style = "dim" if source.value == "default" else ""
            rows.add_row(Text(variable.name), Text(settings.texts[variable.name] or "unset"), source.value, style=style)
    console().print(rows)
    warn_of(found.warnings)


@commands.command()
def key(
    as_json: Json = False,
    where: Annotated[bool, typer.Option("--where", help="Tell where the key comes from, not the key.")] = False,
) -> None:
    """Show the admin key; without API_KEY one is generated and kept in DATA_DIR."""
    settings = settings_now()
    keys = load_keys(settings, SystemIds())
    origin = str(keys.file) if keys.file else f"API_KEY ({settings.sources['API_KEY'].value})"
    if as_json:
        print_json({"where": origin} if where else {"where": origin, "key": keys.admin.reveal()})
    else:
        sys.stdout.write((origin if where else keys.admin.reveal()) + "\n")
    warn_of(keys.warnings)


@commands.command("doctor")
def doctor_command(
    as_json: Json = False,
    chats: Annotated[bool, typer.Option("--chat/--no-chat", help="Whether to spend one request on a chat.")] = True,
) -> None:
    """Look at everything from the configuration to one chat, and say what to do."""

    async def examine() -> list[advice.Check]:
        physician = doctor.Doctor(SystemClock(), SystemIds(), serve_locally, doctor.DoctorOptions(chats=chats))
        checks: list[advice.Check] = []
        async with aclosing(physician.examine(environment(), DOTENV)) as found:
            async for check in found:
                checks.append(check)
                if not as_json:
                    print_mark(check.verdict, f"{check.name}: {check.says}", check.advice)
        return checks

    checks = run(examine())
    verdict = advice.overall(checks)
    if as_json:
        print_json({"verdict": verdict, "checks": checks})
    if verdict is advice.Verdict.FAIL:
        sys.exit(1)


@commands.command()
def version(as_json: Json = False) -> None:
    """Show the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        sys.stdout.write(f"qwen-proxy {__version__}\n")
