"""What the measurements amount to: medians, ratios, bars, and the table. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Rounds = Mapping[str, Sequence[float]]
"""Of one quantity: by proxy, one number a round; a proxy that does not take part is absent."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered numbers that a `share` of them (0 to 1) does not exceed (nearest rank)."""
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def summary(micros: Sequence[int]) -> dict[str, float]:
    """Median, 99th percentile, maximum (milliseconds) and number of microseconds; empty if there are none."""
    ordered = sorted(micros)
    if not ordered:
        return {}
    return {
        "p50": percentile(ordered, 0.5) / 1000,
        "p99": percentile(ordered, 0.99) / 1000,
        "max": ordered[-1] / 1000,
        "count": len(ordered),
    }


@dataclass(frozen=True, slots=True)
class Quantity:
    """A line of the table. `against`: the bar is on the ratio to that proxy; None: on the number itself.

    `bar` None: shown, not judged.
    """

    name: str
    unit: str
    against: str | None = None
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    quantity: Quantity
    medians: Mapping[str, float]
    ratio: float | None
    """The product to `against`: the median of the rounds' ratios, since what slows a round slows both."""
    is_met: bool | None
    """None: not judged, or nothing to judge by."""


def line(quantity: Quantity, rounds: Rounds, judged: str) -> Line:
    """The medians of one quantity, and how the judged proxy does by its bar."""
    medians = {name: median(values) for name, values in rounds.items() if values}
    reference = quantity.against
    ratio = None
    if reference in medians and judged in medians:
        ratio = median(mine / other for mine, other in zip(rounds[judged], rounds[reference], strict=True))
    compared = medians.get(judged) if reference is None else ratio
    is_met = None if compared is None or quantity.bar is None else compared <= quantity.bar
    return Line(quantity, medians, ratio, is_met)


def table(lines: Sequence[Line], columns: Sequence[str]) -> str:
    """The lines as text: a column a proxy, then ratio, bar and verdict."""
    rows = [["", "unit", *columns, "ratio", "bar", ""]]
    rows += [
        [
            each.quantity.name,
            each.quantity.unit,
            *(_number(each.medians.get(column)) for column in columns),
            "" if each.ratio is None else f"{each.ratio:.2f} x {each.quantity.against}",
            _bar(each.quantity),
            {True: "met", False: "MISSED", None: ""}[each.is_met],
        ]
        for each in lines
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(_cell(row, widths, at) for at in range(len(row))).rstrip() for row in rows)


def _cell(row: Sequence[str], widths: Sequence[int], at: int) -> str:
    return row[at].ljust(widths[at]) if at < 2 else row[at].rjust(widths[at])


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _bar(quantity: Quantity) -> str:
    if quantity.bar is None:
        return ""
    return f"<= {quantity.bar:g}" + ("" if quantity.against is None else f" x {quantity.against}")
