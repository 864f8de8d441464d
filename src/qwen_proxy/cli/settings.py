"""The commands of settings that change at run time, and of the audit log."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy.admin.records import AuditBody
from qwen_proxy.admin.settings import (
    SettingsBody,
    SettingsChangedBody,
    SettingsHistoryBody,
    SettingsPatchBody,
    UndoBody,
)
from qwen_proxy.cli.output import Json, console, print_json, say, table
from qwen_proxy.cli.work import run, settings_now, through_server

PATH: Final = "/api/admin/settings"
commands: Final = typer.Typer(help="Settings that change while the server runs.", no_args_is_help=True)
audit_commands: Final = typer.Typer()


@commands.command("list")
def list_settings(
    everything: Annotated[bool, typer.Option("--all", help="Also those that need a new start.")] = False,
    as_json: Json = False,
) -> None:
    """List what is in force, and where each value came from."""
    body = run(through_server(settings_now(), lambda client: client.call("GET", PATH, SettingsBody)))
    shown = [setting for setting in body.settings if setting.is_live or everything]
    if as_json:
        print_json({"settings": shown})
        return
    rows = table("Setting", "Value", "From", "Meaning")
    for setting in shown:
        style = "dim" if setting.source == "default" else ""
        cells = (setting.name, setting.value or "unset", setting.source, setting.meaning)
        rows.add_row(*map(Text, cells), style=style)
    console().print(rows)


@commands.command("set")
def set_setting(
    name: Annotated[str, typer.Argument(help="The variable.")],
    value: Annotated[str, typer.Argument(help="Its value, as in .env.")],
    as_json: Json = False,
) -> None:
    """Change a setting in every worker, within a second."""
    _change(name, value, as_json)


@commands.command("unset")
def unset_setting(name: Annotated[str, typer.Argument(help="The variable.")], as_json: Json = False) -> None:
    """Go back to the value of the start."""
    _change(name, None, as_json)


@commands.command("history")
def history(as_json: Json = False) -> None:
    """Tell who changed what, newest first."""
    path = f"{PATH}/history"
    body = run(through_server(settings_now(), lambda client: client.call("GET", path, SettingsHistoryBody)))
    if as_json:
        print_json(body)
        return
    rows = table("Number", "When", "By", "What")
    for entry in body.entries:
        what = "; ".join(f"{each.name}: {_told(each.before)} -> {_told(each.after)}" for each in entry.changes)
        rows.add_row(str(entry.number), _when(entry.at), Text(entry.by), Text(what))
    console().print(rows)


@commands.command("undo")
def undo(
    number: Annotated[int | None, typer.Argument(help="Of the history's entry to go back to; else the last.")] = None,
    as_json: Json = False,
) -> None:
    """Take the last change back, or go back to how it was after an earlier one."""
    wish = UndoBody(number=number)
    body = run(
        through_server(settings_now(), lambda client: client.call("POST", f"{PATH}/undo", SettingsChangedBody, wish))
    )
    _print_changes(body, as_json)


@audit_commands.command("audit")
def audit(
    limit: Annotated[int, typer.Option(help="How many lines.")] = 50,
    as_json: Json = False,
) -> None:
    """Tell who did what, newest first."""
    path = f"/api/admin/audit?limit={limit}"
    body = run(through_server(settings_now(), lambda client: client.call("GET", path, AuditBody)))
    if as_json:
        print_json(body)
        return
    rows = table("When", "By", "What", "To", "Details")
    for entry in body.entries:
        details = ", ".join(f"{name}={value}" for name, value in entry.details.items())
        cells = (_when(entry.at), entry.key_name, entry.action, entry.target, details)
        rows.add_row(*map(Text, cells))
    console().print(rows)


def _change(name: str, value: str | None, as_json: bool) -> None:
    wish = SettingsPatchBody({name: value})
    body = run(through_server(settings_now(), lambda client: client.call("PATCH", PATH, SettingsChangedBody, wish)))
    _print_changes(body, as_json)


def _print_changes(body: SettingsChangedBody, as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    for change in body.changes:
        say(f"{change.name}: {_told(change.before)} -> {_told(change.after)}")
    if not body.changes:
        say("It was so already.")


def _told(value: str | None) -> str:
    return "as at the start" if value is None else value


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
