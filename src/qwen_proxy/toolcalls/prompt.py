"""What a model is told of its tools: their signatures, the form of calls, and what is wanted of it. Pure.

The words are data (`Template`), so that another wording can be tried and compared. They name no tag that the site takes
for itself (it has tools of its own, and eats calls of them).
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from qwen_proxy.chat.request import ChatRequest, Role, Tool, ToolChoice, ToolChoiceKind
from qwen_proxy.toolcalls.form import Form
from qwen_proxy.toolcalls.signature import Described

NONCE_DIGITS: Final = 4
MAX_DRAWS: Final = 256  # of one length


class Template(Struct, frozen=True, kw_only=True):
    """One wording. `{nonce}`, and the form's lines as `{call}`, `{arg}`, `{end}`, `{result}`, stand for themselves.

    teaching: with `{tools}`, the signatures. earlier: in its place where no tool may be called, but the conversation
    has calls. reminder: with `{choice}`, one of the sentences below it; those have `{names}`. single: added to it where
    one call is the most.
    """

    id: str
    teaching: str
    earlier: str
    reminder: str
    auto: str
    required: str
    named: str
    single: str


TEMPLATE: Final = Template(
    id="1",
    teaching="""\
# Tools

You have the tools below, and no others. A parameter marked with `?` may be left out.

{tools}

# How to call a tool

A call is written in your reply as lines of this form:

{call}
{arg}
the value
{end}

- Each marker stands alone on its line, with the code {nonce} in it.
- For each parameter there is one such arg line, and its value on the lines below.
- A value of type string is written as it is: any characters, any number of lines, no quotes, nothing escaped.
- Any other value (number, boolean, array, object, null) is written as JSON.
- Several calls stand one behind the other. What you want to say comes before the first.
- After the last call the reply ends. The results are given to you in the next message, as
{result}
the result
{end}
  Never write a result yourself, and never say what a call gave before you have its result.
- Calls are written in the reply itself, never in your thinking, never in a code fence, in no other form.

For example, with a tool note(title: string, tags: string[], text?: string), which is not among yours:

{example}""",
    earlier="""\
This conversation has calls of tools and their results in it, as lines of this form:

{call}
{arg}
the value
{end}
{result}
the result
{end}

No tool can be called now: reply in plain text.""",
    reminder="""\
A call is a line {call}, for each parameter a line {arg} with the value on the lines below it, and a line {end}.
{choice}""",
    auto="Call tools where they help, or reply in text when you are done; do not announce a call without making it.",
    required="This reply has to call a tool, one at least of: {names}.",
    named="This reply has to call the tool {names}.",
    single=" Make one call at most.",
)
EXAMPLE: Final = (
    "note",
    (("title", 'Ünits, "quoted"'), ("tags", '["a", "b"]'), ("text", "First line\n\tand <b>more</b>")),
)


class Teaching(Struct, frozen=True):
    """The texts that go into a conversation: one before its messages, one behind them, which may be empty."""

    system: str
    reminder: str


def offered(request: ChatRequest) -> tuple[Tool, ...]:
    """The tools that may be called in the reply."""
    if not request.tools:
        return ()
    choice = request.tool_choice
    if choice.kind is ToolChoiceKind.NONE:
        return ()
    return tuple(tool for tool in request.tools if tool.name in choice.names) if choice.names else request.tools


def lines(form: Form, nonce: str) -> dict[str, str]:
    """The form's lines as a model is shown them, with words in the places of names."""
    return {
        "call": form.call.format(nonce=nonce, name="NAME"),
        "arg": form.arg.format(nonce=nonce, name="PARAMETER"),
        "end": form.end.format(nonce=nonce),
        "result": form.result.format(nonce=nonce, number="NUMBER", name="NAME"),
    }


def teach(
    request: ChatRequest, form: Form, nonce: str, described: Described | None, template: Template = TEMPLATE
) -> Teaching:
    """`described` are the signatures of the offered tools; None where there are none."""
    shown = lines(form, nonce)
    if described is None:
        return Teaching(_filled(template.earlier, shown), "")
    system = _filled(template.teaching, shown | {"nonce": nonce, "example": example(form, nonce)})
    reminder = _filled(template.reminder, shown | {"choice": _choice(request, offered(request), template)})
    return Teaching(system.replace("{tools}", described.text), reminder)


def example(form: Form, nonce: str) -> str:
    name, arguments = EXAMPLE
    args = "".join(f"{form.arg.format(nonce=nonce, name=key)}\n{value}\n" for key, value in arguments)
    return f"{form.call.format(nonce=nonce, name=name)}\n{args}{form.end.format(nonce=nonce)}"


def _choice(request: ChatRequest, tools: Sequence[Tool], template: Template) -> str:
    said = _sentence(request.tool_choice, tools, template)
    return said if request.parallel_tool_calls else said + template.single


def _sentence(choice: ToolChoice, tools: Sequence[Tool], template: Template) -> str:
    if choice.kind is not ToolChoiceKind.REQUIRED:
        return template.auto
    sentence = template.named if len(tools) == 1 else template.required
    return sentence.replace("{names}", ", ".join(tool.name for tool in tools))


def _filled(text: str, values: dict[str, str]) -> str:
    """Not `format`: names of tools may hold braces."""
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text


# --- the nonce ---------------------------------------------------------------------------------------------


def draw_nonce(form: Form, request: ChatRequest, texts: Sequence[str]) -> str:
    """The digits in this conversation's markers: no marker with them begins anywhere in `texts`.

    They come from what is up to the first user message, so a conversation keeps them as it grows; who guesses that and
    writes such a marker only makes others be drawn.
    """
    beginning = hashlib.sha256(form.id.encode())
    for message in request.messages:
        beginning.update(repr(message.parts).encode(errors="surrogatepass"))
        if message.role is Role.USER:
            break
    return _free(form, beginning.hexdigest(), texts)


def _free(form: Form, seed: str, texts: Sequence[str]) -> str:
    digits = NONCE_DIGITS
    while True:
        for draw in range(MAX_DRAWS):
            nonce = hashlib.sha256(f"{seed} {draw}".encode()).hexdigest()[:digits]
            if not stands_in(form, nonce, texts):
                return nonce
        digits *= 2


def stands_in(form: Form, nonce: str, texts: Iterable[str]) -> bool:
    """Whether a marker with this nonce begins somewhere in the texts."""
    openings = {line.partition("{nonce}")[0] + nonce for line in (form.call, form.arg, form.end, form.result)}
    return any(opening in text for text in texts for opening in openings)
