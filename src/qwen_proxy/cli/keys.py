"""The commands of clients' keys."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from urllib.parse import quote

import typer
from rich.table import Column
from rich.text import Text

from qwen_proxy.admin.keys import KeyBody, KeysBody, LimitsBody, MadeKeyBody, NewKeyBody
from qwen_proxy.cli.output import Json, console, print_json, say, say_aside, table
from qwen_proxy.cli.work import run, settings_now, through_server
from qwen_proxy.config.keys import Role
from qwen_proxy.operations.client import ServerClient, ServerRefused
from qwen_proxy.runtime.clock import SystemClock

PATH: Final = "/api/admin/keys"
commands: Final = typer.Typer(help="Clients' keys.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="The key's id, its name, or its hint.")]


@commands.command("create")
def create(
    name: Annotated[str, typer.Option(help="What to call it.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="An admin's key.")] = False,
    days: Annotated[float | None, typer.Option(help="Days until it works no more.")] = None,
    models: Annotated[str, typer.Option(help="Models it may use, with commas between; * and ? are wildcards.")] = "",
    endpoints: Annotated[str, typer.Option(help="Endpoints it may call, with commas between, such as chat.")] = "",
    rpm: Annotated[int | None, typer.Option(help="Requests a minute; 0 for no limit.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens a minute; 0 for no limit.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at a time; 0 for no limit.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Tokens a day (UTC); 0 for no limit.")] = None,
    tokens_per_month: Annotated[int | None, typer.Option(help="Tokens a month (UTC); 0 for no limit.")] = None,
    note: Annotated[str, typer.Option(help="A note for operators.")] = "",
    as_json: Json = False,
) -> None:
    """Make a key and show it, once."""
    now = SystemClock().now()
    wish = NewKeyBody(
        name=name,
        role=Role.ADMIN if admin else Role.USER,
        expires_at=None if days is None else now + timedelta(days=days).total_seconds(),
        allowed_models=_words(models),
        allowed_endpoints=_words(endpoints),
        limits=LimitsBody(
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            concurrent_requests=concurrency,
            tokens_per_day=tokens_per_day,
            tokens_per_month=tokens_per_month,
        ),
        note=note,
    )
    made = run(through_server(settings_now(), lambda client: client.call("POST", PATH, MadeKeyBody, wish)))
    if as_json:
        print_json(made)
        return
    say(made.secret)
    say_aside(f"This is key {made.key.name} ({made.key.id}); it is not shown again.")


@commands.command("list")
def list_keys(as_json: Json = False) -> None:
    """List every key, also those that do not work any more."""
    keys = run(through_server(settings_now(), _all))
    if as_json:
        print_json({"keys": keys})
        return
    rows = table("Name", "Hint", "Role", "Status", "Until", "Limits", "May use", Column("Id", no_wrap=True))
    for key in keys:
        until = "" if key.expires_at is None else f"{datetime.fromtimestamp(key.expires_at, UTC):%Y-%m-%d %H:%M} UTC"
        allowed = ", ".join((*key.allowed_models, *key.allowed_endpoints))
        status = key.status.value
        cells = (key.name, key.hint, key.role.value, status, until, _limits(key.limits), allowed, key.id)
        rows.add_row(*map(Text, cells), style="" if status == "active" else "dim")
    console().print(rows)


@commands.command("revoke")
def revoke(which: Which, as_json: Json = False) -> None:
    """Have a key work no more, until it is restored."""
    _act(which, "revoke", as_json)


@commands.command("restore")
def restore(which: Which, as_json: Json = False) -> None:
    """Have a revoked key work again."""
    _act(which, "restore", as_json)


@commands.command("delete")
def delete(which: Which, as_json: Json = False) -> None:
    """Forget a key; one that API_KEY lists is revoked instead."""

    async def work(client: ServerClient) -> KeyBody:
        key = _named(which, await _all(client))
        await client.do("DELETE", f"{PATH}/{quote(key.id)}")
        return key

    key = run(through_server(settings_now(), work))
    if as_json:
        print_json({"deleted": key.id})
    else:
        say(f"Key {key.name} ({key.id}) works no more.")


def _act(which: str, action: str, as_json: bool) -> None:
    async def work(client: ServerClient) -> KeyBody:
        key = _named(which, await _all(client))
        return await client.call("POST", f"{PATH}/{quote(key.id)}/{action}", KeyBody)

    key = run(through_server(settings_now(), work))
    if as_json:
        print_json(key)
    else:
        say(f"Key {key.name} ({key.id}) is {key.status.value}.")


async def _all(client: ServerClient) -> tuple[KeyBody, ...]:
    return (await client.call("GET", PATH, KeysBody)).keys


def _named(which: str, keys: tuple[KeyBody, ...]) -> KeyBody:
    """The one key that goes by this. Raises ServerRefused when none or several do."""
    found = [key for key in keys if key.id == which] or [key for key in keys if which in (key.name, key.hint)]
    if len(found) != 1:
        many = "several keys go" if found else "no key goes"
        raise ServerRefused(404, f"{many} by {which!r}; 'qwen-proxy keys list' shows their ids")
    return found[0]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _limits(limits: LimitsBody) -> str:
    named = (
        (limits.requests_per_minute, "requests/min"),
        (limits.tokens_per_minute, "tokens/min"),
        (limits.concurrent_requests, "at a time"),
        (limits.tokens_per_day, "tokens/day"),
        (limits.tokens_per_month, "tokens/month"),
    )
    return ", ".join(f"{limit:,} {what}" if limit else f"any {what}" for limit, what in named if limit is not None)
