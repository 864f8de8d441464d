"""The command of usage."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import urlencode

import typer
from rich.text import Text

from qwen_proxy.admin.usage import UsageBody
from qwen_proxy.cli.output import Json, console, print_json, table
from qwen_proxy.cli.work import run, settings_now, through_server
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.state.store import DAY_SECONDS

commands: Final = typer.Typer()


@commands.command("usage")
def usage(
    days: Annotated[float, typer.Option(help="How far back.")] = 30,
    by: Annotated[str, typer.Option(help="Of time, key, account, model, feature, with commas between.")] = "time",
    hours: Annotated[bool, typer.Option("--hours", help="By the hour instead of by the day.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a CSV file.")] = False,
    as_json: Json = False,
) -> None:
    """Tell what was used, by whom, of what."""
    since = SystemClock().now() - days * DAY_SECONDS
    query = urlencode({"since": f"{since:.0f}", "per": "hour" if hours else "day", "by": by})
    if csv:
        path = f"/api/admin/usage.csv?{query}"
        sys.stdout.write(run(through_server(settings_now(), lambda client: client.do("GET", path))).decode())
        return
    path = f"/api/admin/usage?{query}"
    found = run(through_server(settings_now(), lambda client: client.call("GET", path, UsageBody)))
    if as_json:
        print_json(found)
        return
    axes = [axis.strip() for axis in by.split(",")]
    rows = table(*(axis.capitalize() for axis in axes), "Requests", "Failed", "Prompt", "Completion", "Tokens")
    for line in found.lines:
        form = "%Y-%m-%d %H:%M" if hours else "%Y-%m-%d"
        cells = {
            "time": "" if line.starts_at is None else datetime.fromtimestamp(line.starts_at, UTC).strftime(form),
            "key": line.key_name or line.key or "",
            "account": line.account or "",
            "model": line.model or "",
            "feature": line.feature or "",
        }
        counts = (line.requests, line.failures, line.prompt_tokens, line.completion_tokens, line.total_tokens)
        rows.add_row(*(Text(cells[axis]) for axis in axes), *(Text(f"{count:,}") for count in counts))
    console().print(rows)
