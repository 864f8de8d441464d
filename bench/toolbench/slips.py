"""How calls are written wrongly. Each function makes the text that a model would have sent."""

import json
from collections.abc import Callable
from dataclasses import replace

from bench.toolbench.draft import Draft
from bench.toolbench.kit import Arguments
from qwen_proxy.simulator import damage
from qwen_proxy.simulator.forms import JSON_FORMS, Block
from qwen_proxy.simulator.roles import Call
from qwen_proxy.simulator.taught import Taught


def crlf(draft: Draft) -> str:
    """Marker lines that end in CR LF; values stay as they are."""
    heads = tuple(line.split("{nonce}")[0] + draft.taught.nonce for line in _lines(draft.taught))
    return "\n".join(
        line + "\r" if line.startswith(heads) else line for line in damage.joined(draft.blocks()).split("\n")
    )


def glued(draft: Draft) -> str:
    """The last end on the line of the value before it."""
    blocks = draft.blocks()
    return damage.joined([*blocks[:-1], replace(blocks[-1], body=blocks[-1].body.removesuffix("\n"))])


def indented(draft: Draft) -> str:
    """Markers two spaces in."""
    heads = tuple(line.split("{nonce}")[0] + draft.taught.nonce for line in _lines(draft.taught))
    return "\n".join(
        "  " + line if line.startswith(heads) else line for line in damage.joined(draft.blocks()).split("\n")
    )


def repeated(draft: Draft) -> str:
    """The first parameter once more at the end, with another value: the first one counts."""
    again: list[Block] = []
    for block, call in zip(draft.blocks(), draft.calls, strict=True):
        key, value = next(iter(call.arguments.items()))
        other = {key: f"other {value}" if isinstance(value, str) else value}
        again.append(replace(block, body=block.body + draft.taught.body(other, draft.raw(call))))
    return damage.joined(again)


def _lines(taught: Taught) -> tuple[str, ...]:
    return taught.call, taught.arg, taught.end


def on_call(change: Callable[[Call], Call]) -> Callable[[Draft], str]:
    return lambda draft: damage.joined(replace(draft, calls=tuple(change(call) for call in draft.calls)).blocks())


def enum_case(call: Call) -> Call:
    return call._replace(
        arguments={key: value.upper() if key == "kind" else value for key, value in call.arguments.items()}
    )


def nested_as_string(call: Call) -> Call:
    """Objects and arrays as JSON within a string."""
    changed = {
        key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in call.arguments.items()
    }
    return call._replace(arguments=changed)


def lone_for_list(call: Call) -> Call:
    """The only element in place of a list of one."""
    changed = {
        key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in call.arguments.items()
    }
    return call._replace(arguments=changed)


def rewritten(change: Callable[[str, Arguments], object]) -> Callable[[Draft], str]:
    """JSON of another shape in the same surroundings."""

    def written(draft: Draft) -> str:
        blocks = draft.blocks()
        bodies = (json.dumps(change(call.name, call.arguments), ensure_ascii=False) for call in draft.calls)
        return damage.joined([replace(block, body=body) for block, body in zip(blocks, bodies, strict=True)])

    return written


def as_function(name: str, given: Arguments) -> object:
    return {"type": "function", "function": {"name": name, "arguments": json.dumps(given)}}


def one_list(draft: Draft) -> str:
    """All calls as one JSON list in one pair of marks."""
    whole = [{"name": call.name, "arguments": call.arguments} for call in draft.calls]
    return str(replace(draft.blocks()[0], body=json.dumps(whole, ensure_ascii=False)))


def no_parameter_end(draft: Draft) -> str:
    """The last `</parameter>` is missing."""
    blocks = draft.blocks()
    head, _, tail = blocks[-1].body.rpartition("</parameter>")
    return damage.joined([*blocks[:-1], replace(blocks[-1], body=head + tail)])


def single_attributes(draft: Draft) -> str:
    """Attributes in single quotation marks, and a space behind one."""
    blocks: list[Block] = []
    for block, call in zip(draft.blocks(), draft.calls, strict=True):
        opening = block.opening.replace(f'<invoke name="{call.name}">', f"<invoke name='{call.name}' >")
        body = block.body
        for key in call.arguments:
            body = body.replace(f'<parameter name="{key}">', f"<parameter name='{key}'>", 1)
        blocks.append(replace(block, opening=opening, body=body))
    return damage.joined(blocks)


def struck(kind: str) -> Callable[[Draft], str]:
    """A failure that the simulated model knows."""

    def written(draft: Draft) -> str:
        if kind in damage.CALL:
            return on_call(damage.CALL[kind])(draft)
        if kind in damage.JSON:
            return _broken_json(draft, damage.JSON[kind])
        return damage.TEXT[kind](draft.blocks(), draft.taught, draft.chance.random())

    return written


