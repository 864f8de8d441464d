"""What every Python script here uses: runs scenarios one after the other, and tells each as a line of JSON.

python SCRIPT.py URL KEY MODEL
"""

import asyncio
import inspect
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

URL, KEY, MODEL = sys.argv[1:4]
CITY = "Paris"
WEATHER = f"18 degrees and rain in {CITY}"
CALL_WEATHER = f"[[sim agent get_weather city={CITY} | say The tool says: {{result}}]] What is the weather?"
PERSON = '[[sim json {"name": "Ada", "age": 36}]] Who wrote the first program?'
DAMAGED = f'[[sim call get_weather city="{CITY}"]] [[sim form hermes]] [[sim damage brace]] What is the weather?'


def run(*scenarios: Callable[[], Any]) -> None:
    """Each is named by its function: `streams_text` is told as "streams text"."""
    for scenario in scenarios:
        name = scenario.__name__.replace("_", " ")
        try:
            outcome = scenario()
            if inspect.isawaitable(outcome):
                asyncio.run(_await(outcome))
            print(json.dumps({"scenario": name, "ok": True}), flush=True)
        except Exception as error:
            lines = traceback.format_exc().splitlines()
            where = next((line.strip() for line in reversed(lines) if ".py" in line), "")
            print(json.dumps({"scenario": name, "ok": False, "detail": f"{error!r} {where}"[:600]}), flush=True)


async def _await(outcome: Any) -> None:
    await outcome


def equal(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise AssertionError(f"{found!r} is not {wanted!r}")


def holds(text: Any, wanted: str) -> None:
    if wanted not in str(text):
        raise AssertionError(f"{wanted!r} is not in {text!r}")
