"""Taking over what the original project keeps."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from msgspec import Struct
from rich.text import Text

from qwen_proxy.app.machine import Machine
from qwen_proxy.cli.asking import NOTHING_WRITTEN, DryRun, Yes, goes_ahead
from qwen_proxy.cli.output import Json, console, print_json, progress_bar, say, say_aside, table, warn_of
from qwen_proxy.cli.work import run, settings_now
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration import sources as sources_
from qwen_proxy.operations.migration.account_plan import Fate, Row
from qwen_proxy.operations.migration.applying import Migration
from qwen_proxy.operations.migration.found import Problem
from qwen_proxy.operations.migration.planning import Plan, plan
from qwen_proxy.operations.offline import open_kept, open_to_look

commands: Final = typer.Typer()

MOST_ROWS: Final = 40  # of each fate, for a person
STYLES: Final = {Fate.ADDED: "green", Fate.CHANGED: "yellow", Fate.SKIPPED: "dim", Fate.INVALID: "red"}


class MigrationTold(Struct, frozen=True, kw_only=True):
    """What `migrate --json` prints."""

    sources: Sequence[str]
    applied: bool
    counts: dict[str, int]
    rows: Sequence[Row]
    problems: Sequence[Problem]
    further_sources: Sequence[str]


@commands.command()
def migrate(
    source: Annotated[
        list[Path] | None, typer.Argument(help="Its data.json, copies of it, or the folder of the original.")
    ] = None,
    redis: Annotated[str, typer.Option(help="Its Redis: redis://… or rediss://…")] = "",
    env: Annotated[list[Path] | None, typer.Option(help="Its .env; a Redis that it names is read too.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Take its passwords and proxies where ours differ.")
    ] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Print every line of the plan.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take over accounts, keys, settings and statistics of the original project."""
    wanted = sources_.Sources(files=tuple(source or ()), env=tuple(env or ()), redis=Secret(redis) if redis else None)
    if wanted == sources_.Sources():
        raise typer.BadParameter("give a data.json or the original's folder, --env FILE or --redis URL")
    settings, machine = settings_now(), Machine()
    read = run(sources_.read(wanted, now=machine.clock.now(), ca_file=settings.ca_file))

    async def look() -> Plan:
        async with open_to_look(settings, machine) as opened:
            present = await Migration(opened, settings, machine).present(read.found)
            return plan(read.found, present, overwrites=overwrite)

    async def apply() -> Plan:
        async with open_kept(settings, machine) as opened:
            migration = Migration(opened, settings, machine)
            made = plan(read.found, await migration.present(read.found), overwrites=overwrite)
            with progress_bar("accounts", shows=not as_json) as tell:
                await migration.apply(made, lambda done: tell(done.done, done.total))
            return made

    made = run(look())
    if not as_json:
        _print_plan(made, read, show_all=show_all)
    applies = not made.is_empty and goes_ahead(dry_run=dry_run, yes=yes, as_json=as_json)
    if applies:
        made = run(apply())
    if as_json:
        print_json(_told(made, read, applied=applies))
    elif applies:
        say("Done. 'qwen-proxy serve' signs in what has no token.")
    elif made.is_empty:
        say("There is nothing to do.")
    else:
        say(NOTHING_WRITTEN)
    if not made.rows:
        sys.exit(1)


def _told(made: Plan, read: sources_.ReadSources, *, applied: bool) -> MigrationTold:
    return MigrationTold(
        sources=read.names,
        applied=applied,
        counts={fate.value: made.count(fate) for fate in Fate},
        rows=made.rows,
        problems=read.found.problems,
        further_sources=[str(path) for path in read.further],
    )


def _print_plan(made: Plan, read: sources_.ReadSources, *, show_all: bool) -> None:
    say(f"Read: {', '.join(read.names)}")
    rows = table("What", "Name", "Becomes", "")
    for fate in Fate:
        of_fate = [row for row in made.rows if row.fate is fate]
        for row in of_fate if show_all else of_fate[:MOST_ROWS]:
            rows.add_row(row.what, Text(row.name), Text(fate.value, STYLES[fate]), Text(row.says))
        if len(of_fate) > MOST_ROWS and not show_all:
            rows.add_row("", Text(f"… and {len(of_fate) - MOST_ROWS} more"), Text(fate.value, STYLES[fate]), "")
    if made.rows:
        console().print(rows)
    else:
        say("Nothing was found.")
    warn_of(f"{problem.where}: {problem.says}" for problem in read.found.problems)
    if read.further:
        names = " ".join(str(path) for path in read.further)
        say_aside(f"What is missing may be in: {names}; give them too, behind the first file.", "yellow")
    say(", ".join(f"{made.count(fate)} {fate.value}" for fate in Fate))
