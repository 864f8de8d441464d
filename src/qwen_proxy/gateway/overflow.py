"""When a request goes on to another backend, and which targets are left for it. Pure.

| what happened at a backend | the next |
|---|---|
| it does not take what is asked, or the key may ask no more of it | at once |
| no account can be had, or none in time | at once; a busy one comes again behind the others, with the usual wait |
| it can't be reached, or says it is overloaded | at once |
| a token that was rejected the first time | stays: the account is signed in anew |
| another failure of an account, such as its quota | when no try is left: other accounts come first; one more is made |
| another failure of an exit or the upstream | when this was the last try but one: the last goes elsewhere |
| the client's fault, ours, the deadline, content was sent | never |

What was asked counts as a try, however many backends there are; a backend that had no account does not. A try beyond
them is made once a backend at most, since each is left only once.
"""

from collections.abc import Sequence
from typing import Final

from qwen_proxy.chat.models import ModelName
from qwen_proxy.gateway.routing import Target
from qwen_proxy.ground.errors import (
    AccountsBusy,
    Blame,
    ExitUnreachable,
    NoAccountUsable,
    ProxyError,
    UpstreamOverloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)

UNREACHABLE: Final = (UpstreamUnavailable, UpstreamOverloaded, UpstreamTimeout, ExitUnreachable)
THEIRS: Final = (Blame.EXIT, Blame.UPSTREAM)


def moves_on(error: ProxyError, *, was_asked: bool, tries_left: int) -> bool:
    """Whether the next backend is to be taken, if there is one. was_asked: whether a request went out to this one."""
    if not was_asked:
        return isinstance(error, NoAccountUsable) or error.blame is Blame.CLIENT
    if error.blame is Blame.ACCOUNT:
        return tries_left <= 0
    if tries_left <= 0 or error.blame not in THEIRS:
        return False
    if isinstance(error, UpstreamTimeout) and error.phase == "total":
        return False
    return tries_left == 1 or isinstance(error, UNREACHABLE)


class Line:
    """The targets of one request that are left, the current one first."""

    __slots__ = ("_left", "_put_off", "current")

    def __init__(self, targets: Sequence[Target]) -> None:
        """At least one."""
        self._left = targets
        self._put_off: frozenset[tuple[str, ModelName]] = frozenset()
        self.current = targets[0]

    @property
    def has_next(self) -> bool:
        return len(self._left) > 1

    def advance(self, error: ProxyError) -> None:
        """Leave the current one, which `has_next`; one that was only busy comes once more, behind the others."""
        target, *left = self._left
        place = (target.backend, target.name)
        if isinstance(error, AccountsBusy) and place not in self._put_off:
            self._put_off |= {place}
            left.append(target)
        self._left, self.current = left, left[0]
