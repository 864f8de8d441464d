"""Plays a model that obeys its prompt: calls the offered tools in the form it was taught, or gives the JSON demanded.

It also disobeys as directives have it: foreign forms, broken calls, calls that are only thought of, invented results.
What it is to do stands in the user's turn (`scripts`); how, in the rest of the prompt (`taught`, `offers`).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import qwen_proxy.simulator.damage as damage
from qwen_proxy.simulator.answers import Shape
from qwen_proxy.simulator.directives import HEADING, Directive, directives_of, last_part, part_at
from qwen_proxy.simulator.forms import FOREIGN, JSON_FORMS, Block, taught_block
from qwen_proxy.simulator.offers import Offer, offers
from qwen_proxy.simulator.roles import Call
from qwen_proxy.simulator.schemas import demanded, instance
from qwen_proxy.simulator.scripts import AGENT, Step, called, granted, steps
from qwen_proxy.simulator.taught import Result, Taught, calls_in, learn, results

UNTAUGHT = Taught("7f3a", "[[call {nonce} {name}]]", "[[arg {nonce} {name}]]", "[[end {nonce}]]")
"""What a disobedient model writes when it was taught nothing."""

NEVER_FILTERED = ("say", "call", "agent", "json", "once")
"""Directives whose words are their own: `once` and `at=2` in them say nothing about when they hold."""

SIDE_REQUEST = re.compile(r"^CRITICAL: Respond with TEXT ONLY\. Do NOT call any tools\.", re.MULTILINE)
"""How Claude Code asks for a summary of the conversation so far, with all of its tools offered."""

SUMMARY = "Summary of a simulated conversation: the user gave a task, and it is being worked on."

CLAIM = "I have called the tool, and everything is done: the file is written."


@dataclass(frozen=True, slots=True)
class Scene:
    """What a prompt puts before the model.

    turn: the user's turn that counts, the one with the agent's script while that is being played. results: those
    that came after it. script: the steps of an agent, if the turn has some. is_aside: a summary is asked for, whatever
    script is being played.
    """

    turn: str
    taught: Taught | None
    results: list[Result]
    script: list[Step]
    is_aside: bool = False

    @property
    def key(self) -> str:
        """The same for a further try at the same answer, whatever a gateway adds about the first."""
        return f"{len(self.results)} {self.turn.strip()}"

    @property
    def place(self) -> int:
        """Which step comes next: those come first whose calls all have results."""
        known = 0
        for index, step in enumerate(self.script):
            known += max(1, len(step.wishes))
            if known > len(self.results):
                return index
        return max(len(self.script) - 1, 0)


def look(prompt: str) -> Scene:
    """Find the turn that counts and what came after it."""
    taught = learn(prompt)
    hidden = _masked(prompt, taught)
    if SIDE_REQUEST.search(aside := last_part(hidden).replace("\0", "")):
        return Scene(aside, taught, [], [], is_aside=True)
    scripts = list(AGENT.finditer(hidden))
    if scripts and not _answered(hidden, taught, scripts[-1].end()):
        turn = part_at(hidden, scripts[-1].start())
        after = results(prompt, taught, scripts[-1].end()) if taught is not None else []
        return Scene(turn, taught, after, steps(turn))
    turn = last_part(hidden).replace("\0", "")  # the marker that ends a result is no heading
    last = results(prompt, taught, _last_answer(hidden)) if taught is not None else []
    return Scene(turn, taught, last, [])


def _masked(prompt: str, taught: Taught | None) -> str:
    """The prompt with past calls and results blanked, for their text is nobody's turn."""
    if taught is None:
        return prompt
    spans = [*calls_in(prompt, taught), *((found.start, found.end) for found in results(prompt, taught))]
    pieces, at = list[str](), 0
    for start, end in sorted(spans):
        if start >= at:
            # The first line of a call stays, so that an answer with a call can be told from one without.
            pieces += [prompt[at:start], "\0" * (end - start)]
            at = end
    return "".join([*pieces, prompt[at:]])


def _answered(hidden: str, taught: Taught | None, start: int) -> bool:
    """Whether the assistant has spoken after `start` without a call: then the script is over."""
    headings = list(HEADING.finditer(hidden, start))
    for index, heading in enumerate(headings):
        role = next((group for group in heading.groups() if group), "").lower()
        end = headings[index + 1].start() if index + 1 < len(headings) else len(hidden)
        text = hidden[heading.end() : end].strip()
        if role == "assistant" and text and "\0" not in text:
            return True
    return False


def _last_answer(hidden: str) -> int:
    found = [
        heading.end()
        for heading in HEADING.finditer(hidden)
        if next((group for group in heading.groups() if group), "").lower() == "assistant"
    ]
    return found[-1] if found else len(hidden)


def holding(scene: Scene, found: list[Directive], first_time: Callable[[str], bool]) -> list[Directive]:
    """The directives that hold for this answer: `at=2` means the second step only, `once` its first try only."""
    kept: list[Directive] = []
    for directive in found:
        if directive.name in NEVER_FILTERED:
            kept.append(directive)
            continue
        at = directive.named.get("at")
        if at is not None and at != str((scene.place if scene.script else len(scene.results)) + 1):
            continue
        if "once" in directive.words and not first_time(f"{directive.name} {directive.raw} {scene.key}"):
            continue
        kept.append(directive)
    return kept