def _broken_json(draft: Draft, breaking: Callable[[str], str]) -> str:
    blocks = draft.blocks()
    if draft.form in JSON_FORMS:
        return damage.joined([replace(block, body=breaking(block.body)) for block in blocks])
    bodies: list[str] = []
    for call in draft.calls:
        raw = draft.raw(call)
        body = ""
        for key, value in call.arguments.items():
            one = draft.taught.body({key: value}, raw)
            if not (isinstance(value, str) and raw.get(key, True)):
                head, _, rest = one.partition("\n")
                one = f"{head}\n{breaking(rest.removesuffix(chr(10)))}\n"
            body += one
        bodies.append(body)
    return damage.joined([replace(block, body=body) for block, body in zip(blocks, bodies, strict=True)])


def end_without_code(draft: Draft) -> str:
    """`[[end]]`."""
    return damage.joined([replace(block, closing="[[end]]") for block in draft.blocks()])


def all_without_code(draft: Draft) -> str:
    """`[[call Write]]` and so on."""
    return damage.joined(draft.blocks()).replace(f" {draft.taught.nonce}", "")


def prose_between(draft: Draft) -> str:
    """A sentence between two calls."""
    return "\n\nNow the next one.\n\n".join(str(block) for block in draft.blocks())


def blank_lines_between(draft: Draft) -> str:
    return "\n\n \n".join(str(block) for block in draft.blocks())


def bold_markers(draft: Draft) -> str:
    """`**[[end 7f3a]]**`."""
    heads = tuple(line.split("{nonce}")[0] + draft.taught.nonce for line in _lines(draft.taught))
    lines = damage.joined(draft.blocks()).split("\n")
    return "\n".join(f"**{line}**" if line.startswith(heads) else line for line in lines)


def end_of_turn(draft: Draft) -> str:
    """The template's own mark of the end shows."""
    return damage.joined(draft.blocks()) + "\n<|im_end|>\n"


def cited(draft: Draft) -> str:
    """What an answer ends with where it was searched for: citations, on the last line."""
    return damage.joined(draft.blocks()) + " [[1]][[2]]"


def only_the_end_indented(draft: Draft) -> str:
    """The last end two spaces in, and all else as it should be."""
    blocks = draft.blocks()
    return damage.joined([*blocks[:-1], replace(blocks[-1], closing="  " + blocks[-1].closing)])


def ends_glued(draft: Draft) -> str:
    """Every end on the line of the value before it, and the next call below."""
    return damage.joined([replace(block, body=block.body.removesuffix("\n")) for block in draft.blocks()])


def opened_twice(draft: Draft) -> str:
    return damage.joined([replace(block, opening=block.opening * 2) for block in draft.blocks()])


def closed_by_an_opening(draft: Draft) -> str:
    """`<tool_call>` in the place of `</tool_call>`."""
    return damage.joined([replace(block, closing=block.closing.replace("/", "")) for block in draft.blocks()])


def half_swallowed(draft: Draft) -> str:
    """The first opening lacks its beginning: `call>`."""
    blocks = draft.blocks()
    return damage.joined([replace(blocks[0], opening=blocks[0].opening[6:]), *blocks[1:]])


def with_comments(draft: Draft) -> str:
    """`// ...` behind the first brace."""
    return damage.joined(
        [replace(block, body=block.body.replace("{", "{ // the call\n", 1)) for block in draft.blocks()]
    )


def results_played(draft: Draft) -> str:
    """The reply of the tool, in the template's own tag, and what the model makes of it."""
    return damage.joined(draft.blocks()) + "\n<tool_response>\nok\n</tool_response>\nThat worked."


def dotted(call: Call) -> Call:
    """`mcp.flags.set`, `flags__set`: other spellings of a name with parts."""
    return call._replace(name=call.name.replace("__", "."))


def unprefixed(call: Call) -> Call:
    return call._replace(name=call.name.removeprefix("mcp__"))


def frames(change: Callable[[Call], Call] = lambda call: call, *, kept: float = 1.0) -> Callable[[Draft], str]:
    """Calls as the site's own frames tell them, `[name, arguments as text]` each; of the last only a part may come."""

    def written(draft: Draft) -> str:
        calls = [change(call) for call in draft.calls]
        told = [[call.name, json.dumps(call.arguments, ensure_ascii=False)] for call in calls]
        told[-1][1] = told[-1][1][: max(1, int(len(told[-1][1]) * kept))]
        return json.dumps(told, ensure_ascii=False)

    return written
