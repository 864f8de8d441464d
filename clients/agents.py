"""Coding agents, driven as a person would from a shell: each creates a file in an empty folder, edits and reads it.

The settings are those that docs/clients.md tells people to use.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from clients.drive import Ended, plain_environment, run
from clients.gateway import Gateway
from clients.software import Software, with_node

SECONDS: Final = 120
FILE: Final = "notes.txt"
ASKED: Final = " Create the file {path}, change a line of it, and tell me what it says."
TASK: Final = "[[sim agent path={path}]]"  # writes two lines, changes the second, reads and tells: no quotes to escape
AFTER_A_FAILURE: Final = (
    "[[sim agent read path={path}.missing | write path={path} content=first | edit path={path} old=first new=changed | "
    "read path={path} | say The file says: {{result}}]]"
)
AIDER: Final = """[[sim say {file}
```
<<<<<<< SEARCH
=======
first line
changed line
>>>>>>> REPLACE
```
]]"""


class Run(NamedTuple):
    """What an agent is started with, in the folder that it works in."""

    command: Sequence[str | Path]
    environment: dict[str, str]


class Agent(NamedTuple):
    name: str
    package: str
    start: Callable[[Software, Gateway, Path, str], Run]


class Outcome(NamedTuple):
    scenario: str
    ok: bool
    detail: str = ""


def claude_code(software: Software, gateway: Gateway, home: Path, prompt: str) -> Run:
    return Run(
        [software.program("claude"), "-p", prompt, "--model", gateway.model, "--dangerously-skip-permissions"],
        plain_environment(
            home,
            ANTHROPIC_BASE_URL=gateway.url,
            ANTHROPIC_AUTH_TOKEN=gateway.key,
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            CLAUDE_CODE_MAX_RETRIES="1",
            IS_SANDBOX="1",
            CLAUDE_CONFIG_DIR=str(home / "claude"),
        ),
    )


def codex(software: Software, gateway: Gateway, home: Path, prompt: str) -> Run:
    folder = home / "codex"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(
        f'model = "{gateway.model}"\nmodel_provider = "proxy"\n\n[model_providers.proxy]\nname = "Qwen-Proxy"\n'
        f'base_url = "{gateway.url}/v1"\nenv_key = "QWEN_PROXY_KEY"\nwire_api = "responses"\n'
    )
    return Run(
        [
            software.program("codex"),
            "exec",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
            prompt,
        ],
        plain_environment(home, CODEX_HOME=str(folder), QWEN_PROXY_KEY=gateway.key),
    )


def qwen_code(software: Software, gateway: Gateway, home: Path, prompt: str) -> Run:
    return Run(
        [software.program("qwen"), "-p", prompt, "--yolo", "--auth-type", "openai", "-m", gateway.model],
        plain_environment(home, OPENAI_BASE_URL=f"{gateway.url}/v1", OPENAI_API_KEY=gateway.key),
    )


def opencode(software: Software, gateway: Gateway, home: Path, prompt: str) -> Run:
    home.mkdir(parents=True, exist_ok=True)
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Qwen-Proxy",
        "options": {"baseURL": f"{gateway.url}/v1", "apiKey": gateway.key},
        "models": {gateway.model: {"limit": {"context": 131072, "output": 16000}}},
    }
    model = f"proxy/{gateway.model}"
    config = home / "opencode.json"
    config.write_text(json.dumps({"provider": {"proxy": provider}, "model": model, "small_model": model}))
    return Run(
        [software.program("opencode"), "run", "-m", model, "--auto", prompt],
        plain_environment(home, OPENCODE_CONFIG=str(config), OPENCODE_DISABLE_AUTOUPDATE="1"),
    )


def gemini_cli(software: Software, gateway: Gateway, home: Path, prompt: str) -> Run:
    folder = home / ".gemini"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps({"security": {"auth": {"selectedType": "gemini-api-key"}}}))
    return Run(
        [software.program("gemini"), "-p", prompt, "--yolo", "--skip-trust", "-m", gateway.model],
        plain_environment(home, GOOGLE_GEMINI_BASE_URL=gateway.url, GEMINI_API_KEY=gateway.key),
    )


AGENTS: Final = (
    Agent("Claude Code", "@anthropic-ai/claude-code", claude_code),
    Agent("Codex", "@openai/codex", codex),
    Agent("Qwen Code", "@qwen-code/qwen-code", qwen_code),
    Agent("OpenCode", "opencode-ai", opencode),
    Agent("gemini-cli", "@google/gemini-cli", gemini_cli),
)

# What is asked, and the lines that the file has then.
SCENARIOS: Final = {
    "creates, edits and reads a file": (TASK, ["first line", "changed line"]),
    "every call damaged, in a foreign form": (
        "[[sim form hermes]] [[sim damage brace]] " + TASK,
        ["first line", "changed line"],
    ),
    "a tool that fails, then the same": (AFTER_A_FAILURE, ["changed"]),
}


def try_agent(agent: Agent, software: Software, gateway: Gateway, folder: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for number, (scenario, (task, lines)) in enumerate(SCENARIOS.items()):
        work = folder / f"{agent.name} {number}".replace(" ", "-")
        place = work / "project"
        place.mkdir(parents=True)
        file = place / FILE
        prompt = (task + ASKED).format(path=file)
        start = agent.start(software, gateway, work / "home", prompt)
        ended = run(start.command, cwd=place, environment=with_node(software.node, start.environment), seconds=SECONDS)
        (work / "output.txt").write_text(ended.output)
        outcomes.append(Outcome(scenario, *_judge(ended, file, lines, lines[-1])))
    return outcomes


def try_aider(software: Software, gateway: Gateway, folder: Path) -> list[Outcome]:
    """It calls no tools: its edits are text, and fences and markers have to come through unchanged."""
    place = folder / "aider" / "project"
    place.mkdir(parents=True)
    ended = run(
        [
            software.program("aider", "aider"),
            *("--model", f"openai/{gateway.model}", "--no-git", "--yes-always", "--no-check-update"),
            *("--no-show-model-warnings", "--no-analytics", "--edit-format", "diff"),
            *("--message", AIDER.format(file=FILE)),
        ],
        cwd=place,
        environment=plain_environment(
            folder / "aider" / "home", OPENAI_API_BASE=f"{gateway.url}/v1", OPENAI_API_KEY=gateway.key
        ),
        seconds=SECONDS,
    )
    (folder / "aider" / "output.txt").write_text(ended.output)
    return [
        Outcome("creates a file by its text form", *_judge(ended, place / FILE, ["first line", "changed line"], ""))
    ]


def _judge(ended: Ended, file: Path, lines: list[str], said: str) -> tuple[bool, str]:
    """The file is as it should be on the disk, and the agent told what it had read."""
    if ended.code != 0:
        return False, f"ended with {ended.code}: {ended.output[-300:]}"
    if not file.exists():
        return False, f"made no file: {ended.output[-300:]}"
    if file.read_text().splitlines() != lines:
        return False, f"the file holds {file.read_text()!r}"
    return (True, "") if said in ended.output else (False, f"did not tell what it read: {ended.output[-300:]}")
