"""llm, by its own command: a prompt, a stream, a tool, a schema."""

import json
import os
import subprocess
import sys
from pathlib import Path

from scenarios import CALL_WEATHER, KEY, MODEL, PERSON, URL, WEATHER, equal, holds, run

FOLDER = Path(os.environ["HOME"]) / "llm"
FOLDER.mkdir(parents=True, exist_ok=True)
(FOLDER / "extra-openai-models.yaml").write_text(
    f"- model_id: proxy\n  model_name: {MODEL}\n  api_base: {URL}/v1\n  api_key_name: proxy\n"
    "  supports_tools: true\n  supports_schema: true\n"
)
(FOLDER / "keys.json").write_text(json.dumps({"proxy": KEY}))
WEATHER_TOOL = "def get_weather(city: str) -> str:\n    'The weather'\n    return f'18 degrees and rain in {city}'\n"


def ask(*words):
    ended = subprocess.run(
        [Path(sys.executable).parent / "llm", "-m", "proxy", *words],
        env={**os.environ, "LLM_USER_PATH": str(FOLDER)},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    if ended.returncode:
        raise AssertionError(ended.stderr)
    return ended.stdout.strip()


def chats():
    equal(ask("--no-stream", "[[sim say Hello]]"), "Hello")


def streams():
    holds(ask("[[sim repeat 30]]"), "word30")


def calls_a_tool():
    holds(ask("--functions", WEATHER_TOOL, CALL_WEATHER), WEATHER)


def keeps_to_a_schema():
    equal(json.loads(ask("--schema", "name, age int", PERSON)), {"name": "Ada", "age": 36})


run(chats, streams, calls_a_tool, keeps_to_a_schema)
