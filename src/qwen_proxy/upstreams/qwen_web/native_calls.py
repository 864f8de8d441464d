"""Calls that come as frames of their own, `function_call`: growing snapshots or increments. Pure.

Source: upstream protocol §4.4 (delta fields). The site looks for calls in what the model writes, for tools of its own.
One of a tool that only the prompt taught is the client's; the site answers it with `Tool X does not exists.` under the
role `function`, and the model goes on as if it had failed.
"""

from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.upstreams.qwen_web.wire import is_object, text

REFUSAL: Final = "does not exist"


class NativeCall(Struct, frozen=True):
    """`arguments` is JSON text as far as it came, empty if nothing did."""

    call_id: str
    name: str
    arguments: str = ""


class NativeCalls:
    """Puts the frames of calls together. One is `open` until the next begins, or `close` is called."""

    def __init__(self, names: frozenset[str]) -> None:
        """`names`: the tools whose calls are the client's; of all others nothing is taken."""
        self.names = names
        self.open: NativeCall | None = None
        self._closed: set[tuple[str, str]] = set()

    @property
    def open_name(self) -> str:
        """Whose a frame without a name is."""
        return "" if self.open is None else self.open.name

    def take(self, call_id: str, name: str, arguments: object) -> NativeCall | None:
        """Read one frame of an offered tool. Returns the call before it, if this is another one's."""
        written = written_of(arguments)
        known, finished = self.open, None
        if known is None or (call_id, name) != (known.call_id, known.name):
            finished, known = self.close(), NativeCall(call_id, name)
        if (call_id, name) not in self._closed or not call_id:
            self.open = NativeCall(call_id, name, joined(known.arguments, written))
        return finished

    def close(self) -> NativeCall | None:
        """The open call, which is over; a frame that repeats it later is ignored if it has an id."""
        closed, self.open = self.open, None
        if closed is not None:
            self._closed.add((closed.call_id, closed.name))
        return closed


def written_of(arguments: object) -> str:
    """The arguments of a frame as JSON text."""
    return msgspec.json.encode(arguments).decode() if is_object(arguments) else text(arguments)


def joined(known: str, written: str) -> str:
    """A snapshot begins with what is known; anything else is an increment, but for one that says it all again."""
    if written.startswith(known):
        return written
    return known if known.endswith(written) and known.endswith("}") else known + written
