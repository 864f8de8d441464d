"""What reading a reply for calls found, for verdicts and traces. Pure."""

from collections import Counter
from dataclasses import dataclass, field

from msgspec import Struct


class CallFacts(Struct, frozen=True, kw_only=True):
    """A call that was given to the client. form: how it was written (`taught`, `tool_call`, ..., `native`)."""

    call_id: str
    name: str
    form: str
    repairs: tuple[str, ...] = ()


class InvalidCall(Struct, frozen=True, kw_only=True):
    """A call that could not be given as one, or (committed) was given before it turned out to be invalid.

    errors: what is wrong with it, fit to be told to the model. text: as the model wrote it.
    """

    name: str
    form: str
    errors: tuple[str, ...]
    text: str = ""
    committed: bool = False


@dataclass
class ReadingReport:
    """Grows as the reply is read.

    repairs, dropped: reason -> how often. committed: calls of which something was sent. cut: the reply ended within
    a call, which was left as it is if it was committed. result_invented: the model played a result itself; nothing
    behind it was read. intercepted: the site took calls for itself. withheld: text that was not sent, since a call
    has to come first (`withhold_text`). unsent: invalid calls and what stood behind them, of a reply without any other.
    """

    calls: list[CallFacts] = field(default_factory=list[CallFacts])
    invalid: list[InvalidCall] = field(default_factory=list[InvalidCall])
    repairs: Counter[str] = field(default_factory=Counter[str])
    dropped: Counter[str] = field(default_factory=Counter[str])
    committed: int = 0
    cut: bool = False
    result_invented: bool = False
    intercepted: int = 0
    call_in_thinking: bool = False
    runaway: bool = False
    withheld: str = ""
    unsent: str = ""

    @property
    def hits(self) -> Counter[str]:
        """Calls by form."""
        return Counter(call.form for call in self.calls)
