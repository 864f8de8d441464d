"""Many accounts as an operator pastes them, one a line, with an error for each line that is wrong. Pure.

Source: upstream protocol §10.6. Blank lines and those that begin with `#` are passed over; numbers count them.
"""

import re
from collections.abc import Container
from typing import Final

from msgspec import Struct

from qwen_proxy.config.lines import AccountLine, WrongLine, is_blank, read_account_line

BYTE_ORDER_MARK: Final = "\ufeff"
_LINE_END: Final = re.compile(r"\r\n|\r|\n")


class GoodLine(Struct, frozen=True, kw_only=True):
    number: int
    login: AccountLine


class BadLine(Struct, frozen=True, kw_only=True):
    """email: as it is in the line, empty when what stands there is none."""

    number: int
    problem: str
    email: str = ""

    @property
    def sentence(self) -> str:
        return f"line {self.number}: {self.problem}"


class RepeatedLine(Struct, frozen=True, kw_only=True):
    """first_number: the line that has this account already; None when it was added before."""

    number: int
    email: str
    first_number: int | None = None

    @property
    def problem(self) -> str:
        if self.first_number is None:
            return "this account was added before"
        return f"the same account as line {self.first_number}"

    @property
    def sentence(self) -> str:
        return f"line {self.number}: {self.problem}"


class PastedLines(Struct, frozen=True, kw_only=True):
    """Each line that is neither blank nor a comment is in one of them, by number."""

    good: tuple[GoodLine, ...] = ()
    bad: tuple[BadLine, ...] = ()
    repeated: tuple[RepeatedLine, ...] = ()

    @property
    def total(self) -> int:
        return len(self.good) + len(self.bad) + len(self.repeated)


def read_lines(text: str, existing: Container[str] = ()) -> PastedLines:
    """existing: ids of the accounts that there are."""
    good: list[GoodLine] = []
    bad: list[BadLine] = []
    repeated: list[RepeatedLine] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(_LINE_END.split(text.removeprefix(BYTE_ORDER_MARK)), 1):
        if is_blank(line):
            continue
        try:
            login = read_account_line(line)
        except WrongLine as error:
            bad.append(BadLine(number=number, problem=str(error), email=error.email))
            continue
        first = seen.setdefault(login.account_id, number)
        if first != number:
            repeated.append(RepeatedLine(number=number, email=login.email, first_number=first))
        elif login.account_id in existing:
            repeated.append(RepeatedLine(number=number, email=login.email))
        else:
            good.append(GoodLine(number=number, login=login))
    return PastedLines(good=tuple(good), bad=tuple(bad), repeated=tuple(repeated))
