"""One connection, fed by hand: where the bytes are cut decides nothing, and what is wrong with them has a name."""

import asyncio
import gzip
import itertools
import random
import zlib
from collections.abc import Iterable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from qwen_proxy.ground.errors import ProxyError, ReplyCut, UpstreamProtocolError, UpstreamTimeout, UpstreamUnavailable
from qwen_proxy.upstreams.encodings import MAX_INFLATED_BYTES
from qwen_proxy.upstreams.http1 import MAX_HEAD_BYTES, MAX_UNREAD_BYTES, Connection

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"


class Wire(asyncio.Transport):
    """A transport in memory."""

    def __init__(self, connection: Connection, unsent_bytes: int = 0) -> None:
        super().__init__()
        self.written = b""
        self.is_paused = False
        self.is_aborted = False
        self.unsent_bytes = unsent_bytes
        self._connection = connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        if not self.is_aborted:
            self.is_aborted = True
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    def is_closing(self) -> bool:
        return self.is_aborted

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes


class Seen(Struct, frozen=True):
    """How an exchange ended."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    error: str
    is_reusable: bool


def connected(unsent_bytes: int = 0) -> tuple[Connection, Wire]:
    connection = Connection(lambda lost: None)
    wire = Wire(connection, unsent_bytes)
    connection.connection_made(wire)
    return connection, wire


async def rest_of(connection: Connection) -> bytes:
    body = b""
    while data := await connection.read():
        body += data
    return body


async def observe(
    pieces: Iterable[bytes], *, ends: bool, error: Exception | None = None, has_body: bool = True
) -> Seen:
    """Each piece in a turn of the loop; then, if it `ends`, the connection is lost."""
    connection, wire = connected()
    body, problem = b"", ""

    async def feed() -> None:
        for piece in pieces:
            if not wire.is_aborted:
                connection.data_received(piece)
            await asyncio.sleep(0)
        if ends and not wire.is_aborted:
            connection.connection_lost(error)

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        try:
            await connection.exchange(b"request", has_body=has_body)
            while data := await connection.read():
                body += data
        except ProxyError as caught:
            problem = type(caught).__name__
    assert wire.written == b"request"
    return Seen(connection.status, list(connection.headers.items()), body, problem, connection.is_reusable)


PACKED = gzip.compress(b"hello " * 50)
ANSWERS = {
    "length": (OK + b"Content-Length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello", b"hello", True),
    "chunks": (CHUNKED + b"\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", b"hello", True),
    "trailers": (CHUNKED + b"\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"hello", True),
    "nothing": (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
    "100 before": (b"HTTP/1.1 100 Continue\r\nX-B: 1\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", b"ok", True),
    "close": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    "an empty value": (OK + b"X-Empty:\r\nX-Next: 1\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "gzip": (CHUNKED + b"Content-Encoding: gzip\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED),
             b"hello " * 50, True),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
@given(cuts=st.lists(st.integers(0, 400)))
def test_any_split_gives_the_same_answer(name: str, cuts: list[int]) -> None:
    wire, body, is_reusable = ANSWERS[name]
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    whole = asyncio.run(observe([wire], ends=False))
    split = asyncio.run(observe([wire[a:b] for a, b in itertools.pairwise(edges)], ends=False))
    assert split == whole
    assert (whole.body, whole.error, whole.is_reusable) == (body, "", is_reusable)


@pytest.mark.parametrize("name", ["length", "chunks", "100 before", "gzip"])
async def test_an_end_anywhere_before_the_end_is_told(name: str) -> None:
    wire, body, _ = ANSWERS[name]
    head = wire.index(b"\r\n\r\n", wire.index(b" 200 ")) + 4
    for size in range(len(wire)):
        seen = await observe([wire[:size]], ends=True)
        assert seen.error == ("ReplyCut" if size >= head else "UpstreamUnavailable")
        assert body.startswith(seen.body) and not seen.is_reusable


@pytest.mark.parametrize("how", [b"", b"Connection: close\r\n", b"Transfer-Encoding: gzip\r\n"])
async def test_a_body_without_a_length_ends_with_the_connection(how: bytes) -> None:
    seen = await observe([OK + how + b"\r\nhello", b" you"], ends=True)
    assert (seen.body, seen.error, seen.is_reusable) == (b"hello you", "", False)
    seen = await observe([OK + how + b"\r\nhello"], ends=True, error=ConnectionResetError())
    assert (seen.body, seen.error) == (b"hello", "ReplyCut")


async def test_headers_keep_their_order_and_their_repetitions() -> None:
    seen = await observe([ANSWERS["length"][0]], ends=False)
    assert seen.headers == [("Content-Length", "5"), ("X-A", "1"), ("x-a", "2")]
    seen = await observe([ANSWERS["an empty value"][0]], ends=False)
    assert seen.headers == [("X-Empty", ""), ("X-Next", "1"), ("Content-Length", "2")]
    seen = await observe([ANSWERS["trailers"][0]], ends=False)
    assert seen.headers == [("Transfer-Encoding", "chunked")]


async def test_an_answer_to_head_has_no_body() -> None:
    seen = await observe([OK + b"Content-Length: 5\r\n\r\n"], ends=False, has_body=False)
    assert (seen.status, seen.body, seen.error, seen.is_reusable) == (200, b"", "", False)


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"SSH-2.0-whatever\r\n\r\n", "UpstreamProtocolError"),
        (OK + b"no colon\r\n\r\n", "UpstreamProtocolError"),
        (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", "UpstreamProtocolError"),
        (OK + b"Content-Length: -2\r\n\r\nok", "UpstreamProtocolError"),
        (CHUNKED + b"Content-Length: 2\r\n\r\nok", "UpstreamProtocolError"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "UpstreamProtocolError"),
        (CHUNKED + b"\r\nzz\r\nok", "ReplyCut"),
        (CHUNKED + b"\r\nffffffffffffffffffff\r\nok", "ReplyCut"),
        (CHUNKED + b"\r\n1\r\nok\r\n", "ReplyCut"),
        (CHUNKED + b"\r\n-1\r\nok\r\n", "ReplyCut"),
    ],
)
async def test_what_is_not_http_is_refused(wire: bytes, error: str) -> None:
    for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        seen = await observe(pieces, ends=False)
        assert (seen.error, seen.is_reusable) == (error, False)


@pytest.mark.parametrize(
    "piece",
    [b"X-Long: " + b"x" * 8000, b"x" * 8000, b"X-Many: x\r\n" * 1000, b"\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n"],
)
async def test_headers_without_an_end_are_refused(piece: bytes) -> None:
    start = b"HTTP/1.1 103 Early Hints\r\n" if b"103" in piece else OK
    seen = await observe([start, *[piece] * (MAX_HEAD_BYTES // len(piece) + 1)], ends=False)
    assert (seen.error, seen.is_reusable) == ("UpstreamProtocolError", False)


@pytest.mark.parametrize("garbage", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"])
@pytest.mark.parametrize("is_apart", [False, True])
async def test_bytes_behind_the_answer_close_the_connection_and_not_the_answer(garbage: bytes, is_apart: bool) -> None:
    answer = ANSWERS["length"][0]
    seen = await observe([answer, garbage] if is_apart else [answer + garbage], ends=False)
    assert (seen.status, seen.body, seen.error) == (200, b"hello", "")
    connection, wire = connected()
    asyncio.get_running_loop().call_soon(connection.data_received, answer + garbage)
    await connection.exchange(b"")
    assert await rest_of(connection) == b"hello"
    assert not connection.is_reusable and wire.is_aborted


async def test_bytes_while_nothing_was_asked_close_the_connection() -> None:
    connection, wire = connected()
    connection.data_received(OK)
    assert wire.is_aborted and not connection.is_reusable


async def test_exchanges_follow_each_other() -> None:
    connection, wire = connected()
    for number in range(3):
        asyncio.get_running_loop().call_soon(connection.data_received, OK + b"Content-Length: 1\r\n\r\n%d" % number)
        await connection.exchange(b"%d" % number)
        assert await rest_of(connection) == b"%d" % number
        assert connection.at_end and connection.is_reusable
        connection.rest()
    assert wire.written == b"012"


async def test_an_answer_before_the_request_was_sent_whole_is_the_last() -> None:
    connection, _ = connected(unsent_bytes=9)
    asyncio.get_running_loop().call_soon(
        connection.data_received, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    )
    await connection.exchange(b"a large body")
    assert (connection.status, await connection.read()) == (413, b"")
    assert not connection.is_reusable


async def test_a_sender_that_is_too_fast_is_kept_waiting() -> None:
    connection, wire = connected()
    asyncio.get_running_loop().call_soon(connection.data_received, OK + b"Content-Length: 900000\r\n\r\n")
    await connection.exchange(b"")
    connection.data_received(bytes(MAX_UNREAD_BYTES))
    assert not wire.is_paused
    connection.data_received(b"x")
    connection.data_received(b"x")
    assert wire.is_paused
    assert len(await connection.read()) == MAX_UNREAD_BYTES + 2
    assert not wire.is_paused


async def test_what_was_not_read_is_forgotten_before_the_next_exchange() -> None:
    connection, wire = connected()
    size = MAX_UNREAD_BYTES + 1
    asyncio.get_running_loop().call_soon(
        connection.data_received, OK + b"Content-Length: %d\r\n\r\n" % size + bytes(size)
    )
    await connection.exchange(b"")
    assert wire.is_paused and connection.is_reusable and not connection.at_end
    connection.rest()
    assert connection.at_end and not wire.is_paused


async def test_a_connection_that_was_lost_takes_no_more() -> None:
    lost: list[Connection] = []
    connection = Connection(lost.append)
    connection.connection_made(Wire(connection))
    connection.connection_lost(None)
    assert lost == [connection] and not connection.is_reusable
    with pytest.raises(UpstreamUnavailable):
        await connection.exchange(b"")
    with pytest.raises(UpstreamUnavailable):
        connection.detach()
    assert connection.is_silent
    connection.abort()
    connection.rest()


async def test_bytes_that_came_before_the_connection_was_lost_can_be_read() -> None:
    connection, wire = connected()
    size = MAX_UNREAD_BYTES + 1
    asyncio.get_running_loop().call_soon(connection.data_received, CHUNKED + b"\r\n%x\r\n" % size + bytes(size))
    await connection.exchange(b"")
    assert wire.is_paused
    connection.connection_lost(None)
    assert len(await connection.read()) == size
    for _ in range(2):
        with pytest.raises(ReplyCut):
            await connection.read()


async def test_a_reader_gets_the_first_error_it_was_given() -> None:
    connection, wire = connected()
    asyncio.get_running_loop().call_soon(connection.data_received, CHUNKED + b"\r\n")
    await connection.exchange(b"")
    reading = asyncio.ensure_future(connection.read())  # noqa: TID251
    await asyncio.sleep(0)
    connection.fail(UpstreamTimeout("idle", 1))
    connection.fail(ReplyCut())
    with pytest.raises(UpstreamTimeout):
        await reading
    assert wire.is_aborted


async def test_cancelling_while_the_head_is_awaited_closes() -> None:
    connection, wire = connected()
    asking = asyncio.ensure_future(connection.exchange(b""))  # noqa: TID251
    await asyncio.sleep(0)
    asking.cancel()
    connection.data_received(OK)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert wire.is_aborted


# --- content codings ---------------------------------------------------------------------------------------


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress, "x-gzip": gzip.compress}


def encoded(coding: str, body: bytes) -> bytes:
    return OK + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(body)) + body


@pytest.mark.parametrize("coding", PACKERS)
async def test_a_small_body_that_inflates_to_a_huge_one_comes_in_bounded_reads(coding: str) -> None:
    size = 24 * 1024 * 1024
    connection, _ = connected()
    asyncio.get_running_loop().call_soon(connection.data_received, encoded(coding, PACKERS[coding](bytes(size))))
    await connection.exchange(b"")
    total = reads = 0
    while data := await connection.read():
        assert len(data) <= MAX_INFLATED_BYTES
        total += len(data)
        reads += 1
    assert (total, reads >= 24, connection.is_reusable) == (size, True, True)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@given(cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_several_members_are_one_body(coding: str, cuts: list[int]) -> None:
    noise = random.Random(1).randbytes(500)
    wire = encoded(coding, PACKERS[coding](b"one") + PACKERS[coding](noise) + PACKERS[coding](b"three"))
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    seen = asyncio.run(observe([wire[a:b] for a, b in itertools.pairwise(edges)], ends=False))
    assert (seen.body, seen.error) == (b"one" + noise + b"three", "")


@pytest.mark.parametrize(
    ("coding", "body", "expected"),
    [
        ("deflate", bare_deflate(b"hello"), b"hello"),
        ("GZIP", gzip.compress(b"hello", mtime=0), b"hello"),
        ("br", b"as it is", b"as it is"),
        ("identity", b"as it is", b"as it is"),
        ("gzip", b"", b""),
        ("zstd", b"", b""),
    ],
)
async def test_codings(coding: str, body: bytes, expected: bytes) -> None:
    seen = await observe([encoded(coding, body)], ends=False)
    assert (seen.body, seen.error, seen.is_reusable) == (expected, "", True)


@pytest.mark.parametrize("coding", PACKERS)
async def test_a_coded_body_that_breaks_off_or_is_nonsense_is_a_cut_reply(coding: str) -> None:
    packed = PACKERS[coding](random.Random(1).randbytes(5000))
    for body in (packed[:-6], packed[:2], b"nonsense", packed + b"nonsense"):
        seen = await observe([encoded(coding, body)], ends=False)
        assert (seen.error, seen.is_reusable) == ("ReplyCut", False)


# --- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [UpstreamProtocolError("x"), UpstreamUnavailable("x")])
async def test_an_error_before_the_head_is_for_whoever_asked(error: ProxyError) -> None:
    connection, _ = connected()
    asyncio.get_running_loop().call_soon(connection.fail, error)
    with pytest.raises(type(error)):
        await connection.exchange(b"")
