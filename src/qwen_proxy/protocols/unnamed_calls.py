"""Names for calls of protocols that have none: a result there says which tool it is of, not which call. Pure."""


class CallNames:
    """Follows a conversation from its beginning; a result answers the first open call of its tool."""

    def __init__(self) -> None:
        self._count = 0
        self._open: dict[str, str] = {}  # an open call's id -> its tool, in their order

    def called(self, tool: str, id: str = "") -> str:
        """The call's id: the client's own, or else one that is unused so far."""
        self._count += 1
        name = id or f"call_{self._count}"
        self._open[name] = tool
        return name

    def answered(self, tool: str, id: str = "") -> str:
        """Which call a result is of: an open one of its tool, or just an open one where it does not say its tool.

        One that was never made has the name of its tool; empty where there is none.
        """
        found = id or next((name for name, of in self._open.items() if tool in ("", of)), tool)
        self._open.pop(found, None)
        return found
