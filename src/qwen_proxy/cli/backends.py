"""The commands of backends: API keys and servers of one's own."""

import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy.accounts.key_health import KeyState
from qwen_proxy.admin.backends import BackendKeyBody, BackendTestBody, KnownBackendBody, TriedKeyBody
from qwen_proxy.cli.asking import ApiKeyFile, ApiKeys, BackendName, Yes, given_api_keys, goes_ahead, words
from qwen_proxy.cli.backend_keys import commands as of_keys
from qwen_proxy.cli.backend_keys import print_backend_keys
from qwen_proxy.cli.output import Json, console, print_json, print_mark, say, table
from qwen_proxy.cli.work import administer
from qwen_proxy.config.backend_book import NO_KEY, BackendOrigin
from qwen_proxy.config.backends import PRESETS, BackendForm, ServerKind, Thinking
from qwen_proxy.operations.administration import Administration
from qwen_proxy.operations.advice import Verdict
from qwen_proxy.operations.backends import key_advice
from qwen_proxy.operations.moments import shown

commands: Final = typer.Typer(help="Backends besides chat.qwen.ai: API keys, own servers.", no_args_is_help=True)
commands.add_typer(of_keys, name="keys")

BaseUrl = Annotated[str | None, typer.Option(help="What stands before /chat/completions, mostly ending in /v1.")]
Kind = Annotated[ServerKind | None, typer.Option(help="As policies of keys speak of it.")]
Models = Annotated[str | None, typer.Option(help="Ids, with commas between; without them the server is asked.")]
Prefix = Annotated[str | None, typer.Option(help="Put before its models' ids in the public list.")]
Headers = Annotated[list[str] | None, typer.Option("--header", metavar="NAME: VALUE", help="Sent with each request.")]
Exit = Annotated[str | None, typer.Option(help="A proxy for this backend, such as socks5://user:password@host:1080.")]
Concurrency = Annotated[int | None, typer.Option(min=0, help="Requests at a time, over all processes; 0: no limit.")]
KeyConcurrency = Annotated[int | None, typer.Option(min=0, help="The same with each key.")]
Thinks = Annotated[Thinking | None, typer.Option(help="How it is told to think.")]


@commands.command("list")
def backends_list(as_json: Json = False) -> None:
    """List the backends and how their keys are."""
    found = administer(lambda admin: admin.backends())
    if as_json:
        print_json({"backends": found})
        return
    if not found:
        say("There is no backend but the site; 'qwen-proxy backends add' adds one.")
        return
    rows = table("Backend", "Kind", "Address", "From", "Models", "Prefix", "Keys", "State")
    for each in found:
        rows.add_row(
            Text(each.name),
            each.kind.value,
            Text(each.base_url),
            each.origin.value,
            _count(each),
            Text(each.prefix),
            str(sum(key.id != NO_KEY for key in each.keys)),
            _state(each),
        )
    console().print(rows)
    for each in found:
        _tell_keys(each.name, [key for key in each.keys if key.reason])


@commands.command("show")
def backends_show(name: BackendName, as_json: Json = False) -> None:
    """Show one backend, its settings and its keys; never a key itself."""
    found = administer(lambda admin: admin.backend(name))
    if as_json:
        print_json(found)
        return
    rows = table("Field", "Value")
    for field, value in (
        ("name", found.name),
        ("address", found.base_url),
        ("kind", found.kind.value),
        ("preset", found.preset),
        ("from", found.origin.value),
        ("enabled", "yes" if found.enabled else "no"),
        ("models", ", ".join(found.models) or f"asked of the server ({_count(found)})"),
        ("prefix", found.prefix),
        ("headers", ", ".join(found.headers)),
        ("exit", found.exit),
        ("concurrency", str(found.concurrency or "no limit")),
        ("key concurrency", str(found.key_concurrency or "no limit")),
        ("thinking", found.thinking.value),
    ):
        if value:
            rows.add_row(field, Text(value))
    console().print(rows)
    say("")
    print_backend_keys(found.keys)


