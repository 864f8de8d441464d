"""The commands that look after what is kept: a copy of it, whether it is whole, and the secret it is sealed under."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from qwen_proxy.app.machine import Machine
from qwen_proxy.cli.asking import Yes, goes_ahead
from qwen_proxy.cli.output import Json, counter, print_json, say, say_aside, warn_of
from qwen_proxy.cli.work import run, settings_now
from qwen_proxy.config import keyfile
from qwen_proxy.config.secret_key import LoadedSecret, load_secret
from qwen_proxy.config.settings import Settings
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations import care, integrity, rotation
from qwen_proxy.operations.offline import kept_place, open_kept, open_to_look
from qwen_proxy.storage.opening import FilePlace

commands: Final = typer.Typer()
secret_commands: Final = typer.Typer(help="The secret that what is kept is encrypted under.", no_args_is_help=True)


@commands.command()
def backup(file: Annotated[Path, typer.Argument(help="The file to make.")], as_json: Json = False) -> None:
    """Copy the database as it is, while servers run, and check the copy."""
    settings, machine = settings_now(), Machine()
    run(care.back_up(settings, file, machine))
    size_bytes = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "bytes": size_bytes})
        return
    say(f"{file}: {size_bytes:,} bytes, whole.")
    where = _origin(settings, load_secret(settings, machine.ids))
    say_aside(f"It is of use only with its secret ({where}): keep that too, in another place.")


@commands.command()
def check(as_json: Json = False) -> None:
    """Read all that is kept, and tell what can't be read."""
    settings, machine = settings_now(), Machine()

    async def look() -> integrity.Integrity:
        async with open_to_look(settings, machine) as opened:
            return await integrity.examine(opened)

    seen = run(look())
    if as_json:
        print_json(seen)
    else:
        counts = ", ".join(f"{count} {kind}" for kind, count in seen.records.items())
        say("All can be read." if not seen.faults else "Not all can be read.")
        say(f"Records: {counts or 'none'}")
        warn_of([*seen.faults, *seen.notes])
    if seen.faults:
        sys.exit(1)


@secret_commands.command("show")
def secret_show(
    where: Annotated[bool, typer.Option("--where", help="Tell where it comes from, not the secret.")] = False,
    as_json: Json = False,
) -> None:
    """Show the secret, as another machine that shares the data needs it."""
    settings = settings_now()
    loaded = load_secret(settings, Machine().ids)
    origin = _origin(settings, loaded)
    if as_json:
        print_json({"where": origin} if where else {"where": origin, "secret": loaded.secret.reveal()})
    else:
        sys.stdout.write((origin if where else loaded.secret.reveal()) + "\n")
    warn_of(loaded.warnings)


@secret_commands.command("rotate")
def secret_rotate(
    data_key: Annotated[
        bool, typer.Option("--data-key", help="Seal everything anew with another data key; no server may run.")
    ] = False,
    finishes: Annotated[
        bool, typer.Option("--finish", help="The new secret is in its place everywhere: give the old one up.")
    ] = False,
    new_file: Annotated[Path | None, typer.Option(help="File to write the new secret to, instead of stdout.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Change the secret. Servers may run: they have opened what they need."""
    settings, machine = settings_now(), Machine()
    loaded = load_secret(settings, machine.ids)
    # A file in DATA_DIR is this machine's alone where the data is too: then all is done at once.
    file = loaded.file if isinstance(kept_place(settings), FilePlace) else None

    async def renew() -> int:
        async with open_kept(settings, machine) as opened:
            with counter(shows=not as_json) as tell:
                return await rotation.renew_data_key(
                    opened.store, loaded.secret, machine.clock, lambda count: tell("records", count)
                )

    async def finish() -> None:
        async with open_kept(settings, machine) as opened:
            await rotation.finish(opened.store, loaded.secret)

    async def change(path: Path) -> None:
        async with open_kept(settings, machine) as opened:
            await rotation.rotate_file(opened.store, path, loaded.secret, machine.ids)

    async def begin(new: Secret) -> None:
        async with open_kept(settings, machine) as opened:
            await rotation.begin(opened.store, loaded.secret, new)

    if data_key:
        _tell({"resealed": run(renew())}, "Everything is sealed with the new data key.", as_json=as_json)
        return
    if finishes:
        run(finish())
        _tell({"finished": True}, "The old secret opens nothing any more.", as_json=as_json)
        return
    if not goes_ahead(dry_run=False, yes=yes, as_json=as_json, question="Change the secret?"):
        _tell({"changed": False}, "Nothing was changed; with --yes it is done.", as_json=as_json)
        return
    if file is not None:
        run(change(file))
        _tell({"changed": True, "where": str(file)}, f"The new secret is in {file}.", as_json=as_json)
        return
    new = rotation.new_secret(machine.ids)
    if new_file is not None:
        keyfile.create(new_file, new)  # before the data knows it: it must not be lost
    run(begin(new))
    told = {"where": str(new_file)} if new_file is not None else {"secret": new.reveal()}
    if as_json:
        print_json(told)
    elif new_file is None:
        sys.stdout.write(new.reveal() + "\n")
    say_aside(
        f"Until you finish, both secrets open the data. Put the new one{f' ({new_file})' if new_file else ''} into"
        f" {_origin(settings, loaded)} on every machine that shares the data, start the servers anew, and run:"
        " qwen-proxy secret rotate --finish"
    )


def _origin(settings: Settings, loaded: LoadedSecret) -> str:
    return str(loaded.file) if loaded.file else f"SECRET_KEY ({settings.sources['SECRET_KEY'].value})"


def _tell(document: object, line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        say(line)
