"""The commands. No logic of its own: each reads the settings, calls what does the work, and prints.

Exit codes: 0 it went well, 1 it failed, 2 the command line or the configuration is wrong.
With --json a command prints one JSON document on stdout, errors too.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from qwen_proxy import __version__
from qwen_proxy.app import Machine, open_door, transport_options
from qwen_proxy.config import listing
from qwen_proxy.config.credentials import load_keys
from qwen_proxy.config.settings import Settings, WrongSetting, load
from qwen_proxy.config.variables import GROUPS
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.ground.redact import redacted
from qwen_proxy.operations import accounts, advice, chat, doctor, recording
from qwen_proxy.operations import serve as serving
from qwen_proxy.operations.client import Answered, Question, ServerClient, ServerRefused, ServerSilent
from qwen_proxy.operations.local import serve_locally
from qwen_proxy.operations.reach import reach
from qwen_proxy.operations.upstream import open_destination
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.environment import environment
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.runtime.logs import LogOptions, Logs
from qwen_proxy.upstreams.transport import Transport

T = TypeVar("T")

DOTENV: Final = Path(".env")
PIPE_WIDTH: Final = 240  # for who reads a table line by line; a terminal has its own
MARKS: Final[Mapping[advice.Verdict, tuple[str, str]]] = {
    advice.Verdict.OK: ("ok", "green"),
    advice.Verdict.WARN: ("warn", "yellow"),
    advice.Verdict.FAIL: ("FAIL", "bold red"),
    advice.Verdict.SKIPPED: ("-", "dim"),
}

cli: Final = typer.Typer(
    name="qwen-proxy",
    help="A gateway: programs that speak OpenAI's API, served by Qwen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would print local variables, secrets among them
)
accounts_cli: Final = typer.Typer(help="The accounts of ACCOUNTS.", no_args_is_help=True)
cli.add_typer(accounts_cli, name="accounts")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def main() -> None:
    """The command `qwen-proxy`."""
    try:
        cli()
    except WrongSetting as error:
        _fail(error, 2)
    except (ServerRefused, ServerSilent, ProxyError, OSError) as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on, instead of LISTEN_ADDRESS.")] = "",
    port: Annotated[str, typer.Option(help="Port to listen on, instead of SERVICE_PORT.")] = "",
    workers: Annotated[str, typer.Option(help="Worker processes or 'max', instead of PM2_INSTANCES.")] = "",
    reload: Annotated[bool, typer.Option("--reload", help="Start the workers again when the code changes.")] = False,
) -> None:
    """Serve until told to end."""
    given = {"LISTEN_ADDRESS": host, "SERVICE_PORT": port, "PM2_INSTANCES": workers}
    environ = {**environment(), **{name: value for name, value in given.items() if value}}
    console = _console(stderr=True)
    sys.exit(serving.serve(environ, DOTENV, reload=reload, tell=lambda line: console.print(Text(line), soft_wrap=True)))


@cli.command(hidden=True)
def worker(
    slot: Annotated[int, typer.Option()],
    channel: Annotated[int, typer.Option(help="Inherited descriptor of the socket to the supervisor.")],
    listener: Annotated[int, typer.Option(help="Inherited descriptor of the listening socket.")],
    upstream: Annotated[str, typer.Option(help="Where the upstream is.")],
) -> None:
    """One worker process; `serve` starts it."""
    serving.work(environment(), serving.Handed(slot, channel, listener, upstream))


@cli.command()
def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8100,
    pace: Annotated[float, typer.Option(help="Seconds between two words of an answer.")] = 0.03,
    as_json: Json = False,
) -> None:
    """Play chat.qwen.ai on this machine, until told to end (docs/simulator.md)."""

    def told(base_url: str) -> None:
        if as_json:
            _print_json({"base_url": base_url})
        else:
            _console().print(f"The simulated upstream answers at {base_url}; set QWEN_CHAT_PROXY_URL to it.")

    asyncio.run(serving.simulate(host, port, pace, told))


@cli.command()
def config(
    as_json: Json = False,
    example: Annotated[bool, typer.Option("--example", help="Print a .env to begin with.")] = False,
) -> None:
    """Show the settings in force and where each came from, secrets masked."""
    if example:
        sys.stdout.write(listing.dotenv())
        return
    settings = _settings()
    if as_json:
        rows = [
            {
                "name": variable.name,
                "value": settings.texts[variable.name],
                "source": settings.sources[variable.name],
                "default": variable.default,
                "group": group.title,
                "meaning": variable.meaning,
            }
            for group in GROUPS
            for variable in group.variables
        ]
        _print_json({"variables": rows, "warnings": settings.warnings})
        return
    table = Table("Variable", "Value", "From", box=None, pad_edge=False)
    for group in GROUPS:
        table.add_row(Text(group.title, "bold"))
        for variable in group.variables:
            source = settings.sources[variable.name]
            style = "dim" if source.value == "default" else ""
            table.add_row(
                Text(variable.name), Text(settings.texts[variable.name] or "unset"), source.value, style=style
            )
    _console().print(table)
    _warn_of(settings.warnings)


@cli.command()
def key(
    as_json: Json = False,
    where: Annotated[bool, typer.Option("--where", help="Tell where the key comes from, not the key.")] = False,
) -> None:
    """Show the admin key; without API_KEY one is generated and kept in DATA_DIR."""
    settings = _settings()
    keys = load_keys(settings, SystemIds())
    origin = str(keys.file) if keys.file else f"API_KEY ({settings.sources['API_KEY'].value})"
    if as_json:
        _print_json({"where": origin} if where else {"where": origin, "key": keys.admin.reveal()})
    else:
        sys.stdout.write((origin if where else keys.admin.reveal()) + "\n")
    _warn_of(keys.warnings)


@accounts_cli.command("check")
def accounts_check(as_json: Json = False) -> None:
    """Sign each account in, one after the other, and tell how it went."""
    settings = _settings()

    async def check() -> list[accounts.SignInResult]:
        results: list[accounts.SignInResult] = []
        async with (
            open_destination(settings) as destination,
            open_door(destination.settings, destination.base_url, Machine()) as door,
            aclosing(
                accounts.check_accounts(
                    destination.accounts if settings.accounts else (),
                    door.sign_in,
                    SystemClock(),
                    settings.signin_spacing_seconds,
                )
            ) as checks,
        ):
            async for result in checks:
                results.append(result)
                if not as_json:
                    _print_sign_in(result)
        return results

    results = _run(check())
    if as_json:
        _print_json({"accounts": results})
    elif not results:
        _console().print("There is no account: set ACCOUNTS to email:password.")
    if not results or any(result.trouble for result in results):
        sys.exit(1)


@cli.command()
def models(as_json: Json = False) -> None:
    """List the models, as GET /v1/models does."""
    found = _run(_through_server(_settings(), lambda client: client.models()))
    if as_json:
        _print_json({"models": found})
        return
    table = Table(Column("Model", no_wrap=True), "Upstream id", "Context", "Can", box=None, pad_edge=False)
    for model in found:
        abilities = model.capabilities
        can = [name for name in ("thinking", "search", "vision") if getattr(abilities, name)]
        context = f"{model.context_length:,}" if model.context_length else ""
        table.add_row(Text(model.id), Text(model.upstream_id), context, ", ".join(can))
    _console().print(table)


@cli.command("chat")
def chat_command(
    text: Annotated[str, typer.Argument(help="What to say.")],
    model: Annotated[str, typer.Option(help="Model; without it the server's first.")] = "",
    thinking: Annotated[bool | None, typer.Option("--thinking/--no-thinking", help="Whether to think.")] = None,
    search: Annotated[bool, typer.Option("--search", help="Search the web.")] = False,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Take the reply as it comes.")] = True,
    as_json: Json = False,
) -> None:
    """Send one request: through the running server where one answers, else through one of its own."""
    settings = _settings()
    question = Question(
        text=text, model=model, thinking=thinking, stream=stream, deadline_seconds=settings.request_deadline_seconds
    )
    aside = _console(stderr=True)

    def show_reasoning(piece: str) -> None:
        if not as_json:
            aside.print(Text(piece, "dim italic"), end="")

    def show_text(piece: str) -> None:
        if not as_json:
            sys.stdout.write(piece)
            sys.stdout.flush()

    answered = _run(
        _through_server(
            settings,
            lambda client: chat.answer_to(
                client, question, searches=search, on_reasoning=show_reasoning, on_text=show_text
            ),
        )
    )
    if as_json:
        _print_json(answered)
    else:
        sys.stdout.write("\n")
        aside.print(_summary(answered))


@cli.command("doctor")
def doctor_command(
    as_json: Json = False,
    chats: Annotated[bool, typer.Option("--chat/--no-chat", help="Whether to spend one request on a chat.")] = True,
) -> None:
    """Look at everything from the configuration to one chat, and say what to do."""

    async def examine() -> list[advice.Check]:
        physician = doctor.Doctor(SystemClock(), SystemIds(), serve_locally, doctor.DoctorOptions(chats=chats))
        checks: list[advice.Check] = []
        async with aclosing(physician.examine(environment(), DOTENV)) as found:
            async for check in found:
                checks.append(check)
                if not as_json:
                    _print_check(check)
        return checks

    checks = _run(examine())
    verdict = advice.overall(checks)
    if as_json:
        _print_json({"verdict": verdict, "checks": checks})
    if verdict is advice.Verdict.FAIL:
        sys.exit(1)


@cli.command()
def record(
    prompt: Annotated[str, typer.Option(help="What to say.")],
    out: Annotated[Path, typer.Option(help="Folder for the recording.")] = Path("recordings"),
    name: Annotated[str, typer.Option(help="Name of its files.")] = "recorded",
    model: Annotated[str, typer.Option(help="Model; without it the upstream's first.")] = "",
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Keep what was said, in clear.")] = False,
    as_json: Json = False,
) -> None:
    """Record one real exchange with the upstream, without secrets, so that a report can become a test."""
    settings = _settings()
    wish = recording.Wish(prompt=prompt, model=model)
    captured = _run(recording.capture(settings, wish, SystemClock(), SystemIds()))
    files = recording.save(captured, out, name, keep_text=keep_text)
    if as_json:
        _print_json({"files": [str(file) for file in files], "failure": captured.failure})
        return
    for file in files:
        sys.stdout.write(f"{file}\n")
    if captured.failure:
        _warn_of([f"the exchange failed, and is recorded as it went: {captured.failure}"])
    _console(stderr=True).print("Look through the files before you send them to anybody.")


@cli.command()
def version(as_json: Json = False) -> None:
    """Show the version."""
    if as_json:
        _print_json({"version": __version__})
    else:
        sys.stdout.write(f"qwen-proxy {__version__}\n")


def _settings() -> Settings:
    return load(environment(), DOTENV)


def _run(work: Coroutine[None, None, T]) -> T:
    """Run it with a quiet log: only what went wrong, beside the output."""
    with Logs(LogOptions(level="ERROR", redact=redacted)):
        return asyncio.run(work)


async def _through_server(settings: Settings, ask: Callable[[ServerClient], Awaitable[T]]) -> T:
    clock = SystemClock()
    keys = load_keys(settings, SystemIds())
    async with (
        Transport(clock, transport_options(settings)) as transport,
        reach(settings, keys, transport, clock, serve_locally) as reached,
    ):
        return await ask(reached.client)


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _print_json(document: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")


def _fail(error: Exception, code: int) -> NoReturn:
    message = redacted(str(error)) or type(error).__name__
    if "--json" in sys.argv:
        _print_json({"error": {"kind": type(error).__name__, "message": message}})
    else:
        _console(stderr=True).print(Text(message, "red"))
    sys.exit(code)


def _warn_of(warnings: Iterable[str]) -> None:
    for warning in warnings:
        _console(stderr=True).print(Text(f"warning: {warning}", "yellow"))


def _print_check(check: advice.Check) -> None:
    mark, style = MARKS[check.verdict]
    _console().print(Text(f"{mark:<5}", style), Text(f"{check.name}: {check.says}"))
    if check.advice:
        _console().print(Text(f"      -> {check.advice}"))


def _print_sign_in(result: accounts.SignInResult) -> None:
    mark, style = MARKS[advice.Verdict.FAIL if result.trouble else advice.Verdict.OK]
    until = f" until {datetime.fromtimestamp(result.expires_at, UTC):%Y-%m-%d %H:%M} UTC" if result.expires_at else ""
    line = f"{result.account}, through {result.exit}: {result.says}{until} ({result.seconds:.1f} s)"
    _console().print(Text(f"{mark:<5}", style), Text(line))
    if result.advice:
        _console().print(Text(f"      -> {result.advice}"))


def _summary(answered: Answered) -> Text:
    parts = [answered.model, f"{answered.seconds:.1f} s"]
    if answered.first_seconds is not None:
        parts.append(f"first word after {answered.first_seconds:.1f} s")
    if answered.usage is not None:
        parts.append(f"{answered.usage.prompt_tokens} + {answered.usage.completion_tokens} tokens")
    if answered.sources:
        parts.append(f"{len(answered.sources)} sources")
    return Text(", ".join(parts), "dim")
