"""`python -m bench.toolbench`: how many damaged calls are read back, and the cost; ends with 1 if a bar is missed.

With `--live URL` nothing is simulated here: a fixed set of tasks is asked of the models behind a gateway.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile

from bench.toolbench import cost, live, payloads, shows
from bench.toolbench.corpus import Case, cases, pieces
from bench.toolbench.draft import TAUGHT
from bench.toolbench.failures import CLEAN
from bench.toolbench.judging import Result, Tally, judge, page
from bench.toolbench.payloads import Chance
from bench.toolbench.reading import FORM, call_text, large_call, read, read_cost
from bench.toolbench.silence import Silence, silence

SEEN_SEED = 20261124
HELD_OUT_SEED = 577215664
"""Its cases are only counted. Nobody looks at them, and no option prints them."""

MOST_MILLISECONDS = 100.0
SIZES_KB = (100, 200, 400)


@dataclass
class Bars:
    """What was missed, for the exit code."""

    missed: list[str] = field(default_factory=list[str])

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.missed.append(what)


def run_corpus(seed: int, times: int, *, own: bool = True) -> tuple[Tally, list[tuple[Case, Result, str]]]:
    """The tally of a corpus, and what went wrong in it, one by one."""
    tally = Tally()
    wrong: list[tuple[Case, Result, str]] = []
    chance = Chance(seed + 1)
    for case in cases(seed, times, own=own):
        result, why = judge(case, read(case, pieces(case.text, chance)))
        tally.add(case, result)
        if result in (Result.LOST, Result.FALSE):
            wrong.append((case, result, why))
    return tally, wrong


def corpora(bars: Bars, times: int, looked_at: str, *, as_page: bool) -> None:
    """Both halves of the corpus. looked_at: print the failing cases of the first half whose name begins so."""
    tally, wrong = run_corpus(SEEN_SEED, times)
    if as_page:
        held_out, _ = run_corpus(HELD_OUT_SEED, times)
        print(page({"seen": tally, "held out": held_out}) + "\n")
        bars.missed += [*tally.missed(), *held_out.missed()]
        return
    print(f"Damaged calls, the half that may be looked at (seed {SEEN_SEED})\n\n{tally.table()}\n")
    for case, result, why in wrong:
        if looked_at and case.name.startswith(looked_at.removesuffix("*")):
            print(f"--- {case.name} ({result.value}, nonce {case.taught.nonce}): {why}\n{case.text[:1500]}\n")
    held_out, _ = run_corpus(HELD_OUT_SEED, times)
    print(f"Damaged calls, held out (seed {HELD_OUT_SEED})\n\n{held_out.table()}\n")
    bars.missed += [f"seen: {missed}" for missed in tally.missed()]
    bars.missed += [f"held out: {missed}" for missed in held_out.missed()]


def documents(bars: Bars, times: int) -> None:
    """Texts that only show calls."""
    chance = Chance(SEEN_SEED)
    count = 0
    for shown in shows.shown(SEEN_SEED, times):
        count += 1
        found = read(shown.text, pieces(shown.text, chance), nonce=shows.NONCE)
        if found.calls or found.is_open or found.broken:
            bars.require(False, f"false: {shown.style}: {found.calls} {found.broken}"[:400])
    print(f"Texts that only show calls: {count}, false calls: {sum('false: ' in one for one in bars.missed)}\n")


def silences(bars: Bars, times: int) -> None:
    """Reads of raw values that no event follows, in clean calls of the taught form and in a large one."""
    print(f"{'reads of raw values':<40}{'reads':>9}{'followed':>10}{'waiting':>9}{'lacking':>9}{'silent':>8}")
    cuts: dict[str, Callable[[str], list[str]]] = {
        "in pieces of many sizes": partial(pieces, chance=Chance(SEEN_SEED)),
        "in pieces of 20 characters": cost.cut,
        "in pieces of 4 characters": partial(cost.cut, size=4),
    }
    call = large_call(payloads.large(400 * 1024))
    large = call_text(TAUGHT, call)
    rows = {f"clean calls, {name}": clean_silence(cut, times) for name, cut in cuts.items()}
    rows["400 KB, in pieces of 20 characters"] = silence(large, [call], FORM, cost.cut(large))
    for name, one in rows.items():
        print(f"{name:<40}{one.reads:>9}{one.followed:>10}{one.waiting:>9}{one.lacking:>9}{one.silent:>8}")
        bars.require(not one.silent, f"{name}: {one.silent} reads of a raw value were followed by no event")
    print()


def clean_silence(cut: Callable[[str], list[str]], times: int) -> Silence:
    """Over both halves of the corpus."""
    found = Silence()
    for seed in (SEEN_SEED, HELD_OUT_SEED):
        for case in takewhile(lambda case: (case.form, case.failure) == (TAUGHT, CLEAN), cases(seed, times)):
            found += silence(case.text, case.calls, case.taught, cut(case.text))
    return found


def costs(bars: Bars) -> None:
    """CPU time of large calls in small pieces, for the taught form and the one most models know."""
    print(f"{'form':<10}{'call':>8}{'CPU ms':>9}{'plain ms':>10}{'ratio':>8}")
    for form in ("taught", "hermes"):
        found: list[cost.Cost] = []
        for size_kb in SIZES_KB:
            one = cost.measure(call_text(form, large_call(payloads.large(size_kb * 1024))), read_cost)
            found.append(one)
            print(
                f"{form:<10}{one.size_kb:>6}KB{one.milliseconds:>9.1f}{one.plain_milliseconds:>10.2f}{one.ratio:>8.1f}"
            )
        bars.require(cost.is_linear(found), f"{form}: the cost is not linear")
        if form == "taught":
            worst = found[-1].milliseconds
            bars.require(
                worst < MOST_MILLISECONDS, f"{form}: {worst:.0f} ms for 400 KB, at most {MOST_MILLISECONDS:.0f}"
            )
    print()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.toolbench")
    parser.add_argument("--times", type=int, default=10, help="cases for each form and failure, in each half")
    parser.add_argument(
        "--look",
        default="",
        metavar="NAME",
        help="print failing cases of the first half, by the start of their name; * for all",
    )
    parser.add_argument("--page", action="store_true", help="one table in Markdown, as docs/tool-bench.md has it")
    parser.add_argument("--no-cost", action="store_true", help="leave out what depends on time")
    parser.add_argument("--live", metavar="URL", help="ask real models, through a gateway at this URL (with /v1)")
    parser.add_argument("--key-variable", default="QWEN_PROXY_KEY", help="the environment variable that holds its key")
    parser.add_argument("--models", default="qwen3.7-plus", help="for --live: names, with commas")
    parser.add_argument("--prompt-kb", default="0,16,48", help="for --live: lengths of the system text")
    parser.add_argument("--repeat", type=int, default=1, help="for --live: each task so many times")
    parser.add_argument("--pause", type=float, default=2.0, help="for --live: seconds between two requests")
    parser.add_argument("--simulated", action="store_true", help="for --live: tell a simulated model what to do")
    options = parser.parse_args()
    if options.live:
        gateway = live.Gateway(
            options.live.rstrip("/"), os.environ.get(options.key_variable, ""), options.pause, options.simulated
        )
        lengths = [int(size) for size in options.prompt_kb.split(",")]
        print(live.table(asyncio.run(live.ask_all(gateway, options.models.split(","), lengths, options.repeat))))
        return 0
    bars = Bars()
    corpora(bars, options.times, options.look, as_page=options.page)
    documents(bars, 2)
    silences(bars, 20 * options.times)
    if not options.no_cost:
        costs(bars)
    print("\n".join(f"missed: {missed}" for missed in bars.missed) or "every bar is met")
    return 1 if bars.missed else 0


if __name__ == "__main__":
    sys.exit(main())
