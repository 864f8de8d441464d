"""Another form of calls that a client teaches in its own system text, told in ours. Pure.

Some clients teach a form by the model's name (Qwen Code does so for `qwen*-coder*`, `qwen*-vl*` and others). A model
that follows it writes tags that the site takes for itself. Only system texts are rewritten: what a user, a file or a
result says is theirs.

    <tool_call>                                     [[call 7f3a run_shell_command]]
    <function=run_shell_command>                    [[arg 7f3a command]]
    <parameter=command>                       ->    npm test
    npm test                                        [[end 7f3a]]
    </parameter>
    </function>
    </tool_call>

`<tool_call>{"name": .., "arguments": ..}</tool_call>` becomes the same; `[tool_call: NAME for ...]` becomes a sentence
in brackets. What can't be read, such as a tag in the middle of a sentence, becomes our marker that says the same.
"""

import re
from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.toolcalls.encoding import encode_call
from qwen_proxy.toolcalls.form import Form
from qwen_proxy.toolcalls.toolbox import Toolbox

OPENS: Final = "<tool_call>"
CLOSES: Final = "</tool_call>"
MAX_BLOCK_CHARACTERS: Final = 16 * 1024
_FUNCTION: Final = re.compile(r"\s*<function=([^>\n]{1,200})>")
_PARAMETER: Final = re.compile(r"\s*<parameter=([^>\n]{1,200})>")
_DESCRIBED: Final = re.compile(r"\[tool_call: ([\w.-]{1,200})([^\]\n]{0,2000})\]")


NOT_MADE: Final = "(A call stood here that could not be made. Nothing was done.)"
_LEAKED: Final = re.compile(
    r"^(?:\[\[call ([0-9a-f]{4,32}) [^\]\n]+\]\]\n.*?(?:^\[\[end \1\]\]$|\Z)|<tool_call>\s.*?(?:^</tool_call>|\Z))",
    re.DOTALL | re.MULTILINE,
)


class _CallBody(Struct):
    name: str
    arguments: dict[str, object] = {}


def retaught(text: str, form: Form, nonce: str, toolbox: Toolbox) -> str:
    """A system text with every call that it shows, and every word of another form, in ours."""
    if "tool_call" not in text:
        return text
    pieces: list[str] = []
    start = 0
    while (opens := text.find(OPENS, start)) >= 0:
        pieces.append(text[start:opens])
        closes = text.find(CLOSES, opens, opens + MAX_BLOCK_CHARACTERS)
        call = None if closes < 0 else _read(text[opens + len(OPENS) : closes])
        if call is None:
            pieces.append(form.call.format(nonce=nonce, name="NAME"))
            start = opens + len(OPENS)
        else:
            pieces.append(encode_call(form, nonce, toolbox, call.name, msgspec.json.encode(call.arguments).decode()))
            start = closes + len(CLOSES)
    rest = text[start:]
    retold = "".join((*pieces, rest)).replace(CLOSES, form.end.format(nonce=nonce))
    return _DESCRIBED.sub(r"(a call of \1\2)", retold)


def unleaked(text: str) -> str:
    """An assistant's earlier text with a note for each call that was given to the client as text, since it was none.

    A model does again what it sees itself do: a broken call that stays in the history has others follow.
    """
    return _LEAKED.sub(NOT_MADE, text) if "[[call " in text or OPENS in text else text


def _read(block: str) -> _CallBody | None:
    if found := _FUNCTION.match(block):
        return _read_parameters(found[1].strip(), block[found.end() :])
    try:
        return msgspec.json.decode(block, type=_CallBody)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _read_parameters(name: str, block: str) -> _CallBody:
    """Values are text: their types are not known here, and none of them is executed."""
    arguments: dict[str, object] = {}
    while found := _PARAMETER.match(block):
        value, _, block = block[found.end() :].partition("</parameter>")
        arguments[found[1].strip()] = value.removeprefix("\n").removesuffix("\n")
    return _CallBody(name, arguments)
