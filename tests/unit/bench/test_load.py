import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import Client, Recorder, pace
from bench.replies import API, SITE, Writing, api_whole
from bench.upstream import Pace
from qwen_proxy.chat.events import Finish, FinishReason, TextDelta, Usage
from qwen_proxy.upstreams.openai_api.reply import ReplyReader

REPLY = b"HTTP/1.1 200 OK\r\n\r\n" + SITE.events_at(12, 3, 0) + SITE.events_at(34, 4, 100) + b"0\r\n\r\n"


@given(st.lists(st.integers(17, len(REPLY) - 1), unique=True))
def test_events_are_counted_once_wherever_reads_end(cuts: list[int]):
    recorder = Recorder()
    client = Client(recorder)
    for start, end in itertools.pairwise([0, *sorted(cuts), len(REPLY)]):
        client.data_received(REPLY[start:end])
    assert recorder.events == 7
    assert recorder.failures == []


def test_the_upstream_reads_the_pace_that_the_load_writes():
    body = pace(4.0, 20, 500, 16384).encode()
    assert Pace.read(b'{"content": "' + body + b'"}') == Pace(80, 50_000, 500, 16384)
    assert Pace.read(b'{"content": "hello"}') == Pace()


@pytest.mark.parametrize("writing", [SITE, API])
def test_a_burst_holds_the_same_events_in_any_chunks(writing: Writing):
    assert writing.events_at(5, 500, 0).count(b"@0000000000000005") == 500
    assert writing.events_at(5, 500, 1 << 20).count(b"@0000000000000005") == 500


async def test_an_answer_in_one_piece_ends_where_its_head_says():
    recorder, body = Recorder(), api_whole(7)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nServer: x\r\n\r\n" % len(body)
    client = Client(recorder)
    client.connection_made(Sink())
    for cut in (1, len(body) - 3, len(body)):
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.ask(b"a request"))
            await asyncio.sleep(0)
            client.data_received(head + body[:cut])
            await asyncio.sleep(0)
            assert asking.done() is (cut == len(body))
            if cut < len(body):
                client.data_received(body[cut:])
    assert recorder.events == 3
    assert recorder.failures == []


def test_what_plays_an_api_is_read_as_one():
    opened = API.opened(b"").partition(b"\r\n\r\n")[2]
    body = b"".join(unchunked(opened + API.events_at(5, 2, 0) + API.end))
    events = ReplyReader("m", lambda: "call").feed(body)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["@0000000000000005 token"] * 2
    assert events[-2:] == [Usage(prompt_tokens=827, completion_tokens=90), Finish(FinishReason.STOP)]
    assert ReplyReader("m", lambda: "call").whole(api_whole(5))[-1] == Finish(FinishReason.STOP)


def unchunked(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        yield body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


class Sink(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody reads it."""