def act(shape: Shape, prompt: str, scene: Scene, wanted: list[Directive]) -> Shape:
    """The shape as the model would answer: with its calls, the JSON demanded, or about the results it got."""
    if scene.is_aside:
        return replace(shape, text=SUMMARY)
    by_name = {directive.name: directive for directive in wanted}
    offered = offers(prompt) if scene.taught is not None else {}
    said = "say" in by_name
    step = scene.script[scene.place] if scene.script else Step(called(scene.turn))
    if scene.script and step.says:
        shape = replace(shape, text=step.says.replace("{result}", scene.results[-1].text if scene.results else ""))
    elif step.wishes:
        calls = [granted(wish, offered) for wish in step.wishes]
        if None in calls or (scene.taught is None and "form" not in by_name):
            return replace(shape, text=_unable(scene, step))
        made = [call for call in calls if call is not None]
        return _calling(shape, made, scene.taught or UNTAUGHT, offered, by_name, shape.text if said else "")
    elif scene.results and not said:
        shape = replace(shape, text=f"The tool {scene.results[-1].name} said: {scene.results[-1].text}")
    return _structured(shape, prompt, scene, by_name)


def _unable(scene: Scene, step: Step) -> str:
    """An honest answer when no offered tool fits, as in side requests that repeat the user's words without tools."""
    names = ", ".join(wish.name for wish in step.wishes)
    return f"No tool for {names} is offered." if scene.taught is not None else "Simulated, without tools"


def _calling(
    shape: Shape,
    calls: list[Call],
    taught: Taught,
    offered: dict[str, Offer],
    by_name: dict[str, Directive],
    before: str,
) -> Shape:
    """An answer that makes calls, well or badly."""
    kinds = [word for word in by_name["damage"].words if word in damage.KINDS] if "damage" in by_name else []
    form = next(iter(by_name["form"].words), "taught") if "form" in by_name else "taught"
    if "runaway" in by_name:
        calls = calls * max(1, by_name["runaway"].number(30))
    if "intercepted" in by_name:
        return replace(shape, text=before, refused_tools=tuple(call.name for call in calls))
    if form == "native":
        return replace(shape, text=before, native_calls=tuple((name, arguments) for name, arguments in calls))
    text = write(calls, form, kinds, taught, offered)
    if "in-thinking" in by_name:
        return replace(shape, thinking=shape.thinking or "grow", thought=text, text=before or CLAIM)
    if "claim" in by_name:
        return replace(shape, text=before or CLAIM)
    return replace(shape, text=f"{before}\n\n{text}" if before else text)


def write(
    calls: list[Call],
    form: str,
    kinds: list[str],
    taught: Taught,
    offered: dict[str, Offer],
    where: float = 0.5,
) -> str:
    """The calls as text in a form (`taught`, or one of `forms.FOREIGN`), struck by each kind of damage in turn."""
    for kind in kinds:
        if kind in damage.CALL:
            calls = [damage.CALL[kind](call) for call in calls]
    broken = [damage.JSON[kind] for kind in kinds if kind in damage.JSON]
    blocks = [_block(call, form, taught, offered, broken) for call in calls]
    striking = [damage.TEXT[kind] for kind in kinds if kind in damage.TEXT]
    if not striking:
        return damage.joined(blocks)
    # Several that strike the text would need an order; the first has its way.
    return striking[0](blocks, taught, where)


def _block(
    call: Call, form: str, taught: Taught, offered: dict[str, Offer], broken: list[Callable[[str], str]]
) -> Block:
    """One call; broken JSON is the whole body of a JSON form, or the values that are JSON in the others."""
    offer = offered.get(call.name)
    raw = offer.raw() if offer is not None else {}
    if form in FOREIGN:
        block = FOREIGN[form](call)
        if form not in JSON_FORMS:
            return block
        for breaking in broken:
            block = replace(block, body=breaking(block.body))
        return block
    block = taught_block(call, taught, raw)
    for key, value in call.arguments.items():
        if broken and not (isinstance(value, str) and raw.get(key, True)):
            text = json.dumps(value, ensure_ascii=False)
            struck = text
            for breaking in broken:
                struck = breaking(struck)
            whole = f"{taught.parameter(key)}\n"
            block = replace(block, body=block.body.replace(whole + text + "\n", whole + struck + "\n", 1))
    return block


def _structured(shape: Shape, prompt: str, scene: Scene, by_name: dict[str, Directive]) -> Shape:
    """The answer as JSON where the prompt demands it, or where a directive says so; well or badly."""
    schema = demanded(prompt)
    wanted = by_name.get("json")
    if wanted is not None and wanted.raw:
        text = wanted.raw
    elif schema is not None and "say" not in by_name:
        # The last word of a script is put into the JSON, as a model that is to give both would do.
        words = shape.text if scene.script else directives_of(scene.turn)[1]
        said = " ".join(words.split())[:200]
        text = json.dumps(instance(schema, said or "simulated"), ensure_ascii=False)
    else:
        return shape
    bad = by_name.get("bad-json")
    return replace(shape, text=text if bad is None else _bad(text, next(iter(bad.words), "invalid")))


def _bad(text: str, kind: str) -> str:
    """JSON as a model gets it wrong."""
    match kind:
        case "fence":
            return f"```json\n{text}\n```"
        case "prose":
            return f"Here is the JSON you asked for:\n\n{text}\n\nTell me if you need more."
        case "cut":
            return text[: len(text) // 2]
        case "comma":
            return damage.JSON["trailing-comma"](text)
        case "quotes":
            return damage.JSON["single-quotes"](text)
        case "none":
            return "I'd rather not."
        case _:
            return '{"unexpected": [1, 2, 3]}'
