"""Usage, summed along some of its axes, and as a CSV file. Pure."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, assert_never

from msgspec import Struct

from qwen_proxy.state.store import UsageCounts, UsageKey


class Axis(StrEnum):
    TIME = "time"
    KEY = "key"
    ACCOUNT = "account"
    MODEL = "model"
    FEATURE = "feature"


class UsageLine(Struct, frozen=True, kw_only=True):
    """starts_at: Unix seconds. What was summed over is None."""

    starts_at: int | None = None
    key: str | None = None
    account: str | None = None
    model: str | None = None
    feature: str | None = None
    counts: UsageCounts


def summed(rows: Mapping[UsageKey, UsageCounts], axes: Sequence[Axis]) -> list[UsageLine]:
    """One line for each combination of values on these axes, in their order."""
    totals: dict[tuple[int | None, str | None, str | None, str | None, str | None], UsageCounts] = {}
    for row, counts in rows.items():
        place = (
            row.starts_at if Axis.TIME in axes else None,
            row.key if Axis.KEY in axes else None,
            row.account if Axis.ACCOUNT in axes else None,
            row.model if Axis.MODEL in axes else None,
            row.feature if Axis.FEATURE in axes else None,
        )
        totals[place] = totals.get(place, UsageCounts()) + counts
    lines = [
        UsageLine(starts_at=starts_at, key=key, account=account, model=model, feature=feature, counts=counts)
        for (starts_at, key, account, model, feature), counts in totals.items()
    ]
    return sorted(lines, key=lambda line: tuple(str(_value(line, axis)) for axis in axes))


COUNTS: Final = ("requests", "failures", "prompt_tokens", "completion_tokens", "reasoning_tokens")


def as_csv(lines: Sequence[UsageLine], axes: Sequence[Axis], key_names: Mapping[str, str]) -> str:
    """With a line of headings. key_names: a key's name by its id. RFC 4180, but for LF line ends.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [name for axis in axes for name in (("key", "key_name") if axis is Axis.KEY else (axis.value,))]
    writer.writerow([*names, *COUNTS, "total_tokens"])
    for line in lines:
        cells: list[str | int] = []
        for axis in axes:
            value = _value(line, axis)
            if axis is Axis.TIME and isinstance(value, int):
                cells.append(f"{datetime.fromtimestamp(value, UTC):%Y-%m-%dT%H:%M:%SZ}")
            else:
                cells.append(_harmless(str(value)))
            if axis is Axis.KEY:
                cells.append(_harmless(key_names.get(str(value), "")))
        counts = [int(getattr(line.counts, name)) for name in COUNTS]
        writer.writerow([*cells, *counts, line.counts.prompt_tokens + line.counts.completion_tokens])
    return out.getvalue()


def _value(line: UsageLine, axis: Axis) -> int | str | None:
    match axis:
        case Axis.TIME:
            return line.starts_at
        case Axis.KEY:
            return line.key
        case Axis.ACCOUNT:
            return line.account
        case Axis.MODEL:
            return line.model
        case Axis.FEATURE:
            return line.feature
        case _:
            assert_never(axis)


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
