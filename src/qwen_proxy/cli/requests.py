"""The commands that ask what a client would: the models, one chat, one recorded exchange."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Column
from rich.text import Text

from qwen_proxy.cli.output import Json, console, print_json, table, warn_of
from qwen_proxy.cli.work import run, settings_now, through_server
from qwen_proxy.operations import chat, recording
from qwen_proxy.operations.client import Answered, Question
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import SystemIds

commands: Final = typer.Typer()


@commands.command()
def models(as_json: Json = False) -> None:
    """List the models, as GET /v1/models does."""
    found = run(through_server(settings_now(), lambda client: client.models()))
    if as_json:
        print_json({"models": found})
        return
    rows = table(Column("Model", no_wrap=True), "Upstream id", "Context", "Can")
    for model in found:
        abilities = model.capabilities
        can = [name for name in ("thinking", "search", "vision") if getattr(abilities, name)]
        context = f"{model.context_length:,}" if model.context_length else ""
        rows.add_row(Text(model.id), Text(model.upstream_id), context, ", ".join(can))
    console().print(rows)


@commands.command("chat")
def chat_command(
    text: Annotated[str, typer.Argument(help="What to say.")],
    model: Annotated[str, typer.Option(help="Model; without it the server's first.")] = "",
    thinking: Annotated[bool | None, typer.Option("--thinking/--no-thinking", help="Whether to think.")] = None,
    search: Annotated[bool, typer.Option("--search", help="Search the web.")] = False,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Take the reply as it comes.")] = True,
    as_json: Json = False,
) -> None:
    """Send one request: through the running server where one answers, else through one of its own."""
    settings = settings_now()
    question = Question(
        text=text, model=model, thinking=thinking, stream=stream, deadline_seconds=settings.request_deadline_seconds
    )
    aside = console(stderr=True)

    is_thinking = False

    def show_reasoning(piece: str) -> None:
        nonlocal is_thinking
        is_thinking = True
        if not as_json:
            aside.print(Text(piece, "dim italic"), end="")

    def show_text(piece: str) -> None:
        nonlocal is_thinking
        if as_json:
            return
        if is_thinking and piece:
            aside.print("\n")
            is_thinking = False
        sys.stdout.write(piece)
        sys.stdout.flush()

    answered = run(
        through_server(
            settings,
            lambda client: chat.answer_to(
                client, question, searches=search, on_reasoning=show_reasoning, on_text=show_text
            ),
        )
    )
    if as_json:
        print_json(answered)
    else:
        sys.stdout.write("\n")
        aside.print(_summary(answered))


@commands.command()
def record(
    prompt: Annotated[str, typer.Option(help="What to say.")],
    out: Annotated[Path, typer.Option(help="Folder for the recording.")] = Path("recordings"),
    name: Annotated[str, typer.Option(help="Name of its files.")] = "recorded",
    model: Annotated[str, typer.Option(help="Model; without it the upstream's first.")] = "",
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Keep what was said, in clear.")] = False,
    as_json: Json = False,
) -> None:
    """Record one real exchange with the upstream, without secrets, so that a report can become a test."""
    settings = settings_now()
    wish = recording.Wish(prompt=prompt, model=model)
    captured = run(recording.capture(settings, wish, SystemClock(), SystemIds()))
    files = recording.save(captured, out, name, keep_text=keep_text)
    if as_json:
        print_json({"files": [str(file) for file in files], "failure": captured.failure})
        return
    for file in files:
        sys.stdout.write(f"{file}\n")
    if captured.failure:
        warn_of([f"the exchange failed, and is recorded as it went: {captured.failure}"])
    console(stderr=True).print("Look through the files before you send them to anybody.")


def _summary(answered: Answered) -> Text:
    parts = [answered.model, f"{answered.seconds:.1f} s"]
    if answered.first_seconds is not None:
        parts.append(f"first word after {answered.first_seconds:.1f} s")
    if answered.usage is not None:
        parts.append(f"{answered.usage.prompt_tokens} + {answered.usage.completion_tokens} tokens")
    if answered.sources:
        parts.append(f"{len(answered.sources)} sources")
    return Text(", ".join(parts), "dim")
