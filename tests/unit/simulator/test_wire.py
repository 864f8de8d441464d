"""What happens to the connection: chunking, compression, pauses, ends, clients that leave, stop and start."""

import asyncio
import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from aiohttp import web

import qwen_proxy.simulator.frames as frames
from qwen_proxy.simulator import (
    Cut,
    Fault,
    Pause,
    Reply,
    Reset,
    Scenario,
    SendHeaders,
    Simulator,
    Stall,
    challenge,
    overload,
    quota,
    stream,
)
from qwen_proxy.simulator.replies import hang
from qwen_proxy.simulator.replies import stream as raw_stream
from qwen_proxy.simulator.sending import Zstd, accepted, zstd
from qwen_proxy.simulator.site import MAX_CHATS, MAX_HELD_BYTES, MAX_NOTES, MAX_REQUESTS, Site
from tests.unit.simulator.visitor import Visitor, completion, until


def request_bytes(visitor: Visitor, chat_id: str, text: str) -> bytes:
    body = json.dumps(completion(chat_id, text)).encode()
    headers = visitor.headers() | {"host": "simulator", "content-length": str(len(body))}
    head = f"POST /api/v2/chat/completions?chat_id={chat_id} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode() + b"\r\n" + body


async def raw(visitor: Visitor, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A completion over a bare socket, to see HTTP chunks as they are."""
    sent = request_bytes(visitor, await visitor.new_chat(), text)
    port = int(visitor.simulator.base_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    return reader, writer


async def chunks(visitor: Visitor, text: str) -> list[bytes]:
    """The HTTP chunks of an answer."""
    reader, writer = await raw(visitor, text)
    await reader.readuntil(b"\r\n\r\n")
    found: list[bytes] = []
    while size := int(await reader.readline(), 16):
        found.append(await reader.readexactly(size))
        await reader.readline()
    writer.close()
    await writer.wait_closed()
    return found


async def test_default_is_a_write_per_frame(visitor: Visitor) -> None:
    found = await chunks(visitor, "[[sim say a b]]")
    assert len(found) == 5
    assert all(chunk.endswith(b"\n\n") for chunk in found)


async def test_bytes_cuts_characters_anywhere(visitor: Visitor) -> None:
    found = await chunks(visitor, "[[sim bytes 1]] [[sim say 世]]")
    assert {len(chunk) for chunk in found} == {1}
    assert "世" in b"".join(found).decode()
    sizes = [len(chunk) for chunk in await chunks(visitor, "[[sim bytes 7]] [[sim say 世]]")]
    assert max(sizes) == 7


async def test_one_segment_holds_the_whole_answer(visitor: Visitor) -> None:
    (only,) = await chunks(visitor, "[[sim one-segment]] [[sim repeat 50]]")
    assert only.count(b"data: ") == 53


async def test_one_segment_flushes_before_a_pause(visitor: Visitor, simulator: Simulator) -> None:
    steps = [frames.answer("a"), frames.answer("b"), Pause(0.001), frames.answer("c")]
    simulator.scenario.replies = [Reply([*steps], chunking="one")]
    assert [chunk.count(b"data: ") for chunk in await chunks(visitor, "x")] == [2, 1]


UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": zstd.decompress,
}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("chunking", ["", "[[sim bytes 3]]", "[[sim one-segment]]"])
async def test_encodings_hold_the_same_answer(visitor: Visitor, encoding: str, chunking: str) -> None:
    visitor.http = aiohttp.ClientSession(auto_decompress=False)
    async with visitor.http:
        text = f"[[sim {encoding}]] {chunking} [[sim say same]]"
        answer = await visitor.ask(text, accept_encoding="gzip, deflate, zstd;q=0.5")
    assert answer.headers["content-encoding"] == encoding
    answer.body = UNPACK[encoding](answer.body)
    assert answer.text() == "same"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
async def test_encoded_streams_still_stream(visitor: Visitor, simulator: Simulator, encoding: str) -> None:
    chat_id = await visitor.new_chat()
    body = completion(chat_id, f"[[sim {encoding}]] [[sim stall 2]] [[sim repeat 9]]")
    url = f"{simulator.base_url}/api/v2/chat/completions?chat_id={chat_id}"
    headers = visitor.headers() | {"accept-encoding": "gzip, deflate, zstd"}
    async with asyncio.timeout(5.0), visitor.http.post(url, json=body, headers=headers) as response:
        received = b""
        while b"word2" not in received:
            received += await response.content.readany()
        response.close()


def test_encoding_not_accepted_is_left_out() -> None:
    assert accepted("zstd", "gzip, deflate") == "identity"
    assert accepted("zstd", "GZIP;q=1, ZSTD") == "zstd"


def test_zstd_pieces_come_out_whole() -> None:
    packed = Zstd()
    unpacked = zstd.ZstdDecompressor()
    assert unpacked.decompress(packed.piece(b"one")) == b"one"
    assert unpacked.decompress(packed.piece(b"two") + packed.end()) == b"two"


@pytest.mark.parametrize("text", ["[[sim stall 2]]", "[[sim slow 10ms]] [[sim repeat 1000]]", "[[sim delay 60s]]"])
async def test_client_that_leaves_is_noticed_at_once(visitor: Visitor, simulator: Simulator, text: str) -> None:
    _, writer = await raw(visitor, text)
    await until(lambda: simulator.open_generations == 1)
    writer.close()
    await writer.wait_closed()
    await until(lambda: simulator.open_generations == 0)
    assert simulator.requests[-1].closed_early


async def test_client_that_resets_is_noticed_at_once(visitor: Visitor, simulator: Simulator) -> None:
    _, writer = await raw(visitor, "[[sim hang]]")
    await until(lambda: simulator.open_generations == 1)
    writer.transport.abort()
    await until(lambda: simulator.open_generations == 0)
    assert simulator.requests[-1].closed_early


async def test_answers_read_to_the_end_are_not_closed_early(visitor: Visitor, simulator: Simulator) -> None:
    for text in ("x", "[[sim cut]]", "[[sim error RateLimited]]"):
        await visitor.ask(text)
    assert not any(seen.closed_early for seen in simulator.requests)
    assert simulator.open_generations == 0


async def test_headers_can_come_long_before_the_body(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.replies = [stream(SendHeaders(), Stall())]
    async with asyncio.timeout(5.0), visitor.open("x") as response:
        assert response.status == 200


async def test_reset_and_hang_before_the_headers(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.replies = [stream(Reset()), hang()]
    with pytest.raises(aiohttp.ClientConnectionError):
        await visitor.ask("x")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await visitor.ask("x")


async def test_reset_sends_what_was_written_before(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.replies = [stream(*(frames.answer("x" * 1000) for _ in range(30)), Reset())]
    chat_id = await visitor.new_chat()
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", int(simulator.base_url.rpartition(":")[2]))) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, request_bytes(visitor, chat_id, "x"))
        received = b""
        with pytest.raises(ConnectionResetError):
            while True:
                received += await loop.sock_recv(client, 65536)
    assert received.count(b"data: ") == 30


async def test_cut_leaves_out_the_rest(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.replies = [stream(frames.answer("a"), Cut(), frames.answer("b"))]
    assert (await visitor.ask("x")).text() == "a"


@pytest.mark.parametrize("text", ["[[sim stall 1]]", "[[sim hang]]", "[[sim delay 60s]]", "[[sim slow 200ms]]"])
async def test_stop_ends_open_streams_soon_and_start_takes_the_same_port(
    visitor: Visitor, simulator: Simulator, text: str
) -> None:
    _, writer = await raw(visitor, text)
    await until(lambda: simulator.open_generations == 1)
    url = simulator.base_url
    async with asyncio.timeout(3.0):
        await simulator.stop()
    assert simulator.open_generations == 0
    assert not simulator.requests[-1].closed_early
    with pytest.raises(aiohttp.ClientConnectionError):
        await visitor.call("GET", "/api/models")
    await simulator.start()
    assert simulator.base_url == url
    assert (await visitor.call("GET", "/api/v1/auths/")).status == 200
    writer.close()
    await writer.wait_closed()


async def test_taken_port_is_an_error(simulator: Simulator) -> None:
    port = int(simulator.base_url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"):
        await Simulator(port=port).start()


async def test_faults_fit_by_account_address_feature_and_text(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.faults = [
        challenge(account="other@x"),
        challenge("html", status=405, address="127.0.0.9"),
        quota("demo@simulated", feature="image", num=2, actual_status=None),
        Fault(raw_stream(frames.error_string("texted")), text="magic"),
        Fault(raw_stream(frames.error_string("picked")), when=lambda seen: b"picky" in seen.body),
        overload(times=1),
    ]
    assert (await visitor.ask("x")).actual_status == 503
    assert (await visitor.ask("x")).text()
    limited = await visitor.ask("x", chat_type="t2i")
    assert (limited.actual_status, limited.json["data"]["num"]) == (200, 2)
    assert (await visitor.ask("magic")).frames == [{"error": "texted"}]
    assert (await visitor.ask("picky")).frames == [{"error": "picked"}]
    assert simulator.seen("completions")[2].feature == "image"
    await visitor.sign_in("other@x")
    assert "ret" in (await visitor.ask("x")).json


async def test_quota_may_run_out_after_some_requests(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.faults = [quota(skip=1, times=1)]
    assert [(await visitor.ask("x")).actual_status for _ in range(3)] == [200, 429, 200]


async def test_latency_holds_an_endpoint_back(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.latency["models"] = 60.0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await visitor.call("GET", "/api/models")
    assert (await visitor.call("GET", "/api/v2/models/")).status == 200


async def test_an_endpoint_waits_for_its_gate(visitor: Visitor, simulator: Simulator) -> None:
    gate = simulator.scenario.gates["models"] = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await visitor.call("GET", "/api/models")
    assert (await visitor.call("GET", "/api/v2/models/")).status == 200
    gate.set()
    assert (await visitor.call("GET", "/api/models")).status == 200


async def test_pace_of_composed_answers(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.pause_seconds = 0.01
    began = time.monotonic()  # noqa: TID251
    await visitor.ask("[[sim repeat 10]]")
    assert time.monotonic() - began >= 0.1  # noqa: TID251


async def test_the_sites_clock_may_be_wrong(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.clock_offset_seconds = 7200.0
    answer = await visitor.call("GET", "/api/models")
    ahead = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()  # noqa: TID251
    assert 7190 < ahead < 7210


async def test_feature_of_a_broken_body_is_unknown(visitor: Visitor, simulator: Simulator) -> None:
    chat_id = await visitor.new_chat()
    await visitor.complete(chat_id, [1])
    await visitor.complete(chat_id, {"messages": []})
    assert [seen.feature for seen in simulator.seen("completions")] == [None, None]


async def test_app_runs_in_another_runner(visitor: Visitor) -> None:
    other = Simulator()
    runner = web.AppRunner(other.app(), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    other.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    visitor.simulator = other
    assert (await visitor.call("GET", "/api/models")).status == 200
    await runner.cleanup()
    assert other.requests[0].endpoint == "models"


async def test_repeated_headers_are_joined(visitor: Visitor, simulator: Simulator) -> None:
    headers = [("User-Agent", "x"), ("X-Twice", "1"), ("X-Twice", "2")]
    async with visitor.http.get(simulator.base_url + "/api/models?a=b", headers=headers) as response:
        await response.read()
    assert simulator.requests[-1].headers["x-twice"] == "1, 2"
    assert simulator.requests[-1].query == {"a": "b"}


async def test_what_is_remembered_is_bounded(visitor: Visitor, simulator: Simulator) -> None:
    site = Site(Scenario())
    await visitor.call("GET", "/api/models")
    (seen,) = simulator.seen("models")
    for _ in range(MAX_REQUESTS + 5):
        site.remember(seen)
    assert len(site.requests) == MAX_REQUESTS
    for _ in range(3):
        site.remember(replace(seen, body=bytes(MAX_HELD_BYTES // 2)))
    assert len(site.requests) == 2
    for number in range(MAX_NOTES + 5):
        site.warn(str(number))
        site.first_time(str(number))
    assert len(site.warnings) == len(site.once_seen) == MAX_NOTES
    for _ in range(MAX_CHATS + 1):
        site.add_chat("a@x", "t", "t2t", "m")
    assert len(site.chats) == MAX_CHATS
