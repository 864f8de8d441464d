"""The commands of settings that change at run time, and of the audit log."""

from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy.admin.settings import SettingsChangedBody, ValueChangeBody
from qwen_proxy.cli.output import Json, console, print_json, say, table, warn_of
from qwen_proxy.cli.work import administer
from qwen_proxy.operations.moments import shown

commands: Final = typer.Typer(help="Settings that change while the server runs.", no_args_is_help=True)
audit_commands: Final = typer.Typer()

MOST: Final = 50
AS_THE_START: Final = "as the start has it"


@commands.command("list")
def settings_list(
    show_all: Annotated[bool, typer.Option("--all", help="Also those that are read at the start only.")] = False,
    as_json: Json = False,
) -> None:
    """List the settings in force in the server, and where each came from."""
    told = administer(lambda admin: admin.settings())
    if as_json:
        print_json(told)
        return
    rows = table("Setting", "Value", "From", "Meaning")
    for each in told.settings:
        if each.is_live or show_all:
            style = "dim" if each.source == "default" else ""
            rows.add_row(Text(each.name), Text(each.value or "unset"), each.source, Text(each.meaning), style=style)
    console().print(rows)
    warn_of(told.warnings)


@commands.command("set")
def settings_set(
    values: Annotated[
        list[str], typer.Argument(metavar="NAME VALUE|NAME=VALUE…", help="One, or several at once with = between.")
    ],
    as_json: Json = False,
) -> None:
    """Change settings in every worker, within a second; over environment and .env until they are unset."""
    given: dict[str, str | None] = {}
    if len(values) == 2 and "=" not in values[0]:
        values = [f"{values[0]}={values[1]}"]
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{value[:40]!r} is not of the form NAME=VALUE")
        given[name.strip()] = text.strip()
    _tell(administer(lambda admin: admin.change_settings(given)), as_json=as_json)


@commands.command("unset")
def settings_unset(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Such as CHAT_RETRY_COUNT.")],
    as_json: Json = False,
) -> None:
    """Have settings as environment, .env or default say."""
    _tell(administer(lambda admin: admin.change_settings(dict.fromkeys(names))), as_json=as_json)


@commands.command("history")
def settings_history(
    limit: Annotated[int, typer.Option(min=1, help="How many entries.")] = MOST, as_json: Json = False
) -> None:
    """Tell who changed what, the newest first."""
    entries = administer(lambda admin: admin.settings_history(limit))
    if as_json:
        print_json({"entries": entries})
        return
    rows = table("Number", "At (UTC)", "By", "Changes")
    for entry in entries:
        changes = "; ".join(map(_change, entry.changes))
        rows.add_row(str(entry.number), shown(entry.at), Text(entry.by), Text(changes))
    console().print(rows)


@commands.command("undo")
def settings_undo(
    number: Annotated[int | None, typer.Argument(help="An entry of the history: as it was right after it.")] = None,
    as_json: Json = False,
) -> None:
    """Go back to an earlier state; without a number, to that before the newest change."""
    _tell(administer(lambda admin: admin.undo_settings(number)), as_json=as_json)


@audit_commands.command()
def audit(
    limit: Annotated[int, typer.Option(min=1, help="How many entries.")] = MOST,
    before: Annotated[int | None, typer.Option(help="Only entries older than this number.")] = None,
    as_json: Json = False,
) -> None:
    """Tell who did what, the newest first."""
    entries = administer(lambda admin: admin.audit(limit, before))
    if as_json:
        print_json({"entries": entries})
        return
    rows = table("Number", "At (UTC)", "By", "From", "Action", "To", "Details")
    for entry in entries:
        details = ", ".join(f"{name}: {value}" for name, value in entry.details.items())
        rows.add_row(
            str(entry.number),
            shown(entry.at),
            Text(entry.key_name),
            Text(entry.address),
            Text(entry.action),
            Text(entry.target),
            Text(details),
        )
    console().print(rows)


def _tell(told: SettingsChangedBody, *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    _print_changes(told.changes)


def _print_changes(changes: Sequence[ValueChangeBody]) -> None:
    for change in changes:
        say(_change(change))
    if not changes:
        say("It was so already.")


def _change(change: ValueChangeBody) -> str:
    before, after = (AS_THE_START if text is None else text or "empty" for text in (change.before, change.after))
    return f"{change.name}: {before} -> {after}"
