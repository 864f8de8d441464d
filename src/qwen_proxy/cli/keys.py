"""The commands of clients' keys."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy.admin.keys import KeyBody, LimitsBody, NewKeyBody
from qwen_proxy.cli.asking import words
from qwen_proxy.cli.output import Json, console, print_json, say, say_aside, table
from qwen_proxy.cli.work import administer
from qwen_proxy.config.keys import KeyStatus, Role
from qwen_proxy.operations.moments import ACCEPTS, WrongMoment, ahead, shown
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.state.store import DAY_SECONDS

commands: Final = typer.Typer(help="The keys that clients call with.", no_args_is_help=True)

KeyName = Annotated[str, typer.Argument(metavar="KEY", help="Its id, or its name or hint where only one has that.")]
STYLES: Final = {KeyStatus.ACTIVE: "green", KeyStatus.REVOKED: "red"}


@commands.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What to call it.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="It may do everything, also change settings.")] = False,
    expires: Annotated[str | None, typer.Option(help=f"When it ends: {ACCEPTS}.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="The same in days.")] = None,
    models: Annotated[str, typer.Option(help="Models it may use, with commas between; * and ? are wildcards.")] = "",
    endpoints: Annotated[str, typer.Option(help="Endpoints it may call, with commas between, such as chat.")] = "",
    backends: Annotated[
        str, typer.Option(help="Backends it may use: names or kinds (web, api, local), with commas between.")
    ] = "",
    rpm: Annotated[int | None, typer.Option(help="Requests a minute; 0 for no limit.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens a minute; 0 for no limit.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Tokens a day (UTC); 0 for no limit.")] = None,
    tokens_per_month: Annotated[int | None, typer.Option(help="Tokens a month (UTC); 0 for no limit.")] = None,
    api_tokens_per_day: Annotated[
        int | None, typer.Option(help="Tokens a day (UTC) on backends that are APIs; 0 for no limit.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at a time; 0 for no limit.")] = None,
    note: Annotated[str, typer.Option(help="Anything to remember.")] = "",
    key_file: Annotated[Path | None, typer.Option(help="File with a key of your own, in its first line.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this once; limits not given are those of the settings."""
    own = None
    if key_file is not None:
        own = (key_file.read_text("utf-8-sig").splitlines() or [""])[0].strip()
    body = NewKeyBody(
        key=own,
        name=name,
        role=Role.ADMIN if admin else Role.USER,
        expires_at=_end(expires, days),
        allowed_models=words(models),
        allowed_endpoints=words(endpoints),
        allowed_backends=words(backends),
        limits=LimitsBody(
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            tokens_per_day=tokens_per_day,
            tokens_per_month=tokens_per_month,
            api_tokens_per_day=api_tokens_per_day,
            concurrent_requests=concurrency,
        ),
        note=note,
    )
    made = administer(lambda admin: admin.create_key(body))
    if as_json:
        print_json(made)
        return
    sys.stdout.write(made.secret + "\n")
    say_aside(f"This is key {made.key.name} ({made.key.id}); it is not shown again.")


def _end(text: str | None, days: float | None) -> float | None:
    now = SystemClock().now()
    if text is None:
        return None if days is None else now + days * DAY_SECONDS
    if days is not None:
        raise typer.BadParameter("--expires and --days exclude each other")
    try:
        return ahead(text, now)
    except WrongMoment as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from error


@commands.command("list")
def keys_list(as_json: Json = False) -> None:
    """List the keys, also those that work no more."""
    found = administer(lambda admin: admin.keys())
    if as_json:
        print_json({"keys": found})
        return
    rows = table("Id", "Name", "Key", "Role", "Status", "Ends", "May", "Limits")
    for key in found:
        rows.add_row(
            Text(key.id),
            Text(key.name),
            Text(key.hint),
            key.role.value,
            Text(key.status.value, STYLES.get(key.status, "dim")),
            shown(key.expires_at),
            Text(", ".join((*key.allowed_models, *key.allowed_endpoints, *key.allowed_backends)) or "all"),
            _limits(key.limits),
        )
    console().print(rows)


@commands.command("revoke")
def keys_revoke(key: KeyName, as_json: Json = False) -> None:
    """Have a key work no more, until it is restored; within a second, everywhere."""
    _tell(administer(lambda admin: admin.revoke_key(key)), "works no more", as_json=as_json)


@commands.command("restore")
def keys_restore(key: KeyName, as_json: Json = False) -> None:
    """Have a revoked key work again."""
    _tell(administer(lambda admin: admin.restore_key(key)), "works again", as_json=as_json)


@commands.command("delete")
def keys_delete(key: KeyName, as_json: Json = False) -> None:
    """Forget a key; one that API_KEY lists is revoked instead."""
    id = administer(lambda admin: admin.delete_key(key))
    if as_json:
        print_json({"deleted": id})
    else:
        say(f"{key} ({id}) works no more.")


def _tell(key: KeyBody, outcome: str, *, as_json: bool) -> None:
    if as_json:
        print_json(key)
    elif outcome == "works again" and key.status is not KeyStatus.ACTIVE:
        say(f"{key.name} ({key.hint}) is restored, but it is {key.status.value}.")
    else:
        say(f"{key.name} ({key.hint}) {outcome}.")


def _limits(limits: LimitsBody) -> str:
    words = (
        ("requests/min", limits.requests_per_minute),
        ("tokens/min", limits.tokens_per_minute),
        ("tokens/day", limits.tokens_per_day),
        ("tokens/month", limits.tokens_per_month),
        ("API tokens/day", limits.api_tokens_per_day),
        ("at a time", limits.concurrent_requests),
    )
    return ", ".join(f"{limit:,} {word}" if limit else f"any {word}" for word, limit in words if limit is not None)
