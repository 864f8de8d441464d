"""What the site's own search is asked for, from the frames of its call. Pure. Source: upstream protocol §5.1."""

from typing import Final

from qwen_proxy.upstreams.qwen_web.native_calls import joined, written_of
from qwen_proxy.upstreams.qwen_web.wire import items, loads, members, text

MOST_CHARACTERS: Final = 8192  # of one call's arguments


class Queries:
    """Puts together `{"queries": [...]}`, which comes in increments or growing snapshots."""

    def __init__(self) -> None:
        self._written = ""
        self._known: set[str] = set()

    def take(self, arguments: object) -> tuple[str, ...]:
        """Those that are new; none until a call's JSON is whole."""
        self._written = joined(self._written, written_of(arguments))[:MOST_CHARACTERS]
        if not self._written.endswith("}"):
            return ()
        try:
            asked = items(members(loads(self._written.encode(errors="replace"))).get("queries"))
        except ValueError:  # a brace inside of a query
            return ()
        if not asked:
            return ()
        self._written = ""  # the next frame is of another call, or says this one again
        new = tuple(dict.fromkeys(query for query in map(text, asked) if query and query not in self._known))
        self._known.update(new)
        return new
