"""What became of a case: recovered, correctly refused, lost, or read as a call that nobody made.

| what was read | RECOVER | REFUSE | EITHER |
|---|---|---|---|
| exactly the intended calls, all of them | recovered | recovered | recovered |
| the first ones of them or none, and a word about the rest | lost | refused | refused |
| the same, without a word | lost | lost | lost |
| later ones without an earlier one | lost | lost | lost |
| any other call, or other arguments | false | false | false |

A word is: the reading names a problem, or leaves the call open (the client is told that it was cut), or all of the
block arrives as text, where the client sees it. Visible text that should not be there (a marker, a tag) makes a
recovered call `leaked`, which counts as lost.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bench.toolbench.corpus import Case
from bench.toolbench.failures import CLEAN, Expected
from bench.toolbench.kit import Arguments


class Result(StrEnum):
    RECOVERED = "recovered"
    REFUSED = "refused"
    LOST = "lost"
    FALSE = "false"


@dataclass(frozen=True)
class Read:
    """What a reader made of a text. told: problems it named; is_open: its last call was begun and never ended.

    broken: invariants that did not hold, such as sent arguments that are no prefix of the final ones.
    """

    calls: tuple[tuple[str, Arguments], ...]
    text: str
    told: tuple[str, ...] = ()
    is_open: bool = False
    broken: tuple[str, ...] = ()


def judge(case: Case, read: Read) -> tuple[Result, str]:
    """The result, and why, for who looks into a case."""
    if read.broken:
        return Result.FALSE, "; ".join(read.broken)
    if not is_within(read.calls, case.calls):
        return Result.FALSE, f"read {_shown(read.calls)}, meant {_shown(case.calls)}"
    if not is_within(read.calls, case.calls[: len(read.calls)]):
        return Result.LOST, f"read {[name for name, _ in read.calls]} of {[name for name, _ in case.calls]}"
    if len(read.calls) == len(case.calls):
        if read.text.strip() != case.said.strip():
            return Result.LOST, f"leaked {read.text.strip()[:200]!r}"
        return Result.RECOVERED, ""
    has_word = bool(read.told) or read.is_open or _is_all_there(case, read)
    why = f"told {read.told}, text {read.text[:200]!r}"
    if case.expected is Expected.RECOVER or not has_word:
        return Result.LOST, why
    return Result.REFUSED, why


def is_within(calls: Sequence[tuple[str, Arguments]], intended: Sequence[tuple[str, Arguments]]) -> bool:
    """Whether the calls are some of the intended ones, in their order, alike to the type of every number."""
    left = iter(intended)
    return all(any(name == wanted and alike(given, meant) for wanted, meant in left) for name, given in calls)


def alike(left: object, right: object) -> bool:
    """Deep equality that tells true from 1, and lets 1.0 be 1, as JSON does."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(alike(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(alike(*pair) for pair in zip(left, right, strict=True))
    return left == right


def _is_all_there(case: Case, read: Read) -> bool:
    """Nothing was called, and the whole text arrives."""
    return not read.calls and "".join(read.text.split()) == "".join(case.text.split())


def _shown(calls: Iterable[tuple[str, Arguments]]) -> str:
    return str(list(calls))[:600]


@dataclass
class Tally:
    """Results by form and failure."""

    counts: dict[tuple[str, str], Counter[Result]] = field(default_factory=dict[tuple[str, str], Counter[Result]])

    def add(self, case: Case, result: Result) -> None:
        self.counts.setdefault((case.form, case.failure), Counter())[result] += 1

    def missed(self) -> list[str]:
        """The bars that are missed: nothing lost on clean; 99 % of every failure in every form; nothing false."""
        found: list[str] = []
        for (form, failure), counts in self.counts.items():
            bad = counts[Result.LOST] + counts[Result.FALSE]
            if failure == CLEAN and bad:
                found.append(f"{form}, clean: {bad} lost or false")
            elif bad > 0.01 * counts.total():
                found.append(f"{form}, {failure}: {bad} of {counts.total()} lost or false")
        return found

    def table(self) -> str:
        """A line for each form and failure, and a sum."""
        heads = "".join(f"{result.value:>11}" for result in Result)
        lines = [f"{'form':<10}{'failure':<28}{'cases':>7}{heads}"]
        for (form, failure), counts in sorted(self.counts.items()):
            lines.append(_row(form, failure, counts))
        lines.append(_row("all", "", sum(self.counts.values(), Counter())))
        return "\n".join(lines)


def _row(form: str, failure: str, counts: Counter[Result]) -> str:
    return f"{form:<10}{failure:<28}{counts.total():>7}" + "".join(f"{counts[result]:>11}" for result in Result)


def page(halves: dict[str, Tally]) -> str:
    """The tallies as a table in Markdown: a line for each failure, all forms together, the halves side by side."""
    heads = "".join(f" {half}: cases | recovered | refused | lost | false |" for half in halves)
    lines = [f"| failure | forms |{heads}", "|---|---|" + "---|" * 5 * len(halves)]
    failures: dict[str, list[str]] = {}
    for tally in halves.values():
        for form, failure in tally.counts:
            forms = failures.setdefault(failure, [])
            forms += [form] if form not in forms else []
    for failure, forms in failures.items():
        cells = "".join(_cells(tally, failure) for tally in halves.values())
        lines.append(f"| {failure} | {', '.join(forms)} |{cells}")
    return "\n".join([*lines, "| **all** | |" + "".join(_cells(tally, None) for tally in halves.values())])


def _cells(tally: Tally, failure: str | None) -> str:
    chosen = [counts for (_, name), counts in tally.counts.items() if failure in (None, name)]
    counts = sum(chosen, Counter[Result]())
    return f" {counts.total():,} |" + "".join(f" {counts[result]:,} |" for result in Result)
