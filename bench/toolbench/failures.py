"""The ways a written call goes wrong, and what a reader should make of each.

`RECOVER`: the arguments can be told, so anything but them is a loss. `REFUSE`: they can't (cut short, no such tool):
right is to say so and to make no call. `EITHER`: both are right, a wrong call is not.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from bench.toolbench import slips
from bench.toolbench.draft import TAG_FORMS, TAUGHT, Draft
from qwen_proxy.simulator import damage
from qwen_proxy.simulator.forms import FOREIGN, JSON_FORMS

NATIVE = "native"
FORMS = (TAUGHT, *FOREIGN)
CLEAN = "clean"
PREAMBLE = "I'll do that now.\n\n"


class Expected(StrEnum):
    RECOVER = "recover"
    REFUSE = "refuse"
    EITHER = "either"


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
    """Else the value's own line end, or blanks alone on its last line, would pass for what stands before a marker."""
    if not _last_is_raw(draft):
        return False
    value = str(list(draft.calls[-1].arguments.values())[-1])
    return bool(value.rpartition("\n")[2].strip())


def _glues_several(draft: Draft) -> bool:
    return _are_several(draft) and all(
        _last_has_no_line_end(replace(draft, calls=(call,))) for call in draft.calls if call.arguments
    )


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


def _are_several(draft: Draft) -> bool:
    return len(draft.calls) > 1


def _has_parts_in_its_name(draft: Draft) -> bool:
    return all("__" in call.name for call in draft.calls)


def _ends_cleanly(draft: Draft) -> bool:
    """A value that is cut must be long enough to be cut within."""
    last = draft.calls[-1].arguments
    return bool(last) and len(str(list(last.values())[-1])) > 60 and len(draft.calls[-1].arguments) < 3


