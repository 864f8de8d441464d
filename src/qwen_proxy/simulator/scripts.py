r"""The directives by which a text tells the simulated model which tools to call.

    [[sim call Write {"file_path": "a.py", "content": "x"}]]
    [[sim call read path=a.py]]
    [[sim agent write path=a.py content="x = 1\n" | edit path=a.py old=1 new=2 | read path=a.py | say It says {result}]]

A name is that of an offered tool or a role (`write`, `edit`, `read`, `shell`). A value is a word or stands in double
quotation marks, where `\n`, `\t`, `\"` and `\\` mean what they mean in JSON. The steps of an agent are parted by ` | `,
calls of one step by ` & `.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from qwen_proxy.simulator.offers import Offer
from qwen_proxy.simulator.roles import NAMES, Call, play

AGENT = re.compile(r'\[\[sim\s+agent\b((?:[^"\]]|"(?:[^"\\]|\\.)*"|\](?!\]))*)\]\]')
CALL = re.compile(r'\[\[sim\s+call\b((?:[^"\]]|"(?:[^"\\]|\\.)*"|\](?!\]))*)\]\]')
_VALUE = re.compile(r'([\w.-]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))')
_PARTS = re.compile(r'((?:[^"|&]|"(?:[^"\\]|\\.)*"|(?<!\s)[|&]|[|&](?!\s))+)|(\|)|(&)')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class Wish(NamedTuple):
    """One call as a directive has it: a tool or a role, and what it is to be given."""

    name: str
    text: str

    def values(self) -> dict[str, str]:
        return {key: _unescaped(quoted) if quoted else bare for key, quoted, bare in _VALUE.findall(self.text)}


class Step(NamedTuple):
    """What the model does in one turn: calls, or the last word."""

    wishes: tuple[Wish, ...] = ()
    says: str = ""


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL)


def called(text: str) -> tuple[Wish, ...]:
    """The calls that `[[sim call ...]]` directives ask for."""
    return tuple(_wish(found[1]) for found in CALL.finditer(text))


def steps(text: str) -> list[Step]:
    """The steps of the last `[[sim agent ...]]`, or none. A path alone stands for a whole task with that file."""
    found = [match[1].strip() for match in AGENT.finditer(text)]
    if not found:
        return []
    script = found[-1]
    if re.fullmatch(r'path=("(?:[^"\\]|\\.)*"|\S+)', script):
        script = (
            f'write {script} content="first line\\nsecond line\\n" | edit {script} old=second new=changed'
            f" | read {script} | say The file says: {{result}}"
        )
    turns: list[list[str]] = [[]]
    for part, bar, _ in _PARTS.findall(script):
        if bar:
            turns.append([])
        elif part.strip():
            turns[-1].append(part.strip())
    return [_step(parts) for parts in turns if parts]


def _step(parts: list[str]) -> Step:
    if parts[0].startswith("say "):
        return Step(says=" & ".join(parts)[4:].strip())
    return Step(tuple(_wish(part) for part in parts))


def _wish(text: str) -> Wish:
    name, _, rest = text.strip().partition(" ")
    return Wish(name, rest.strip())


def granted(wish: Wish, offers: Mapping[str, Offer]) -> Call | None:
    """The call a wish asks for, with the offered tools; None if no tool fits. A foreign name is called all the same."""
    if wish.name in NAMES and wish.name not in offers:
        return play(offers, wish.name, wish.values())
    if wish.text.startswith("{"):
        return Call(wish.name, _object(wish.text))
    offer = offers.get(wish.name)
    if wish.name in NAMES and offer is not None and not set(wish.values()) <= set(offer.parameters):
        # A tool that is named as a role is, but takes its arguments under names of its own.
        return play(offers, wish.name, wish.values())
    return Call(wish.name, {key: _typed(offer, key, value) for key, value in wish.values().items()})


def _object(text: str) -> dict[str, object]:
    """The JSON object at the start of a text; what is none becomes the only argument `input`."""
    try:
        value: Any = json.JSONDecoder(strict=False).raw_decode(text)[0]
    except ValueError:
        value = {"input": text}
    return value


def _typed(offer: Offer | None, key: str, value: str) -> object:
    """A word as JSON where the parameter is no string, if it is JSON."""
    parameter = offer.parameters.get(key) if offer is not None else None
    if parameter is None or parameter.is_string:
        return value
    try:
        found: object = json.loads(value)
    except ValueError:
        return value
    return found
