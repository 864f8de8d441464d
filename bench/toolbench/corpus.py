"""Cases: calls with known arguments, written in a form, struck by a failure. All of it follows from a seed."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.toolbench.draft import Draft
from bench.toolbench.failures import CLEAN, FAILURES, Expected, Failure
from bench.toolbench.kit import KIT, Arguments, ToolKind
from bench.toolbench.payloads import Chance
from qwen_proxy.simulator import damage
from qwen_proxy.simulator.roles import Call
from qwen_proxy.simulator.taught import Taught


@dataclass(frozen=True)
class Case:
    """number: the seed's own count. said: the text that is not part of a call and has to arrive.

    text: what the model writes; of native calls, their names and arguments as frames tell them (`slips.frames`).
    """

    number: int
    form: str
    failure: str
    taught: Taught
    text: str
    calls: tuple[tuple[str, Arguments], ...]
    expected: Expected
    said: str = ""

    @property
    def name(self) -> str:
        return f"{self.form}/{self.failure}#{self.number}"


# Tags can't say where such values end, so they are not asked to; `cdata` ends at its own mark.
WITHOUT = {
    **dict.fromkeys(("coder", "function", "invoke", "wrapped"), ("</parameter>", "<parameter")),
    "cdata": ("]]>",),
    "fenced": ("```",),
}  # fmt: skip


MOST_DRAWS = 20_000


def cases(seed: int, times: int, *, own: bool = True) -> Iterator[Case]:
    """Every failure in every form that it can strike, so many times, with arguments drawn from the seed."""
    chance = Chance(seed, own=own)
    number = 0
    for failure in FAILURES:
        for form in failure.forms:
            for _ in range(times):
                number += 1
                yield _case(number, failure, form, chance)


def _case(number: int, failure: Failure, form: str, chance: Chance) -> Case:
    for _ in range(MOST_DRAWS):
        draft = _draft(form, chance)
        if failure.fits(draft) and _is_short_enough(failure, draft) and _tells(failure, draft):
            calls = tuple((call.name, dict(call.arguments)) for call in draft.calls)
            text = failure.write(draft)
            return Case(number, form, failure.name, draft.taught, text, calls, failure.expected, failure.before)
    raise ValueError(f"no arguments fit {form}/{failure.name}")


def _is_short_enough(failure: Failure, draft: Draft) -> bool:
    """Bare JSON is held back up to 8 KB: a longer one passes as text."""
    return draft.form != "bare" or len(failure.write(draft)) < 8000


def _tells(failure: Failure, draft: Draft) -> bool:
    """Whether the failure leaves a text that differs from the clean one, so that a fault is a fault."""
    return failure.name == CLEAN or failure.write(draft) != damage.joined(draft.blocks())


def _draft(form: str, chance: Chance) -> Draft:
    nonce = f"{chance.randrange(16**4):04x}"
    taught = Taught(nonce, "[[call {nonce} {name}]]", "[[arg {nonce} {name}]]", "[[end {nonce}]]")
    several = form not in ("fenced", "bare") and chance.random() < 0.2
    kinds: list[ToolKind] = [chance.choice(KIT) for _ in range(chance.randrange(2, 4) if several else 1)]
    without = (nonce, *WITHOUT.get(form, ()))
    return Draft(tuple(Call(kind.name, kind.make(chance, without)) for kind in kinds), form, taught, chance)


def pieces(text: str, chance: Chance) -> list[str]:
    """The text as upstream reads bring it: whole, by single characters, or in pieces of many sizes."""
    most = chance.choice((1, 7, 20, 60, 4000))
    cut: list[str] = []
    at = 0
    while at < len(text):
        size = chance.randrange(1, most + 1)
        cut.append(text[at : at + size])
        at += size
    return cut
