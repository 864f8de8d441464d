"""The commands of a backend's API keys, one by one."""

from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy.accounts.key_health import KeyState
from qwen_proxy.admin.backends import BackendKeyBody, KnownBackendBody
from qwen_proxy.cli.asking import ApiKeyFile, ApiKeys, BackendName, Yes, given_api_keys, goes_ahead
from qwen_proxy.cli.output import Json, console, print_json, say, table
from qwen_proxy.cli.work import administer
from qwen_proxy.config.backend_book import NO_KEY
from qwen_proxy.operations.administration import Administration
from qwen_proxy.operations.moments import shown

commands: Final = typer.Typer(help="A backend's API keys, one by one.", no_args_is_help=True)

Called = Annotated[list[str], typer.Argument(metavar="KEY…", help="Their ids, or how they end, as the list has it.")]
STYLES: Final = {KeyState.READY: "green", KeyState.RETIRED: "red"}


@commands.command("list")
def keys_list(name: BackendName, as_json: Json = False) -> None:
    """List a backend's keys and how they are; never a key itself."""
    found = administer(lambda admin: admin.backend(name))
    keys = [key for key in found.keys if key.id != NO_KEY]
    if as_json:
        print_json({"keys": keys})
    elif keys:
        print_backend_keys(keys)
    else:
        say(f"{name} has no key: its server is asked without one.")


@commands.command("add")
def keys_add(name: BackendName, keys: ApiKeys = None, key_file: ApiKeyFile = None, as_json: Json = False) -> None:
    """Give a backend more keys, which are asked for, or read from a file or pipe. Those that it has stay."""
    given = given_api_keys(["-"] if keys is None and key_file is None else keys, key_file) or ()

    async def add(admin: Administration) -> tuple[KnownBackendBody, int]:
        before = {key.id for key in (await admin.backend(name)).keys}
        after = await admin.add_backend_keys(name, given)
        return after, sum(key.id not in before for key in after.keys)

    found, new = administer(add)
    if as_json:
        print_json(found)
        return
    what = "one key" if new == 1 else f"{new} keys"
    say(f"{name} has {what} more, {_count(found)} in all." if new else f"{name} has had all of them: {_count(found)}.")
    say(f"'qwen-proxy backends test {name}' tries them.")


@commands.command("remove")
def keys_remove(name: BackendName, keys: Called, yes: Yes = False, as_json: Json = False) -> None:
    """Forget keys of a backend; what runs with them goes on."""
    what = "this key" if len(keys) == 1 else f"these {len(keys)} keys"
    if not goes_ahead(dry_run=False, yes=yes, as_json=as_json, question=f"Forget {what} of {name}?"):
        say("Nothing was done; with --yes it is.")
        return
    removed, left = administer(lambda admin: admin.remove_backend_keys(name, keys))
    if as_json:
        print_json({"removed": removed})
        return
    count = _count(left)
    say(f"{name}: {len(removed)} {'key is' if len(removed) == 1 else 'keys are'} forgotten, {count} left.")
    if not count:
        say("Its server is asked without a key from now on; 'qwen-proxy backends disable' has it not asked.", "yellow")


def print_backend_keys(keys: Sequence[BackendKeyBody]) -> None:
    rows = table("Key", "Ends in", "State", "In use", "Used again (UTC)", "Why")
    for key in keys:
        until = "" if key.until is None else shown(key.until)
        state = Text(key.state.value, STYLES.get(key.state, "yellow"))
        rows.add_row(Text(key.id), Text(key.hint), state, str(key.in_use), until, Text(key.reason))
    console().print(rows)


def _count(body: KnownBackendBody) -> int:
    return sum(key.id != NO_KEY for key in body.keys)
