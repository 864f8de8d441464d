"""The commands that go on until they are told to end."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy.cli.output import Json, console, print_json
from qwen_proxy.cli.work import DOTENV
from qwen_proxy.operations import serve as serving
from qwen_proxy.runtime.environment import environment

commands: Final = typer.Typer()


@commands.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on, instead of LISTEN_ADDRESS.")] = "",
    port: Annotated[str, typer.Option(help="Port to listen on, instead of SERVICE_PORT.")] = "",
    workers: Annotated[str, typer.Option(help="Worker processes or 'max', instead of PM2_INSTANCES.")] = "",
    reload: Annotated[bool, typer.Option("--reload", help="Start the workers again when the code changes.")] = False,
) -> None:
    """Serve until told to end."""
    given = {"LISTEN_ADDRESS": host, "SERVICE_PORT": port, "PM2_INSTANCES": workers}
    environ = {**environment(), **{name: value for name, value in given.items() if value}}
    aside = console(stderr=True)
    sys.exit(serving.serve(environ, DOTENV, reload=reload, tell=lambda line: aside.print(Text(line), soft_wrap=True)))


@commands.command(hidden=True)
def worker(
    slot: Annotated[int, typer.Option()],
    channel: Annotated[int, typer.Option(help="Inherited descriptor of the socket to the supervisor.")],
    listener: Annotated[int, typer.Option(help="Inherited descriptor of the listening socket.")],
    upstream: Annotated[str, typer.Option(help="Where the upstream is.")],
    simulated: Annotated[bool, typer.Option("--simulated", help="It is the simulated one.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Folder of the data, instead of DATA_DIR.")] = None,
    local: Annotated[str, typer.Option(help="Where the local model is.")] = "",
) -> None:
    """One worker process; `serve` starts it."""
    serving.work(environment(), serving.Handed(slot, channel, listener, upstream, simulated, folder, local))


@commands.command()
def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8100,
    pace: Annotated[float, typer.Option(help="Seconds between two words of an answer.")] = 0.03,
    as_json: Json = False,
) -> None:
    """Play chat.qwen.ai on this machine, until told to end (docs/simulator.md)."""

    def told(base_url: str) -> None:
        if as_json:
            print_json({"base_url": base_url})
        else:
            console().print(f"The simulated upstream answers at {base_url}; set QWEN_CHAT_PROXY_URL to it.")

    asyncio.run(serving.simulate(host, port, pace, told))
