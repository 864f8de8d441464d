"""The ways a written call goes wrong, and what a reader should make of each.

`RECOVER`: the arguments can be told, so anything but them is a loss. `REFUSE`: they can't (cut short, no such tool):
right is to say so and to make no call. `EITHER`: both are right, a wrong call is not.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from bench.toolbench.kit import BY_NAME, Arguments
from bench.toolbench.payloads import Chance
from qwen_proxy.simulator import damage
from qwen_proxy.simulator.forms import FOREIGN, JSON_FORMS, Block, taught_block
from qwen_proxy.simulator.roles import Call
from qwen_proxy.simulator.taught import Taught

TAUGHT = "taught"
FORMS = (TAUGHT, *FOREIGN)
TAG_FORMS = ("coder", "function", "invoke", "cdata", "wrapped")
CLEAN = "clean"
PREAMBLE = "I'll do that now.\n\n"


class Expected(StrEnum):
    RECOVER = "recover"
    REFUSE = "refuse"
    EITHER = "either"


@dataclass(frozen=True)
class Draft:
    """Calls on the way to a text."""

    calls: tuple[Call, ...]
    form: str
    taught: Taught
    chance: Chance

    def blocks(self) -> list[Block]:
        return [self._block(call) for call in self.calls]

    def _block(self, call: Call) -> Block:
        if self.form in FOREIGN:
            return FOREIGN[self.form](call)
        return taught_block(call, self.taught, self.raw(call))

    def raw(self, call: Call) -> dict[str, bool]:
        tool = BY_NAME.get(call.name)
        return tool.raw() if tool is not None else {}


# failures beyond those the simulated model knows


def _crlf(draft: Draft) -> str:
    """Marker lines that end in CR LF; values stay as they are."""
    heads = tuple(line.split("{nonce}")[0] + draft.taught.nonce for line in _lines(draft.taught))
    return "\n".join(
        line + "\r" if line.startswith(heads) else line for line in damage.joined(draft.blocks()).split("\n")
    )


def _glued(draft: Draft) -> str:
    """The last end on the line of the value before it."""
    blocks = draft.blocks()
    return damage.joined([*blocks[:-1], replace(blocks[-1], body=blocks[-1].body.removesuffix("\n"))])


def _indented(draft: Draft) -> str:
    """Markers two spaces in."""
    heads = tuple(line.split("{nonce}")[0] + draft.taught.nonce for line in _lines(draft.taught))
    return "\n".join(
        "  " + line if line.startswith(heads) else line for line in damage.joined(draft.blocks()).split("\n")
    )


def _repeated(draft: Draft) -> str:
    """The first parameter once more at the end, with another value: the first one counts."""
    again: list[Block] = []
    for block, call in zip(draft.blocks(), draft.calls, strict=True):
        key, value = next(iter(call.arguments.items()))
        other = {key: f"other {value}" if isinstance(value, str) else value}
        again.append(replace(block, body=block.body + draft.taught.body(other, draft.raw(call))))
    return damage.joined(again)


def _lines(taught: Taught) -> tuple[str, ...]:
    return taught.call, taught.arg, taught.end


def _on_call(change: Callable[[Call], Call]) -> Callable[[Draft], str]:
    return lambda draft: damage.joined(replace(draft, calls=tuple(change(call) for call in draft.calls)).blocks())


def _enum_case(call: Call) -> Call:
    return call._replace(
        arguments={key: value.upper() if key == "kind" else value for key, value in call.arguments.items()}
    )


def _nested_as_string(call: Call) -> Call:
    """Objects and arrays as JSON within a string."""
    changed = {
        key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in call.arguments.items()
    }
    return call._replace(arguments=changed)


def _lone_for_list(call: Call) -> Call:
    """The only element in place of a list of one."""
    changed = {
        key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in call.arguments.items()
    }
    return call._replace(arguments=changed)


def _rewritten(change: Callable[[str, Arguments], object]) -> Callable[[Draft], str]:
    """JSON of another shape in the same surroundings."""

    def written(draft: Draft) -> str:
        blocks = draft.blocks()
        bodies = (json.dumps(change(call.name, call.arguments), ensure_ascii=False) for call in draft.calls)
        return damage.joined([replace(block, body=body) for block, body in zip(blocks, bodies, strict=True)])

    return written


def _as_function(name: str, given: Arguments) -> object:
    return {"type": "function", "function": {"name": name, "arguments": json.dumps(given)}}


def _one_list(draft: Draft) -> str:
    """All calls as one JSON list in one pair of marks."""
    whole = [{"name": call.name, "arguments": call.arguments} for call in draft.calls]
    return str(replace(draft.blocks()[0], body=json.dumps(whole, ensure_ascii=False)))


def _no_parameter_end(draft: Draft) -> str:
    """The last `</parameter>` is missing."""
    blocks = draft.blocks()
    head, _, tail = blocks[-1].body.rpartition("</parameter>")
    return damage.joined([*blocks[:-1], replace(blocks[-1], body=head + tail)])


def _single_attributes(draft: Draft) -> str:
    """Attributes in single quotation marks, and spaces about them."""
    text = re.sub(r'<invoke name="([^"\n]*)">', r"<invoke name='\1' >", damage.joined(draft.blocks()))
    return re.sub(r'<parameter name="([^"\n]*)">', r"<parameter name='\1'>", text)


def _struck(kind: str) -> Callable[[Draft], str]:
    """A failure that the simulated model knows."""

    def written(draft: Draft) -> str:
        if kind in damage.CALL:
            return _on_call(damage.CALL[kind])(draft)
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


@dataclass(frozen=True)
class Failure:
    """One way to go wrong. fits: for which calls it is one; `said`: what of it is the reader's to pass on."""

    name: str
    write: Callable[[Draft], str]
    forms: tuple[str, ...]
    expected: Expected
    fits: Callable[[Draft], bool] = lambda draft: True
    before: str = ""


