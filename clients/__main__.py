"""`python -m clients`: install, drive, print the table. Exit code 1: something failed; 3: it could not be installed."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from clients.agents import AGENTS, Agent, Outcome, try_agent, try_aider
from clients.drive import plain_environment, run
from clients.gateway import Gateway, running_gateway
from clients.software import HERE, PYTHON, Software, install

SCRIPT_SECONDS = 180
NOT_INSTALLED = 3


class Client(NamedTuple):
    name: str
    version: str
    drive: Callable[[Gateway, Path], list[Outcome]]


class Row(NamedTuple):
    client: str
    version: str
    outcome: Outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m clients", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".clients"), help="where the clients are installed")
    parser.add_argument("--only", nargs="*", default=[], help="clients whose name begins so")
    parser.add_argument("--table", type=Path, help="write the table as Markdown to this file too")
    parser.add_argument("--keep", type=Path, help="leave what the clients did and said in this folder")
    parser.add_argument(
        "--again", action="store_true", help="a client that fails is driven once more, and that is told"
    )
    options = parser.parse_args()
    began = time.monotonic()
    try:
        software = install(options.folder.absolute())
    except subprocess.CalledProcessError as error:
        print(f"not installed, so nothing was driven: {error}", flush=True)
        return NOT_INSTALLED
    print(f"installed in {time.monotonic() - began:.0f} s", flush=True)
    chosen = [
        client
        for client in clients(software)
        if not options.only or client.name.casefold().startswith(tuple(word.casefold() for word in options.only))
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        with running_gateway(folder / "gateway") as gateway:
            rows = list(_drive(chosen, gateway, folder, is_tried_again=options.again))
    table = markdown(rows)
    print("\n" + table)
    if options.table:
        options.table.write_text(table)
    failed = [row for row in rows if not row.outcome.ok]
    print(f"{len(rows) - len(failed)} passed, {len(failed)} failed in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def clients(software: Software) -> list[Client]:
    return [
        _python(software, "OpenAI SDK, Python", "sdks", "openai_sdk.py", "openai"),
        _python(software, "Anthropic SDK, Python", "sdks", "anthropic_sdk.py", "anthropic"),
        _python(software, "Google Gen AI SDK, Python", "sdks", "gemini_sdk.py", "google-genai"),
        _python(software, "Ollama, Python", "sdks", "ollama_sdk.py", "ollama"),
        _python(software, "LangChain", "langchain", "langchain_.py", "langchain"),
        _python(software, "pydantic-ai", "pydantic-ai", "pydantic_ai_.py", "pydantic-ai-slim"),
        _python(software, "instructor", "instructor", "instructor_.py", "instructor"),
        _python(software, "llm", "llm", "llm_.py", "llm"),
        _node(software, "OpenAI SDK, Node", "openai_sdk.mjs", "openai"),
        _node(software, "Anthropic SDK, Node", "anthropic_sdk.mjs", "@anthropic-ai/sdk"),
        _node(software, "Vercel AI SDK", "vercel_ai.mjs", "ai"),
        *(_agent(software, agent) for agent in AGENTS),
        Client("aider", software.python_version("aider"), lambda gateway, folder: try_aider(software, gateway, folder)),
    ]


def markdown(rows: Iterable[Row]) -> str:
    lines = ["| client | version | scenario | result |", "|---|---|---|---|"]
    for client, version, outcome in rows:
        told = "pass" if outcome.ok else "**fails**: " + " ".join(outcome.detail.split()).replace("|", "/")[:200]
        lines.append(f"| {client} | {version} | {outcome.scenario} | {told} |")
    return "\n".join(lines) + "\n"


def _drive(chosen: Iterable[Client], gateway: Gateway, folder: Path, *, is_tried_again: bool) -> Iterable[Row]:
    for client in chosen:
        began = time.monotonic()
        outcomes = client.drive(gateway, folder / "first")
        if is_tried_again and not all(outcome.ok for outcome in outcomes):
            print(f"{client.name}: once more, since {[each.scenario for each in outcomes if not each.ok]}", flush=True)
            outcomes = client.drive(gateway, folder / "second")
        failed = [outcome for outcome in outcomes if not outcome.ok]
        print(
            f"{client.name}: {len(outcomes) - len(failed)}/{len(outcomes)}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        for outcome in failed:
            print(f"  {outcome.scenario}: {outcome.detail}", flush=True)
        yield from (Row(client.name, client.version, outcome) for outcome in outcomes)


def _agent(software: Software, agent: Agent) -> Client:
    version = software.npm_version(agent.package)
    return Client(agent.name, version, lambda gateway, folder: try_agent(agent, software, gateway, folder))


def _python(software: Software, name: str, environment: str, script: str, package: str) -> Client:
    pinned = {pin.partition("==")[0].partition("[")[0]: pin.partition("==")[2] for pin in PYTHON[environment]}

    def drive(gateway: Gateway, folder: Path) -> list[Outcome]:
        return _script([software.python(environment), HERE / "scripts" / script], gateway, folder / environment)

    return Client(name, pinned[package], drive)


def _node(software: Software, name: str, script: str, package: str) -> Client:
    def drive(gateway: Gateway, folder: Path) -> list[Outcome]:
        for source in (HERE / "scripts").glob("*.mjs"):  # beside its packages, where Node looks for them
            (software.modules.parent / source.name).write_text(source.read_text())
        return _script([software.node / "node", software.modules.parent / script], gateway, folder / "node")

    return Client(name, software.npm_version(package), drive)


def _script(command: list[Path], gateway: Gateway, home: Path) -> list[Outcome]:
    ended = run(
        [*command, gateway.url, gateway.key, gateway.model],
        cwd=HERE / "scripts",
        environment=plain_environment(home, PYTHONDONTWRITEBYTECODE="1"),
        seconds=SCRIPT_SECONDS,
    )
    told = [json.loads(line) for line in ended.output.splitlines() if line.startswith('{"scenario"')]
    outcomes = [Outcome(line["scenario"], line["ok"], line.get("detail", "")) for line in told]
    if ended.code != 0:
        outcomes.append(Outcome("runs to its end", False, f"{ended.code}: {ended.output[-300:]}"))
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
