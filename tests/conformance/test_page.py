"""docs/contributing-upstream.md, followed word for word: its file, its line, its recordings, its row."""

import re
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
import pytest

from qwen_proxy.chat.events import TextDelta, Usage
from qwen_proxy.config.backends import read_forms
from qwen_proxy.upstreams.table import UPSTREAMS
from tests.conformance import test_upstreams as suite
from tests.conformance import upstreams as rows
from tests.support import openai_server

PAGE: Final = (Path(__file__).parents[2] / "docs/contributing-upstream.md").read_text()
SUITE: Final = [test for name, test in vars(suite).items() if name.startswith("test_")]


def blocks(section: str, language: str) -> list[str]:
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def recorded() -> dict[str, bytes]:
    text = PAGE.split("\n## Recordings\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"`(\w+)`, status (\d+):\n\n```json\n(.*?)```", text, re.DOTALL)
    return {name: openai_server.answer(int(status), body.encode()) for name, status, body in found}


@pytest.fixture
def page() -> Generator[dict[str, Any]]:
    """The names that the page's row makes, over the page's file and line."""
    module = ModuleType("qwen_proxy.upstreams.ollama_chat")
    (source,) = blocks("One file", "python")
    sys.modules[module.__name__] = module  # where the types of annotations are looked up
    try:
        exec(compile(source, "docs/contributing-upstream.md", "exec"), vars(module))  # noqa: S102
        (line,) = blocks("One line", "python")
        table = eval(f"{{**UPSTREAMS, {line.strip()}}}", {"UPSTREAMS": UPSTREAMS, **vars(module)})  # noqa: S307
        assert len(table) == len(UPSTREAMS) + 1
        (row,) = blocks("Its row in the conformance suite", "python")
        known = {**vars(rows), **vars(openai_server), "UPSTREAMS": table, "RECORDED": recorded(), "msgspec": msgspec}
        exec(compile(row, "docs/contributing-upstream.md", "exec"), known)  # noqa: S102
        yield {**vars(module), **known}
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize("test", SUITE, ids=lambda test: test.__name__)
async def test_the_pages_upstream_passes_the_suite(test: Callable[..., Any], page: dict[str, Any]) -> None:
    await test(page["ollama_chat"])


async def test_the_pages_recordings_are_played(page: dict[str, Any]) -> None:
    assert list(recorded()) == ["answer", "error_inside", "no_model"]
    async with page["ollama_chat"]() as played:
        events = await suite.reply(played, "[[recording answer]]")
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"
        assert Usage(prompt_tokens=5, completion_tokens=2) in events


def test_the_pages_description_of_a_backend_is_one() -> None:
    (described,) = blocks("One line", "json")
    (spec,) = read_forms(described.encode())
    assert (spec.protocol, spec.name) == ("ollama-chat", "old-box")
