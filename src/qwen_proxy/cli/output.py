"""How commands print: tables for people, one JSON document for programs, and what is wrong beside either."""

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Annotated, Final, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from qwen_proxy.ground.redact import redacted
from qwen_proxy.operations.advice import Verdict

PIPE_WIDTH: Final = 240  # for who reads a table line by line; a terminal has its own
MARKS: Final[Mapping[Verdict, tuple[str, str]]] = {
    Verdict.OK: ("ok", "green"),
    Verdict.WARN: ("warn", "yellow"),
    Verdict.FAIL: ("FAIL", "bold red"),
    Verdict.SKIPPED: ("-", "dim"),
}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def console(*, stderr: bool = False) -> Console:
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = PIPE_WIDTH
    return made


def table(*columns: str | Column) -> Table:
    return Table(*columns, box=None, pad_edge=False)


def say(line: str, style: str = "") -> None:
    """One line for a person; markup in it is text."""
    console().print(Text(line, style))


def say_aside(line: str, style: str = "") -> None:
    """The same on stderr."""
    console(stderr=True).print(Text(line, style), soft_wrap=True)


def print_json(document: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")


def fail(error: Exception, code: int) -> NoReturn:
    message = redacted(str(error)) or type(error).__name__
    if "--json" in sys.argv:
        print_json({"error": {"kind": type(error).__name__, "message": message}})
    else:
        say_aside(message, "red")
    sys.exit(code)


def warn_of(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say_aside(f"warning: {warning}", "yellow")


def print_mark(verdict: Verdict, line: str, advice: str = "") -> None:
    """A line that begins with how it went, and below it what to do."""
    mark, style = MARKS[verdict]
    console().print(Text(f"{mark:<5}", style), Text(line))
    if advice:
        console().print(Text(f"      -> {advice}"))


@contextmanager
def progress_bar(what: str, *, shows: bool) -> Generator[Callable[[int, int], None]]:
    """A progress bar on stderr while the block lasts, where a person looks at it; give what it yields (done, total)."""
    with _progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), shows=shows) as progress:
        task = progress.add_task(what, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tell


@contextmanager
def counter(*, shows: bool) -> Generator[Callable[[str, int], None]]:
    """The same where nobody knows how many there will be; give what it yields (what, how many so far)."""
    with _progress(TextColumn("{task.completed}"), shows=shows) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, count: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=None)
            progress.update(tasks[what], completed=count)

        yield tell


def _progress(*columns: ProgressColumn, shows: bool) -> Progress:
    aside = console(stderr=True)
    told = (TextColumn("{task.description}"), *columns)
    return Progress(*told, console=aside, transient=True, disable=not (shows and aside.is_terminal))
