"""The commands that carry all that is kept from one place to another."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from msgspec import Struct
from rich.text import Text

from qwen_proxy.app.machine import Machine
from qwen_proxy.cli.asking import NOTHING_WRITTEN, DryRun, PassphraseFile, Yes, goes_ahead, passphrase
from qwen_proxy.cli.output import Json, console, counter, print_json, say, say_aside, table, warn_of
from qwen_proxy.cli.work import run, settings_now
from qwen_proxy.config.secret_key import load_secret
from qwen_proxy.operations import care, integrity
from qwen_proxy.operations.offline import Opened, open_kept, open_to_look
from qwen_proxy.operations.transfer.bundle import BundleReader
from qwen_proxy.operations.transfer.exporting import Carried, export
from qwen_proxy.operations.transfer.importing import Import, ImportPlan
from qwen_proxy.operations.transfer.target import Way
from qwen_proxy.storage.opening import load_vault

commands: Final = typer.Typer()


class ImportTold(Struct, frozen=True, kw_only=True):
    """What `import --json` prints. faults: of what is kept now."""

    applied: bool
    plan: ImportPlan
    faults: list[str] = []


@commands.command("export")
def export_command(
    file: Annotated[Path, typer.Argument(help="The file to make.")],
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Write accounts, keys, settings, usage and logs to one file, encrypted under a passphrase."""
    settings, machine = settings_now(), Machine()
    secret = passphrase(passphrase_file, is_new=True)

    async def work() -> Carried:
        async with open_to_look(settings, machine, has_to_be_there=True) as opened:
            with care.new_file(file) as target, counter(shows=not as_json) as tell:
                return await export(opened, machine.clock, target, secret, tell)

    carried = run(work())
    if as_json:
        print_json(carried)
    else:
        say(f"{file}: {carried.records} records, {carried.lines} log lines, {carried.usage} rows of usage.")
        say_aside("It opens with the passphrase only, on any machine, into any kind of store.")


@commands.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="A file of 'qwen-proxy export'.")],
    replaces: Annotated[bool, typer.Option("--replace", help="Put it in the place of what is kept here.")] = False,
    merges: Annotated[bool, typer.Option("--merge", help="Add what is not here; what is here stays.")] = False,
    passphrase_file: PassphraseFile = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take in a file of 'export', into an empty place, or over or beside what is there."""
    if replaces and merges:
        raise typer.BadParameter("--replace and --merge exclude each other")
    settings, machine = settings_now(), Machine()
    wanted = Way.REPLACE if replaces else Way.MERGE if merges else None
    with file.open("rb") as source:
        bundle = BundleReader(source, passphrase(passphrase_file, is_new=False))

        async def look() -> ImportPlan:
            async with open_to_look(settings, machine) as opened:
                return await Import(opened, bundle, machine.clock).plan(wanted)

        async def carry_out() -> list[str]:
            secret = load_secret(settings, machine.ids).secret
            async with open_kept(settings, machine) as opened:
                work = Import(opened, bundle, machine.clock)
                await work.plan(plan.way if plan.way is wanted else None)
                with counter(shows=not as_json) as tell:
                    await work.carry_out(plan.way, secret, tell)
                vault = await load_vault(opened.store, secret)
                return list((await integrity.examine(Opened(opened.store, vault))).faults)

        plan = run(look())
        if not as_json:
            _print_plan(plan)
        applies = goes_ahead(dry_run=dry_run, yes=yes, as_json=as_json)
        faults = run(carry_out()) if applies else []
    if as_json:
        print_json(ImportTold(applied=applies, plan=plan, faults=faults))
    else:
        say("Done." if applies else NOTHING_WRITTEN)
        warn_of(faults)
    if faults:
        sys.exit(1)


def _print_plan(plan: ImportPlan) -> None:
    made = datetime.fromtimestamp(plan.made_at, UTC)
    say(f"An export of {made:%Y-%m-%d %H:%M} UTC, by version {plan.program}.")
    if plan.way is Way.REPLACE:
        say("It takes the place of what is kept here.")
    rows = table("What", "Added", "Here already", "Differs and stays", "Left out")
    for kind in plan.kinds:
        rows.add_row(Text(kind.kind), str(kind.added), str(kind.same), str(kind.kept), str(kind.left_out))
    rows.add_row("log lines", str(plan.lines), "", "", "")
    rows.add_row("rows of usage", str(plan.usage), "", "", "")
    console().print(rows)
    warn_of(plan.notes)