@commands.command("add")
def backends_add(
    preset: Annotated[str | None, typer.Option(help=f"A known offer: {', '.join(PRESETS)}.")] = None,
    name: Annotated[str | None, typer.Option(help="Its name; without it the preset's.")] = None,
    base_url: BaseUrl = None,
    keys: ApiKeys = None,
    key_file: ApiKeyFile = None,
    models: Models = None,
    prefix: Prefix = None,
    headers: Headers = None,
    exit: Exit = None,
    concurrency: Concurrency = None,
    key_concurrency: KeyConcurrency = None,
    kind: Kind = None,
    thinking: Thinks = None,
    test: Annotated[bool, typer.Option("--test/--no-test", help="Whether to try its keys at once.")] = True,
    as_json: Json = False,
) -> None:
    """Add a backend; it serves in every worker within a second. Its keys are asked for, or read from a file or pipe."""
    known = PRESETS.get(preset or "")
    if keys is None and key_file is None and known is not None and known.has_keys:
        keys = ["-"]
    form = BackendForm(
        name=name,
        preset=preset,
        base_url=base_url,
        kind=kind,
        keys=given_api_keys(keys, key_file),
        models=None if models is None else words(models),
        prefix=prefix,
        headers=_headers(headers),
        exit=exit,
        concurrency=concurrency,
        key_concurrency=key_concurrency,
        thinking=thinking,
    )

    async def add(admin: Administration) -> tuple[KnownBackendBody, BackendTestBody | None, bool]:
        added = await admin.add_backend(form)
        return added, await admin.test_backend(added.name) if test else None, admin.is_running

    added, told, is_running = administer(add)
    if as_json:
        print_json({"backend": added, "test": told})
    else:
        say(f"{added.name} was added: {added.base_url}")
        if told is not None:
            _print_test(told)
        _say_next(added, told, is_running=is_running)
    if told is not None and not told.works:
        sys.exit(1)


def _say_next(added: KnownBackendBody, told: BackendTestBody | None, *, is_running: bool) -> None:
    if told is not None and not told.works:
        say(f"It is kept all the same; 'qwen-proxy backends test {added.name}' tries it again, 'edit' changes it.")
        return
    first = next((each.models[0] for each in told.keys if each.models), "") if told is not None else ""
    if not is_running:
        say("No server runs here; 'qwen-proxy serve' will serve it.")
    elif first:
        say(f"It serves now. Try: qwen-proxy chat hello --model {added.prefix}{first}")
    say("'qwen-proxy routes set NAME BACKEND:MODEL' has another name lead to one of its models.")


@commands.command("edit")
def backends_edit(
    name: BackendName,
    base_url: BaseUrl = None,
    keys: ApiKeys = None,
    key_file: ApiKeyFile = None,
    models: Models = None,
    prefix: Prefix = None,
    headers: Headers = None,
    exit: Exit = None,
    concurrency: Concurrency = None,
    key_concurrency: KeyConcurrency = None,
    kind: Kind = None,
    thinking: Thinks = None,
    as_json: Json = False,
) -> None:
    """Change a backend; what is not given stays. Keys and headers that are given take the place of all that were;
    'backends keys' adds and removes single ones."""
    form = BackendForm(
        base_url=base_url,
        kind=kind,
        keys=given_api_keys(keys, key_file),
        models=None if models is None else words(models),
        prefix=prefix,
        headers=_headers(headers),
        exit=exit,
        concurrency=concurrency,
        key_concurrency=key_concurrency,
        thinking=thinking,
    )
    if form == BackendForm():
        raise typer.BadParameter("nothing is to change; --help shows what can be")
    _tell(administer(lambda admin: admin.edit_backend(name, form)), "is changed", as_json=as_json)


@commands.command("enable")
def backends_enable(name: BackendName, as_json: Json = False) -> None:
    """Have a backend used again."""
    form = BackendForm(enabled=True)
    _tell(administer(lambda admin: admin.edit_backend(name, form)), "is used again", as_json=as_json)


