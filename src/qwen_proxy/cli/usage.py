"""The command of usage."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Column
from rich.text import Text

from qwen_proxy.admin.usage import UsageLineBody
from qwen_proxy.cli.output import Json, console, print_json, say, table
from qwen_proxy.cli.work import administer
from qwen_proxy.gateway.usage_report import Axis
from qwen_proxy.operations.administration import Query
from qwen_proxy.operations.care import new_file
from qwen_proxy.operations.moments import ACCEPTS, WrongMoment, back, shown
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.state.store import DAY_SECONDS

commands: Final = typer.Typer()

TITLES: Final = {
    Axis.TIME: "Time",
    Axis.KEY: "Key",
    Axis.ACCOUNT: "Account",
    Axis.MODEL: "Model",
    Axis.FEATURE: "Feature",
}
DAY: Final = "day"  # as people call the axis of time


@commands.command()
def usage(
    by: Annotated[
        str, typer.Option(help="What to tell apart, with commas between: day (or time), key, account, model, feature.")
    ] = DAY,
    days: Annotated[float, typer.Option(min=0, help="How many days back.")] = 30,
    since: Annotated[str | None, typer.Option(help=f"From when on, instead: {ACCEPTS}.")] = None,
    until: Annotated[str | None, typer.Option(help="Until when, likewise; without it, now.")] = None,
    hours: Annotated[bool, typer.Option("--hours", help="By the hour instead of by the day.")] = False,
    key: Annotated[str | None, typer.Option(help="Only this key, by its id.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    feature: Annotated[str | None, typer.Option(help="Only this feature, such as chat.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    out: Annotated[Path | None, typer.Option(help="File for the CSV, instead of stdout.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what was used, by whom, of what."""
    axes = [Axis.TIME.value if word.strip() == DAY else word.strip() for word in by.split(",")]
    now = SystemClock().now()
    query: Query = {
        "by": ",".join(axes),
        "per": "hour" if hours else DAY,
        "since": now - days * DAY_SECONDS if since is None else _moment(since, now, "--since"),
        "until": None if until is None else _moment(until, now, "--until"),
        "key": key,
        "account": account,
        "model": model,
        "feature": feature,
    }
    if csv or out is not None:
        if out is None:
            administer(lambda admin: admin.copy_usage(query, sys.stdout.buffer.write))
            sys.stdout.buffer.flush()
        else:
            with new_file(out) as file:
                administer(lambda admin: admin.copy_usage(query, file.write))
            say(str(out))
        return
    told = administer(lambda admin: admin.usage(query))
    if as_json:
        print_json(told)
        return
    shown_axes = [Axis(axis) for axis in dict.fromkeys(axes)]
    numbers = ("Requests", "Failed", "Prompt tokens", "Completion tokens", "Reasoning tokens", "Tokens")
    rows = table(
        *(TITLES[axis] for axis in shown_axes), *(Column(title, justify="right", no_wrap=True) for title in numbers)
    )
    for line in told.lines:
        cells = [Text(_cell(line, axis, hourly=hours)) for axis in shown_axes]
        rows.add_row(*cells, *(f"{count:,}" for count in _counts(line)))
    sums = [sum(each) for each in zip(*map(_counts, told.lines), strict=True)]
    if len(told.lines) > 1:
        rows.add_row("All", *([""] * (len(shown_axes) - 1)), *(f"{count:,}" for count in sums), style="bold")
    console().print(rows)
    if not told.lines:
        say("Nothing was used in this time.")


def _moment(text: str, now: float, hint: str) -> float:
    try:
        return back(text, now)
    except WrongMoment as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


def _counts(line: UsageLineBody) -> tuple[int, ...]:
    return (
        line.requests,
        line.failures,
        line.prompt_tokens,
        line.completion_tokens,
        line.reasoning_tokens,
        line.total_tokens,
    )


def _cell(line: UsageLineBody, axis: Axis, *, hourly: bool) -> str:
    match axis:
        case Axis.TIME:
            return shown(line.starts_at) if hourly else shown(line.starts_at)[: len("2026-01-01")]
        case Axis.KEY:
            return line.key_name or line.key or "-"
        case Axis.ACCOUNT:
            return line.account or "-"
        case Axis.MODEL:
            return line.model or "-"
        case Axis.FEATURE:
            return line.feature or "-"
