"""What readers of foreign forms share: held whole, then calls or text. Pure."""

from typing import Final, NamedTuple, Protocol

from qwen_proxy.toolcalls.prepare import Prepared
from qwen_proxy.toolcalls.toolbox import OfferedTool

MAX_CALL_CHARACTERS: Final = 1 << 20
MAX_TRIES: Final = 16  # ends that a damaged call is tried with


class Written(NamedTuple):
    """A call of an offered tool as it was read; `prepared.errors` says whether its arguments are valid."""

    tool: OfferedTool
    prepared: Prepared


UNREADABLE: Final = "it could not be read"


def unreadable(tool: OfferedTool) -> tuple[Written, ...]:
    """A call of a tool whose arguments can't be made out."""
    return (Written(tool, Prepared("", (), (UNREADABLE,))),)


class CallsRead(NamedTuple):
    """form: how they are written. text: what they were read from. rest: what follows. cut: the text ended within."""

    form: str
    calls: tuple[Written, ...]
    text: str
    rest: str
    cut: bool = False


class NotACall(NamedTuple):
    """All text that the reader was given: it is text after all.

    opaque: so much of it is the call of a tool that is not offered, in which no other call is looked for.
    """

    text: str
    opaque: int = 0


Outcome = CallsRead | NotACall


class Reader(Protocol):
    """Reads one block. `feed` begins with the opening; None: more is needed. After an outcome it is used up."""

    def feed(self, text: str) -> Outcome | None: ...

    def finish(self) -> Outcome: ...


def best(tries: list[tuple[Written, ...]]) -> tuple[Written, ...]:
    """The first try whose calls are all valid; else the first of all; empty without any."""
    valid = (calls for calls in tries if calls and not any(call.prepared.errors for call in calls))
    return next(valid, next(iter(tries), ()))


def is_valid(calls: tuple[Written, ...]) -> bool:
    return bool(calls) and not any(call.prepared.errors for call in calls)