@commands.command("disable")
def backends_disable(name: BackendName, as_json: Json = False) -> None:
    """Have a backend not used for now, in every worker within a second; what runs goes on."""
    form = BackendForm(enabled=False)
    _tell(administer(lambda admin: admin.edit_backend(name, form)), "is not used", as_json=as_json)


@commands.command("remove")
def backends_remove(name: BackendName, yes: Yes = False, as_json: Json = False) -> None:
    """Forget a backend and its keys; what runs goes on. Its usage stays."""
    if not goes_ahead(dry_run=False, yes=yes, as_json=as_json, question=f"Forget {name} and its keys?"):
        say("Nothing was done; with --yes it is.")
        return
    administer(lambda admin: admin.remove_backend(name))
    if as_json:
        print_json({"removed": name})
    else:
        say(f"{name} is forgotten.")


@commands.command("test")
def backends_test(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help="Without names all are tried.")] = None,
    as_json: Json = False,
) -> None:
    """Ask each server for its models with every key; a key that works is used again, whatever it did before."""

    async def test(admin: Administration) -> list[BackendTestBody]:
        told: list[BackendTestBody] = []
        for name in names or [each.name for each in await admin.backends()]:
            told.append(await admin.test_backend(name))
            if not as_json:
                _print_test(told[-1])
        return told

    told = administer(test)
    if as_json:
        print_json({"tests": told})
    elif not told:
        say("There is no backend but the site; 'qwen-proxy backends add' adds one.")
    if not all(each.works for each in told):
        sys.exit(1)


def _print_test(told: BackendTestBody) -> None:
    health = {key.id: key for key in told.backend.keys}
    for each in told.keys:
        said = f"{len(each.models)} models" if not each.problem else each.problem
        line = f"{told.backend.name}, {_key_name(each)}: {said} ({told.took_seconds:.1f} s)"
        advice = key_advice(told.backend, health.get(each.id)) if each.problem else ""
        print_mark(Verdict.FAIL if each.problem else Verdict.OK, line, advice)
    if not told.backend.enabled:
        say(f"{told.backend.name} is switched off: 'qwen-proxy backends enable {told.backend.name}'.", "yellow")


def _tell(body: KnownBackendBody, outcome: str, *, as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    say(f"{body.name} {outcome}.")
    if outcome == "is changed":
        say(f"'qwen-proxy backends test {body.name}' tries it.")
    if outcome == "is not used" and body.origin is BackendOrigin.ENVIRONMENT:
        say("That is kept over restarts, whatever the environment says.")


def _tell_keys(name: str, keys: Sequence[BackendKeyBody]) -> None:
    for key in keys:
        until = "" if key.until is None else f" until {shown(key.until)} UTC"
        say(f"{name}, {_key_name(key)}: {key.state.value}{until}: {key.reason}", "yellow")


def _key_name(key: BackendKeyBody | TriedKeyBody) -> str:
    return "without a key" if key.id == NO_KEY else f"key {key.hint or key.id}"


def _state(body: KnownBackendBody) -> Text:
    if not body.enabled:
        return Text("switched off", "dim")
    ready = sum(key.state is KeyState.READY for key in body.keys)
    if ready == len(body.keys):
        return Text("ready", "green")
    return Text(f"{ready} of {len(body.keys)} keys ready", "yellow" if ready else "red")


def _count(body: KnownBackendBody) -> str:
    if body.models:
        return str(len(body.models))
    return "unknown" if body.listed is None else str(body.listed)


def _headers(given: Sequence[str] | None) -> dict[str, str] | None:
    """Raises typer.BadParameter."""
    if given is None:
        return None
    pairs = [line.partition(":") for line in given]
    if not all(colon for _, colon, _ in pairs):
        raise typer.BadParameter("a header is NAME: VALUE", param_hint="--header")
    return {name.strip(): value.strip() for name, _, value in pairs}
