"""Server-sent events: bytes in any portions, data payloads out. Pure.

Source: the WHATWG HTML standard, "Server-sent events", and upstream protocol §4.4 (a last event without its blank line
counts) and §4.7 b (a body that claims to be a stream may hold bare JSON).
"""

from typing import Final

from qwen_proxy.ground.errors import UpstreamProtocolError

BOM: Final = b"\xef\xbb\xbf"
MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
MAX_STRAY_BYTES: Final = 64 * 1024
IGNORED_FIELDS: Final = frozenset((b"event", b"id", b"retry"))


class SseDecoder:
    """Feed it a body's bytes in order; `finish()` at its end.

    Every byte is looked at a constant number of times, however the body is cut: only new bytes are searched.
    Raises UpstreamProtocolError when one event or line is larger than `max_event_bytes`.
    """

    __slots__ = ("_head", "_line", "_lines", "_max_event_bytes", "_size_bytes", "_skip_lf", "_stray")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._head: bytes | None = b""  # the first bytes, until it is known whether they are a byte order mark
        self._line = bytearray()  # a line whose end has not come
        self._lines: list[bytes] = []  # data lines of the open event
        self._size_bytes = 0  # of the open event's finished lines
        self._skip_lf = False  # the last byte was a CR; an LF now belongs to it
        self._stray = bytearray()

    @property
    def stray(self) -> bytes:
        """Lines that are no field of an event, joined by LF: bare JSON, HTML. The first 64 KiB."""
        return bytes(self._stray)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data payloads of the events that this chunk completes; lines of one event are joined by LF."""
        if self._head is not None:
            chunk = self._behind_bom(self._head + chunk)
        if self._skip_lf and chunk:
            self._skip_lf = False
            chunk = chunk.removeprefix(b"\n")
        if self._line or self._lines or self._size_bytes or b"\r" in chunk or len(chunk) > self._max_event_bytes:
            return self._in_pieces(chunk)
        if chunk.startswith(b"data: ") and chunk.endswith(b"\n\n"):
            if chunk.find(b"\n") == len(chunk) - 2:  # one frame of one line, as a read mostly holds
                return [chunk[6:-2]]
            payloads = chunk[6:-2].split(b"\n\ndata: ")
            if chunk.count(b"\n") == 2 * len(payloads):  # nothing but whole frames of one line each
                return payloads
        return self._in_pieces(chunk)

    def _in_pieces(self, chunk: bytes) -> list[bytes]:
        """The open event first, then whole frames, then the beginning of the next."""
        payloads: list[bytes] = []
        if b"\r" in chunk or len(chunk) > self._max_event_bytes:
            self._slowly(chunk, payloads)
            return payloads
        if self._line or self._lines or self._size_bytes:
            end = chunk.find(b"\n\n") + 2
            if end == 1:
                self._slowly(chunk, payloads)
                return payloads
            self._slowly(chunk[:end], payloads)
            chunk = chunk[end:]
        *frames, rest = chunk.split(b"\n\n")
        for frame in frames:
            if frame.startswith(b"data: ") and b"\n" not in frame:
                payloads.append(frame[6:])
            else:
                self._slowly(frame + b"\n\n", payloads)
        if rest:
            self._slowly(rest, payloads)
        return payloads

    def finish(self) -> list[bytes]:
        """What the end of the body completes: a last line without its end, a last event without its blank line."""
        payloads: list[bytes] = []
        self._slowly((self._head or b"") + b"\n\n", payloads)
        self._head = None
        return payloads

    def _behind_bom(self, head: bytes) -> bytes:
        if len(head) < len(BOM) and BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(BOM)

    def _slowly(self, chunk: bytes, payloads: list[bytes]) -> None:
        """Line by line, with any of the three line ends; bytes.splitlines knows exactly those."""
        lines = chunk.splitlines()
        rest = lines.pop() if chunk[-1:] not in (b"", b"\n", b"\r") else b""
        self._skip_lf = chunk.endswith(b"\r")
        for line in lines:
            if self._line:
                self._line += line
                line = bytes(self._line)
                self._line.clear()
            self._take_line(line, payloads)
        self._line += rest
        self._check(len(self._line))

    def _take_line(self, line: bytes, payloads: list[bytes]) -> None:
        if not line:
            if self._lines:
                payloads.append(b"\n".join(self._lines))
                self._lines.clear()
            self._size_bytes = 0
            return
        self._check(len(line))
        self._size_bytes += len(line)
        name, colon, value = line.partition(b":")
        if name == b"data":
            self._lines.append(value.removeprefix(b" "))
        elif name and name not in IGNORED_FIELDS:
            self._keep(name + colon + value)

    def _keep(self, line: bytes) -> None:
        if self._stray:
            self._stray += b"\n"
        self._stray += line[: max(0, MAX_STRAY_BYTES - len(self._stray))]

    def _check(self, size_bytes: int) -> None:
        if self._size_bytes + size_bytes > self._max_event_bytes:
            raise UpstreamProtocolError(f"an event of more than {self._max_event_bytes} bytes")