def _last_is_json(draft: Draft) -> bool:
    """Every call ends with a value that is written as JSON."""
    return all(call.arguments and not draft.raw(call).get(list(call.arguments)[-1], True) for call in draft.calls)


def _last_is_raw(draft: Draft) -> bool:
    call = draft.calls[-1]
    return bool(call.arguments) and draft.raw(call).get(list(call.arguments)[-1], True)


def _some_json(draft: Draft) -> bool:
    return draft.form in JSON_FORMS or any(not all(draft.raw(call).values()) for call in draft.calls)


def _last_has_no_line_end(draft: Draft) -> bool:
    """Else the value's own line end would pass for the one before the marker."""
    return _last_is_raw(draft) and not str(list(draft.calls[-1].arguments.values())[-1]).endswith("\n")


def _has(kind: type | tuple[type, ...]) -> Callable[[Draft], bool]:
    return lambda draft: all(any(isinstance(value, kind) for value in call.arguments.values()) for call in draft.calls)


def _can_end_at_json(draft: Draft) -> bool:
    return draft.form != TAUGHT or _last_is_json(draft)


def _has_kind(draft: Draft) -> bool:
    return all("kind" in call.arguments for call in draft.calls)


def _has_a_list_of_one(draft: Draft) -> bool:
    """... that can't be taken for anything but text: blanks could be a tag's, quotes and brackets JSON's."""
    lists = [call.arguments.get("commands", []) for call in draft.calls]
    return all(len(values) == 1 and re.fullmatch(r"[A-Za-z][A-Za-z .-]*[A-Za-z.]", values[0]) for values in lists)


def _has_arguments(draft: Draft) -> bool:
    return all(call.arguments for call in draft.calls)


def _ends_cleanly(draft: Draft) -> bool:
    """A value that is cut must be long enough to be cut within."""
    last = draft.calls[-1].arguments
    return bool(last) and len(str(list(last.values())[-1])) > 60 and len(draft.calls[-1].arguments) < 3


