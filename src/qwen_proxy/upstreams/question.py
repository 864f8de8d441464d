"""An HTTP/1.1 request (RFC 9112) as bytes. Pure."""

from collections.abc import Mapping
from typing import Final

from qwen_proxy.upstreams.encodings import ACCEPTED

WITHOUT_LENGTH: Final = ("GET", "HEAD", "DELETE", "OPTIONS", "CONNECT")  # where no body is the rule
OURS_TO_SAY: Final = frozenset(("content-length", "transfer-encoding"))


class Question:
    """A request but for its body, checked and rendered once for all that are alike."""

    __slots__ = ("_head", "_hop", "_may_lack_body", "method")

    def __init__(self, method: str, target: str, host: str, headers: Mapping[str, str], *, hop: str = "") -> None:
        """`hop` is whole lines for the proxy. Raises ValueError as `head` does."""
        self.method = method
        self._head = head(method, target, host, headers)
        self._hop = f"{hop}\r\n".encode()
        self._may_lack_body = method in WITHOUT_LENGTH

    def render(self, body: bytes | None) -> bytes:
        if body is None:
            length = b"" if self._may_lack_body else b"Content-Length: 0\r\n"
            return self._head + length + self._hop
        return b"%bContent-Length: %d\r\n%b%b" % (self._head, len(body), self._hop, body)


def head(method: str, target: str, host: str, headers: Mapping[str, str]) -> bytes:
    """The lines of a request but those that tell of its body, or that a proxy reads.

    Raises ValueError for what would not stay where it stands: a space in the target, CR, LF or NUL anywhere; and for a
    header that says how long the body is, which is ours to say.
    """
    names = {name.lower() for name in headers}
    if not OURS_TO_SAY.isdisjoint(names):
        raise ValueError("the length of a body is not for a caller to say")
    lines = [f"{method} {target} HTTP/1.1\r\n"]
    if "host" not in names:
        lines.append(f"Host: {host}\r\n")
    lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    if "accept" not in names:
        lines.append("Accept: */*\r\n")
    if "accept-encoding" not in names:
        lines.append(f"Accept-Encoding: {ACCEPTED}\r\n")
    text = "".join(lines)
    if text.count("\r") != len(lines) or text.count("\n") != len(lines) or "\0" in text or lines[0].count(" ") != 2:
        raise ValueError("a request with a character that can't stand in it")
    return text.encode()
