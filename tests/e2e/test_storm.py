"""Many requests at once over an upstream that fails in every way: what holds for each of them, and afterwards."""

import asyncio
from random import Random

import aiohttp
import pytest

import qwen_proxy.simulator.frames as frames
from qwen_proxy.simulator import Cut, Drop, Fault, Pause, Reply, Reset, Scenario, SendHeaders, stream
from qwen_proxy.simulator.replies import (
    WAF_PAGE,
    captcha_json,
    empty_body,
    internal_error,
    overloaded,
    rate_limited,
    unauthorized,
    unavailable,
    waf_html,
)
from tests.support.asking import PATH, streamed, whole
from tests.support.asking import Reply as Got
from tests.support.running import Running, ask, running
from tests.support.waiting import until

TEXT = "One two three"
DELTAS = [frames.created(), frames.answer("One "), Pause(0.01), frames.answer("two "), frames.answer("three")]
REQUESTS = 120
RETRIES = 2


def replies(random: Random) -> list[Reply]:
    """Good ones and bad ones, in an order by chance."""
    good = [stream(*DELTAS, frames.finished()) for _ in range(REQUESTS)]
    ends = [Cut(), Drop(), Reset(), frames.error_string(), frames.error_object("internal_error", "no")]
    early = [stream(SendHeaders(), end) for end in ends]
    late = [stream(*DELTAS[: random.randint(2, 5)], Pause(0.01), end) for end in ends for _ in range(3)]
    late += [stream(*DELTAS, end) for end in (frames.bare_captcha(), WAF_PAGE)]
    thinking = [stream(frames.created(), frames.think("Hm."), end) for end in (Cut(), frames.finished())]
    found = [*good, *early, *late, *thinking]
    random.shuffle(found)
    return found


def faults(random: Random) -> list[Fault]:
    whole_replies = [
        rate_limited(1),
        rate_limited(None),
        unauthorized(),
        overloaded(),
        unavailable(503),
        internal_error(),
        captcha_json(),
        waf_html(405),
        empty_body(),
    ]
    found = [Fault(reply, skip=random.randint(0, 60), times=1) for reply in whole_replies]
    found += [Fault(reply, "chats_new", skip=random.randint(0, 60), times=1) for reply in whole_replies]
    # Deletions rest for long after a challenge, so they meet none here.
    harmless = (unauthorized(), overloaded(), unavailable(503), internal_error(), empty_body())
    return found + [Fault(reply, "chat_delete", skip=random.randint(0, 60), times=1) for reply in harmless]


def check(got: Got) -> bool:
    """Whether it is a whole reply; anything else must be told as broken."""
    if got.error is None:
        assert (got.status, got.text, got.finish) == (200, TEXT, "stop")
        return True
    assert TEXT.startswith(got.text)
    assert (got.finish, got.done) == (None, False)
    assert got.status in (200, 429, 502, 503)
    assert got.error.type in ("upstream_error", "rate_limit_error", "server_error")
    return False


async def leave(gateway: Running) -> None:
    """A client that goes away amid its reply."""
    try:
        async with gateway.client.post(PATH, json=ask(stream=True)) as response:
            await response.content.readline()
            response.close()
    except aiohttp.ClientError:
        return


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_replies_are_whole_or_told_to_be_broken_and_nothing_is_left(seed: int) -> None:
    random = Random(seed)
    scenario = Scenario(replies=replies(random), faults=faults(random))
    accounts = tuple(f"{name}@example.com:pw" for name in "abcdefghijkl")
    settings = {"CHAT_RETRY_COUNT": str(RETRIES), "CHALLENGE_REST_SECONDS": "0.1"}
    async with running(scenario, accounts=accounts, **settings) as gateway:
        await until(lambda: all(each.has_token for each in gateway.pool.snapshot()))
        places = asyncio.Semaphore(20)

        asked = 0

        async def one(number: int) -> bool:
            """A client that comes again while the exit rests."""
            nonlocal asked
            async with places:
                while True:
                    asked += 1
                    if number % 10 == 9:
                        await leave(gateway)
                        return False
                    got = await (whole if number % 2 else streamed)(gateway)
                    if check(got) or got.status != 503:
                        return got.error is None
                    await asyncio.sleep(0.02)

        good = sum(await asyncio.gather(*(one(number) for number in range(REQUESTS))))
        assert good > REQUESTS / 3
        await until(lambda: gateway.leases() == gateway.simulator.open_generations == gateway.pool.waiting == 0)
        assert len(gateway.simulator.seen("completions")) <= asked * (1 + RETRIES)
        chats = gateway.simulator.chats
        await until(lambda: len(gateway.simulator.seen("chat_delete")) == len(chats))
        assert len({seen.path for seen in gateway.simulator.seen("chat_delete")}) == len(chats)