R, N, E = Expected.RECOVER, Expected.REFUSE, Expected.EITHER
JSONS = JSON_FORMS
# A fence with more behind it may as well show a call.
UNFENCED = tuple(form for form in FORMS if form != "fenced")
FAILURES = (
    Failure(CLEAN, lambda draft: damage.joined(draft.blocks()), FORMS, R),
    Failure(
        "preamble",
        lambda draft: PREAMBLE + damage.joined(draft.blocks()),
        (TAUGHT, "hermes", *TAG_FORMS, "bracket"),
        R,
        before=PREAMBLE,
    ),
    Failure("prose after", _struck("prose-after"), UNFENCED, R),
    Failure("prose after", _struck("prose-after"), ("fenced",), E),
    Failure("result invented", _struck("invented-result"), UNFENCED, R),
    Failure("result invented", _struck("invented-result"), ("fenced",), E),
    Failure("end twice", _struck("end-twice"), (TAUGHT, "hermes", *TAG_FORMS), R),
    Failure("half an end, JSON last", _struck("half-end"), (TAUGHT, "hermes"), R, _can_end_at_json),
    Failure("half an end, text last", _struck("half-end"), (TAUGHT,), E, _last_is_raw),
    Failure("no end, JSON last", _struck("no-end"), (TAUGHT, "hermes"), R, _can_end_at_json),
    Failure("no end, text last", _struck("no-end"), (TAUGHT,), N, _last_is_raw),
    Failure("cut in the arguments", _struck("cut"), FORMS, N, _ends_cleanly),
    Failure("opening swallowed", _struck("swallowed"), ("hermes",), R),
    Failure("opening swallowed", _struck("swallowed"), (TAUGHT,), E, _has_arguments),
    Failure("brace too many", _struck("brace"), (TAUGHT, *JSONS), R, _can_end_at_json),
    Failure("brace missing", _struck("brace-missing"), ("hermes", "bracket", "fenced"), R),
    Failure("code one digit off", _struck("near-code"), (TAUGHT,), R),
    Failure("code quite wrong", _struck("wrong-code"), (TAUGHT,), E),
    Failure("spaces behind markers", _struck("spaces"), (TAUGHT,), R),
    Failure("CR behind markers", _crlf, (TAUGHT,), R),
    Failure("markers indented", _indented, (TAUGHT,), E),
    Failure("end on the value's line", _glued, (TAUGHT,), E, _last_has_no_line_end),
    Failure("in a code fence", _struck("in-a-fence"), (TAUGHT,), E),
    Failure("parameter twice", _repeated, (TAUGHT,), R, _has_arguments),
    Failure("single quotes", _struck("single-quotes"), (TAUGHT, *JSONS), R, _some_json),
    Failure("trailing commas", _struck("trailing-comma"), (TAUGHT, *JSONS), R, _some_json),
    Failure("Python's words", _struck("python-words"), (TAUGHT, *JSONS), R, _has(bool)),
    Failure("line feeds in strings", _struck("line-feeds"), (TAUGHT, *JSONS), R, _some_json),
    Failure("keys without quotes", _struck("bare-keys"), (TAUGHT, *JSONS), R, _some_json),
    Failure("JSON in a fence", _struck("json-fence"), (TAUGHT, "hermes", "bracket"), R, _some_json),
    Failure("name in another case", _struck("name-case"), FORMS, R),
    Failure("name with a prefix", _struck("name-prefix"), FORMS, R),
    Failure("no such tool", _struck("unknown-tool"), FORMS, N),
    Failure("key misspelt", _struck("misspelt-key"), FORMS, R, _has_arguments),
    Failure("required missing", _struck("missing-argument"), FORMS, N, _has_arguments),
    Failure("numbers as strings", _struck("strings-for-numbers"), (TAUGHT, *JSONS), R, _has((int, float))),
    Failure("choice in another case", _on_call(_enum_case), FORMS, R, _has_kind),
    Failure("objects as strings", _on_call(_nested_as_string), (TAUGHT, *JSONS), R, _has((dict, list))),
    Failure("element for a list", _on_call(_lone_for_list), FORMS, R, _has_a_list_of_one),
    Failure(
        "arguments as a string",
        _rewritten(lambda name, given: {"name": name, "arguments": json.dumps(given)}),
        JSONS,
        R,
    ),
    Failure("`parameters`", _rewritten(lambda name, given: {"name": name, "parameters": given}), ("hermes",), R),
    Failure("a `function` object", _rewritten(_as_function), ("hermes",), R),
    Failure("one list of calls", _one_list, ("hermes", "fenced"), E),
    Failure("no `</parameter>`", _no_parameter_end, TAG_FORMS[:-1], E, _has_arguments),
    Failure("single-quoted attributes", _single_attributes, ("invoke", "wrapped"), E),
)
