"""After a day in the life of one program, nothing is left: no task, no connection, no lease."""

import asyncio
import gc
import os

from qwen_proxy.simulator import Fault, Scenario
from qwen_proxy.simulator.replies import unavailable
from tests.support.freed import freed, until
from tests.support.http import USER_KEY, raw
from tests.support.replies import PATH
from tests.support.running import Running, ask, running

DAY = [
    "hello",
    "[[sim think]] [[sim search both]] hello",
    "[[sim error RateLimited]]",
    "[[sim status 503]]",
    "[[sim reset 3]] [[sim repeat 20]]",
    "[[sim once]] [[sim reset 0]] hello",
    "[[sim empty]]",
    "[[sim stream-error internal_error after=2]] [[sim repeat 9]]",
    "[[sim candidates one-first]] hello",
    "[[sim challenge json]]",  # the last: the exit rests after it
]


def tasks() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def sockets() -> int:
    """Open sockets of this process (Linux)."""
    folder = "/proc/self/fd"
    found = 0
    for name in os.listdir(folder):
        try:
            found += os.readlink(f"{folder}/{name}").startswith("socket:")
        except OSError:
            continue  # the descriptor of this very listing
    return found


async def live(gateway: Running) -> None:
    port = int(gateway.url.rpartition(":")[2])
    for place in ("[[sim hang]]", "[[sim stall 2]] [[sim repeat 9]]"):
        body = f'{{"stream": true, "messages": [{{"role": "user", "content": "{place}"}}]}}'
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nx-api-key: {USER_KEY}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        _, writer = await raw(port, head.encode())
        assert await until(lambda: gateway.simulator.open_generations, within_seconds=2)
        writer.close()
        await writer.wait_closed()
        assert await freed(gateway)
    _, writer = await raw(port, b"no HTTP at all\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    for text in DAY:
        for fields in ({"stream": True}, {"stream": False}, {"stream": True, "n": 2}, {"stop": "word2"}):
            async with gateway.client.post(PATH, json=ask(text, **fields)) as response:
                await response.read()


async def test_a_program_that_ran_and_stopped_leaves_nothing_behind() -> None:
    async with running():  # what is loaded once, such as the vocabulary, is loaded now
        pass
    before, sockets_before = tasks(), sockets()
    accounts = [f"{name}@example.com:pw" for name in "abcdefgh"]
    scenario = Scenario(faults=[Fault(unavailable(), "chat_delete", times=3), Fault(unavailable(), "models", times=1)])
    async with running(scenario, accounts=accounts, CHAT_RETRY_COUNT="2", CHALLENGE_REST_SECONDS="1") as gateway:
        await live(gateway)
        assert await freed(gateway)
    assert await until(lambda: tasks() == before, within_seconds=2), tasks() - before
    gc.collect()  # a transport that nobody closed would warn now, and a warning is an error
    assert await until(lambda: sockets() <= sockets_before, within_seconds=2)


async def test_what_is_kept_while_running_does_not_grow_with_requests() -> None:
    async with running(ACCOUNT_CONCURRENCY="0") as gateway:
        async with gateway.client.post(PATH, json=ask()) as response:
            await response.read()
        await until(lambda: len(gateway.simulator.seen("chat_delete")) == 1)
        count = len(tasks())
        for _ in range(30):
            async with gateway.client.post(PATH, json=ask(stream=True)) as response:
                await response.read()
        assert await until(lambda: len(tasks()) <= count + 4, within_seconds=2), "tasks grow with requests"
