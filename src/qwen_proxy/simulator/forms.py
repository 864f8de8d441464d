"""Writes calls: in the form the prompt taught, or, disobediently, in forms models know from elsewhere."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qwen_proxy.simulator.roles import Call
from qwen_proxy.simulator.taught import Taught


@dataclass(frozen=True, slots=True)
class Block:
    """One call as text, in three parts that join to it; damage strikes one of them."""

    opening: str
    body: str
    closing: str

    def __str__(self) -> str:
        return self.opening + self.body + self.closing


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def taught_block(call: Call, taught: Taught, raw: Mapping[str, bool]) -> Block:
    """As the prompt taught it. raw: which parameters are strings by their schema (see `Offer.raw`)."""
    return Block(taught.opening(call.name) + "\n", taught.body(call.arguments, raw), taught.ending())


def _object(call: Call) -> str:
    return dumps({"name": call.name, "arguments": call.arguments})


def _plain(value: object) -> str:
    return value if isinstance(value, str) else dumps(value)


def _tagged(call: Call, line: str) -> str:
    return "".join(line.format(key=key, value=_plain(value)) for key, value in call.arguments.items())


def _hermes(call: Call) -> Block:
    return Block("<tool_call>\n", _object(call), "\n</tool_call>")


def _coder(call: Call) -> Block:
    body = _tagged(call, "<parameter={key}>\n{value}\n</parameter>\n")
    return Block(f"<tool_call>\n<function={call.name}>\n", body, "</function>\n</tool_call>")


def _function(call: Call) -> Block:
    body = _tagged(call, "<parameter={key}>\n{value}\n</parameter>\n")
    return Block(f"<function={call.name}>\n", body, "</function>")


def _invoke(call: Call) -> Block:
    body = _tagged(call, '<parameter name="{key}">{value}</parameter>\n')
    return Block(f'<invoke name="{call.name}">\n', body, "</invoke>")


def _cdata(call: Call) -> Block:
    body = _tagged(call, '<parameter name="{key}"><![CDATA[{value}]]></parameter>\n')
    return Block(f'<invoke name="{call.name}">\n', body, "</invoke>")


def _wrapped(call: Call) -> Block:
    inner = _invoke(call)
    return Block("<function_calls>\n" + inner.opening, inner.body, inner.closing + "\n</function_calls>")


def _bracket(call: Call) -> Block:
    return Block("[TOOL CALL]\n", _object(call), "")


def _bare(call: Call) -> Block:
    return Block("", _object(call), "")


def _fenced(call: Call) -> Block:
    return Block("```json\n", _object(call), "\n```")


FOREIGN: dict[str, Callable[[Call], Block]] = {
    "hermes": _hermes,
    "coder": _coder,
    "function": _function,
    "invoke": _invoke,
    "cdata": _cdata,
    "wrapped": _wrapped,
    "bracket": _bracket,
    "bare": _bare,
    "fenced": _fenced,
}
"""By name. `native` (frames, no text) is not here; the taught form is written by `taught_block`."""

JSON_FORMS = ("hermes", "bracket", "bare", "fenced")
"""Those whose body is one JSON object."""