R, N, E = Expected.RECOVER, Expected.REFUSE, Expected.EITHER
JSONS = JSON_FORMS
MARKED = (TAUGHT, "hermes", *TAG_FORMS, "bracket")
# A fence with more behind it may as well show a call.
UNFENCED = tuple(form for form in FORMS if form != "fenced")
FAILURES = (
    Failure(CLEAN, lambda draft: damage.joined(draft.blocks()), FORMS, R),
    Failure(
        "preamble",
        lambda draft: PREAMBLE + damage.joined(draft.blocks()),
        MARKED,
        R,
        before=PREAMBLE,
    ),
    Failure("prose after", slips.struck("prose-after"), UNFENCED, R),
    Failure("prose after", slips.struck("prose-after"), ("fenced",), E),
    Failure("result invented", slips.struck("invented-result"), UNFENCED, R),
    Failure("result invented", slips.struck("invented-result"), ("fenced",), E),
    Failure("end twice", slips.struck("end-twice"), (TAUGHT, "hermes", *TAG_FORMS), R),
    Failure("half an end, JSON last", slips.struck("half-end"), (TAUGHT, "hermes"), R, _can_end_at_json),
    Failure("half an end, text last", slips.struck("half-end"), (TAUGHT,), E, _last_is_raw),
    Failure("no end, JSON last", slips.struck("no-end"), (TAUGHT, "hermes"), R, _can_end_at_json),
    Failure("no end, text last", slips.struck("no-end"), (TAUGHT,), N, _last_is_raw),
    Failure("cut in the arguments", slips.struck("cut"), FORMS, N, _ends_cleanly),
    Failure("opening swallowed", slips.struck("swallowed"), ("hermes",), R),
    Failure("opening swallowed", slips.struck("swallowed"), (TAUGHT,), E, _has_arguments),
    Failure("brace too many", slips.struck("brace"), (TAUGHT, *JSONS), R, _can_end_at_json),
    Failure("brace missing", slips.struck("brace-missing"), ("hermes", "bracket", "fenced"), R),
    Failure("code one digit off", slips.struck("near-code"), (TAUGHT,), R),
    Failure("code quite wrong", slips.struck("wrong-code"), (TAUGHT,), E),
    Failure("spaces behind markers", slips.struck("spaces"), (TAUGHT,), R),
    Failure("CR behind markers", slips.crlf, (TAUGHT,), R),
    Failure("markers indented", slips.indented, (TAUGHT,), E),
    Failure("end on the value's line", slips.glued, (TAUGHT,), E, _last_has_no_line_end),
    Failure("in a code fence", slips.struck("in-a-fence"), (TAUGHT,), E),
    Failure("parameter twice", slips.repeated, (TAUGHT,), R, _has_arguments),
    Failure("single quotes", slips.struck("single-quotes"), (TAUGHT, *JSONS), R, _some_json),
    Failure("trailing commas", slips.struck("trailing-comma"), (TAUGHT, *JSONS), R, _some_json),
    Failure("Python's words", slips.struck("python-words"), (TAUGHT, *JSONS), R, _has(bool)),
    Failure("line feeds in strings", slips.struck("line-feeds"), (TAUGHT, *JSONS), R, _some_json),
    Failure("keys without quotes", slips.struck("bare-keys"), (TAUGHT, *JSONS), R, _some_json),
    Failure("JSON in a fence", slips.struck("json-fence"), (TAUGHT, "hermes", "bracket"), R, _some_json),
    Failure("name in another case", slips.struck("name-case"), FORMS, R),
    Failure("name with a prefix", slips.struck("name-prefix"), FORMS, R),
    Failure("no such tool", slips.struck("unknown-tool"), FORMS, N),
    Failure("key misspelt", slips.struck("misspelt-key"), FORMS, R, _has_arguments),
    Failure("required missing", slips.struck("missing-argument"), FORMS, N, _has_arguments),
    Failure("numbers as strings", slips.struck("strings-for-numbers"), (TAUGHT, *JSONS), R, _has((int, float))),
    Failure("choice in another case", slips.on_call(slips.enum_case), FORMS, R, _has_kind),
    Failure("objects as strings", slips.on_call(slips.nested_as_string), (TAUGHT, *JSONS), R, _has((dict, list))),
    Failure("element for a list", slips.on_call(slips.lone_for_list), FORMS, R, _has_a_list_of_one),
    Failure(
        "arguments as a string",
        slips.rewritten(lambda name, given: {"name": name, "arguments": json.dumps(given)}),
        JSONS,
        R,
    ),
    Failure("`parameters`", slips.rewritten(lambda name, given: {"name": name, "parameters": given}), ("hermes",), R),
    Failure("a `function` object", slips.rewritten(slips.as_function), ("hermes",), R),
    Failure("one list of calls", slips.one_list, ("hermes", "fenced"), E),
    Failure("no `</parameter>`", slips.no_parameter_end, TAG_FORMS[:-1], E, _has_arguments),
    Failure("single-quoted attributes", slips.single_attributes, ("invoke", "wrapped"), E),
    Failure("end without its code", slips.end_without_code, (TAUGHT,), E, _last_is_raw),
    Failure("no code anywhere", slips.all_without_code, (TAUGHT,), E),
    Failure("prose between calls", slips.prose_between, MARKED, R, _are_several),
    Failure("blank lines between calls", slips.blank_lines_between, MARKED, R, _are_several),
    Failure("bold markers", slips.bold_markers, (TAUGHT,), E),
    Failure("a mark of the turn's end", slips.end_of_turn, MARKED, R),
    Failure("citations behind the end", slips.cited, MARKED, R),
    Failure("the end indented", slips.only_the_end_indented, (TAUGHT,), R, _has_arguments),
    Failure("ends on the values' lines", slips.ends_glued, (TAUGHT,), E, _glues_several),
    Failure("opened twice", slips.opened_twice, ("hermes",), E),
    Failure("closed by an opening", slips.closed_by_an_opening, ("hermes",), E),
    Failure("half the opening swallowed", slips.half_swallowed, ("hermes",), E),
    Failure("comments in JSON", slips.with_comments, JSONS, E),
    Failure("result in a tag of its own", slips.results_played, UNFENCED, R),
    Failure("name with dots", slips.on_call(slips.dotted), FORMS, R, _has_parts_in_its_name),
    Failure("name without `mcp__`", slips.on_call(slips.unprefixed), FORMS, R, _has_parts_in_its_name),
    Failure(CLEAN, slips.frames(), (NATIVE,), R),
    Failure("name in another case", slips.frames(damage.CALL["name-case"]), (NATIVE,), R),
    Failure("numbers as strings", slips.frames(damage.CALL["strings-for-numbers"]), (NATIVE,), R, _has((int, float))),
    Failure("no such tool", slips.frames(damage.CALL["unknown-tool"]), (NATIVE,), N),
    Failure("required missing", slips.frames(damage.CALL["missing-argument"]), (NATIVE,), N, _has_arguments),
    Failure("cut in the arguments", slips.frames(kept=0.6), (NATIVE,), N, _ends_cleanly),
)
