"""What a client gets when the upstream fails, in every way of upstream protocol §4.7 and as §12.2 maps it."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from msgspec import Struct

import qwen_proxy.simulator.frames as frames
from qwen_proxy.gateway.catalogue import RETRY_FIRST_SECONDS
from qwen_proxy.simulator import Cut, Drop, Fault, Pause, Reply, Reset, Scenario, SendHeaders, Stall, Step, stream
from qwen_proxy.simulator.replies import (
    WAF_PAGE,
    captcha_json,
    empty_body,
    failure,
    hang,
    in_progress,
    internal_error,
    missing_version,
    not_found,
    overloaded,
    rate_limited,
    unauthorized,
    unavailable,
    validation_error,
    waf_html,
)
from tests.support.asking import streamed, whole
from tests.support.running import Running, running
from tests.support.waiting import until


class Told(Struct, frozen=True):
    """How a condition reaches the client (§12.2): status, `error.type`, `error.code`, Retry-After."""

    status: int
    type: str
    code: str | None
    retry_after: str | None = None


QUOTA = Told(429, "rate_limit_error", "upstream_quota", "21600")
QUOTA_UNSAID = Told(429, "rate_limit_error", "upstream_quota", "900")
CHALLENGED = Told(503, "upstream_error", "upstream_verification_required", "60")
AUTH = Told(502, "upstream_error", "upstream_auth")
FAILED = Told(502, "upstream_error", "upstream_unavailable")
OVERLOADED = Told(503, "upstream_error", "upstream_unavailable")
TIMED_OUT = Told(504, "upstream_error", "upstream_timeout")
NO_MODEL = Told(404, "invalid_request_error", "model_not_found")
REFUSED = Told(400, "invalid_request_error", "invalid_input")  # the site's own word
INVALID = Told(400, "invalid_request_error", "RequestValidationError")
CONTENT = Told(400, "invalid_request_error", "content_policy_violation")

BEFORE_THE_STREAM: dict[str, tuple[Callable[[], Reply], Told]] = {
    "quota, 429 by header": (lambda: rate_limited(6), QUOTA),
    "quota, 200 by header": (lambda: rate_limited(6, actual_status=200), QUOTA),
    "quota, code at the top, no header": (lambda: rate_limited(6, actual_status=None, top_level=True), QUOTA),
    "quota without num": (lambda: rate_limited(None), QUOTA_UNSAID),
    "quota_limit": (lambda: failure("quota_limit", "quota", None, num=6), QUOTA),
    "Bad_Request, 200": (missing_version, FAILED),
    "Bad_Request, 400": (lambda: failure("Bad_Request", "Internal error...", 400), FAILED),
    "chat in progress": (in_progress, FAILED),
    "chat not found": (lambda: not_found("CHAT_NOT_FOUND: the chat does not exist."), FAILED),
    "model not found": (lambda: not_found("Model not found"), NO_MODEL),
    "internal_error": (internal_error, FAILED),
    "validation": (lambda: validation_error("Field required: query.chat_id"), INVALID),
    "high demand": (overloaded, OVERLOADED),
    "rate increased": (lambda: overloaded("Request rate increased too quickly."), OVERLOADED),
    "allocated quota": (lambda: overloaded("Allocated quota exceeded, please wait", 429), OVERLOADED),
    "invalid_input": (lambda: failure("invalid_input", "thinking must be enabled", None), REFUSED),
    "content inspection": (lambda: failure("data_inspection_failed", "inappropriate", None), CONTENT),
    "token rejected": (unauthorized, AUTH),
    "unknown code": (lambda: failure("Brand_New", "words", 418), FAILED),
    "captcha as JSON": (captcha_json, CHALLENGED),
    "firewall's page, 200": (waf_html, CHALLENGED),
    "firewall's page, 403": (lambda: waf_html(403), CHALLENGED),
    "firewall's page, 405": (lambda: waf_html(405), CHALLENGED),
    "503 from a gateway": (lambda: unavailable(503), FAILED),
    "502 from a gateway": (lambda: unavailable(502), FAILED),
    "nothing at all": (empty_body, FAILED),
}

INSIDE: dict[str, tuple[str | bytes, Told]] = {
    "error object": (frames.error_object("internal_error", "Internal Error"), FAILED),
    "error string": (frames.error_string(), FAILED),
    "invalid_input": (frames.error_object("invalid_input", "thinking must be enabled"), REFUSED),
    "quota_limit": (frames.error_object("quota_limit", "used up"), QUOTA_UNSAID),
    "content inspection": (frames.error_object("data_inspection_failed", "inappropriate"), CONTENT),
    "overload": (frames.error_object("x", "Service is currently experiencing high demand."), OVERLOADED),
    "quota envelope": (frames.failure_line("RateLimited", "upper limit", 6), QUOTA),
    "unauthorized envelope": (frames.failure_line("Unauthorized", "invalid token"), AUTH),
    "bare quota": (frames.bare_failure("RateLimited", "upper limit", 6), QUOTA),
    "bare Bad_Request": (frames.bare_failure("Bad_Request", "Internal error..."), FAILED),
    "bare captcha": (frames.bare_captcha(), CHALLENGED),
    "firewall's page": (WAF_PAGE, CHALLENGED),
}

CONTENT_DELTAS = [frames.answer("One "), frames.answer("two "), frames.answer("three")]


async def assert_told(gateway: Running, told: Told, *, tries: int = 1) -> None:
    """A request that is streamed and one that is not fail alike, before any header, after so many tries each.

    An account without quota is no reason to wait for while another is free: then the client may come again at once.
    """
    for fetch in (whole, streamed):
        usable = sum(report.state != "out_of_quota" for report in gateway.pool.snapshot())
        before = len(gateway.simulator.seen("completions"))
        reply = await fetch(gateway)
        assert reply.error is not None
        assert (reply.status, reply.error.type, reply.error.code) == (told.status, told.type, told.code)
        is_free_elsewhere = told.code == "upstream_quota" and usable > tries
        assert reply.headers.get("retry-after") == ("1" if is_free_elsewhere else told.retry_after)
        assert reply.headers["content-type"].startswith("application/json")
        assert len(gateway.simulator.seen("completions")) - before == tries
    assert gateway.leases() == 0
    await until(lambda: gateway.simulator.open_generations == 0)


def always(reply: Reply) -> Scenario:
    return Scenario(faults=[Fault(reply)])


@pytest.mark.parametrize("name", BEFORE_THE_STREAM)
async def test_a_failure_instead_of_a_stream_has_its_status(name: str) -> None:
    make, told = BEFORE_THE_STREAM[name]
    async with running(always(make()), accounts=("a@x.io:p", "b@x.io:p"), CHAT_RETRY_COUNT="0") as gateway:
        await assert_told(gateway, told)


@pytest.mark.parametrize("name", INSIDE)
async def test_an_error_as_the_first_event_has_its_status(name: str) -> None:
    event, told = INSIDE[name]
    reply = stream(frames.created(), event)
    async with running(always(reply), accounts=("a@x.io:p", "b@x.io:p"), CHAT_RETRY_COUNT="0") as gateway:
        await assert_told(gateway, told)


@pytest.mark.parametrize("name", INSIDE)
async def test_an_error_alone_in_a_stream_has_its_status(name: str) -> None:
    event, told = INSIDE[name]
    async with running(always(stream(event)), accounts=("a@x.io:p", "b@x.io:p"), CHAT_RETRY_COUNT="0") as gateway:
        await assert_told(gateway, told)


@pytest.mark.parametrize("name", INSIDE)
async def test_an_error_after_content_is_told_in_the_stream(name: str) -> None:
    event, told = INSIDE[name]
    steps: list[Step] = [frames.created(), *CONTENT_DELTAS, Pause(0.02), event]
    async with running(Scenario(replies=[stream(*steps)]), CHAT_RETRY_COUNT="3") as gateway:
        reply = await streamed(gateway)
        assert reply.status == 200
        assert reply.text == "One two three"
        assert reply.error is not None
        assert (reply.error.type, reply.error.code) == (told.type, told.code)
        assert (reply.finish, reply.done) == (None, False)
        assert len(gateway.simulator.seen("completions")) == 1
        assert gateway.leases() == 0


@pytest.mark.parametrize("name", [name for name in INSIDE if INSIDE[name][1] not in (REFUSED, CONTENT)])
async def test_an_error_as_the_first_event_is_tried_elsewhere_unseen(name: str) -> None:
    reply = stream(frames.created(), frames.keep_alive(), INSIDE[name][0])
    async with running(Scenario(replies=[reply]), accounts=("a@x.io:p", "b@x.io:p")) as gateway:
        await until(lambda: all(each.has_token for each in gateway.pool.snapshot()))
        got = await streamed(gateway)
        assert (got.status, got.error, got.finish, got.done) == (200, None, "stop", True)
        tried = [seen.account for seen in gateway.simulator.seen("completions")]
        assert len(tried) == len(set(tried)) == 2


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("quota envelope", "out_of_quota"),
        ("bare captcha", "challenged"),
        ("unauthorized envelope", "signing_in"),
        ("error object", "ready"),
    ],
)
async def test_what_an_error_after_content_says_of_the_account_is_learned(name: str, state: str) -> None:
    async with running(SIGNIN_SPACING_SECONDS="30") as gateway:
        assert (await whole(gateway)).status == 200
        gateway.scenario.replies = [stream(frames.created(), *CONTENT_DELTAS, INSIDE[name][0])]
        assert (await streamed(gateway)).error is not None
        (account,) = gateway.pool.snapshot()
        assert account.failed == 1
        assert account.state == state


@pytest.mark.parametrize("name", ["model not found", "validation", "invalid_input", "content inspection"])
async def test_what_the_client_did_wrong_is_held_against_nobody(name: str) -> None:
    make, told = BEFORE_THE_STREAM[name]
    async with running(always(make()), CHAT_RETRY_COUNT="5") as gateway:
        await assert_told(gateway, told)
        (account,) = gateway.pool.snapshot()
        assert (account.state, account.failed, account.last_error) == ("ready", 0, "")


async def test_an_error_in_one_segment_with_content_comes_after_the_content() -> None:
    reply = stream(frames.created(), *CONTENT_DELTAS, frames.error_string())
    reply.chunking = "one"
    async with running(Scenario(replies=[reply])) as gateway:
        got = await streamed(gateway)
        assert got.text == "One two three"
        assert got.error is not None
        assert (got.finish, got.done) == (None, False)


async def test_a_reply_that_is_not_streamed_is_tried_again_behind_content_since_none_was_sent() -> None:
    broken = stream(frames.created(), *CONTENT_DELTAS, frames.error_string())
    async with running(Scenario(replies=[broken]), CHAT_RETRY_COUNT="3") as gateway:
        reply = await whole(gateway, "good")
        assert (reply.status, reply.text.count("One two")) == (200, 0)
        assert len(gateway.simulator.seen("completions")) == 2


async def test_a_reply_that_is_not_streamed_fails_whole_when_no_try_is_left() -> None:
    broken = stream(frames.created(), *CONTENT_DELTAS, frames.error_string())
    async with running(Scenario(replies=[broken, broken]), CHAT_RETRY_COUNT="1") as gateway:
        reply = await whole(gateway)
        assert (reply.status, reply.text) == (502, "")
        assert len(gateway.simulator.seen("completions")) == 2


EMPTY: dict[str, list[Step]] = {
    "zero events": [SendHeaders(), Cut()],
    "no body, headers late": [],
    "a creation only": [frames.created()],
    "keep-alives only": [frames.created(), frames.keep_alive(), frames.keep_alive()],
    "a normal end without text": [frames.created(), frames.answer(""), frames.finished()],
    "reasoning, then the end of the body": [frames.created(), frames.thinking_summary(["T"], ["Hm."])],
    "reasoning and its end": [frames.created(), frames.thinking_summary(["T"], ["Hm."]), frames.thinking_finished()],
    "reasoning and a normal end": [frames.created(), frames.think("Hm."), frames.finished()],
    "reset at once": [SendHeaders(), Reset()],
    "reset before the headers": [Reset()],
    "closed before the headers": [Drop()],
    "closed amid the first event": [SendHeaders(), b'data: {"choi', Drop()],
}


@pytest.mark.parametrize("name", EMPTY)
async def test_an_answer_without_text_is_never_a_stop(name: str) -> None:
    async with running(Scenario(faults=[Fault(stream(*EMPTY[name]))]), CHAT_RETRY_COUNT="0") as gateway:
        reply = await whole(gateway)
        assert reply.status == 502
        assert reply.error is not None
        assert reply.error.code == "upstream_unavailable"
        told = await streamed(gateway)
        if name.startswith("reasoning"):  # it was content, and went out
            assert told.reasoning == "Hm."
            assert told.status == 200
        else:
            assert told.status == 502
        assert told.error is not None
        assert told.error.code == "upstream_unavailable"
        assert (told.finish, told.done) == (None, False)
        assert len(gateway.simulator.seen("completions")) == 2


@pytest.mark.parametrize("name", EMPTY)
async def test_an_answer_without_text_is_tried_again_where_nothing_was_sent(name: str) -> None:
    async with running(Scenario(replies=[stream(*EMPTY[name])]), OUTPUT_THINK="false") as gateway:
        reply = await streamed(gateway)
        assert reply.status == 200
        assert reply.error is None
        assert reply.reasoning == ""
        assert "hello" in reply.text
        assert (reply.finish, reply.done) == ("stop", True)
        assert len(gateway.simulator.seen("completions")) == 2


ENDS: dict[str, Step] = {"clean end": Cut(), "close": Drop(), "reset": Reset()}


@pytest.mark.parametrize("end", ENDS)
async def test_a_stream_that_breaks_off_after_content_is_told_and_not_tried_again(end: str) -> None:
    steps = [frames.created(), *CONTENT_DELTAS, Pause(0.02), ENDS[end]]
    async with running(Scenario(replies=[stream(*steps)]), CHAT_RETRY_COUNT="3") as gateway:
        reply = await streamed(gateway)
        assert reply.text == "One two three"
        assert reply.error is not None
        assert (reply.error.type, reply.error.code) == ("upstream_error", "upstream_unavailable")
        assert (reply.finish, reply.done) == (None, False)
        assert len(gateway.simulator.seen("completions")) == 1


# --- limits of time


async def test_no_headers_within_their_limit_is_a_timeout() -> None:
    async with running(always(stream(Stall())), CHAT_RETRY_COUNT="0", HEADERS_TIMEOUT_SECONDS="0.2") as gateway:
        await assert_told(gateway, TIMED_OUT)


async def test_the_limit_for_headers_does_not_count_what_comes_after() -> None:
    steps: list[Step] = [SendHeaders(), Pause(0.6), frames.created(), frames.answer("late"), frames.finished()]
    async with running(Scenario(replies=[stream(*steps)]), HEADERS_TIMEOUT_SECONDS="0.3") as gateway:
        assert (await whole(gateway)).text == "late"
        assert len(gateway.simulator.seen("completions")) == 1


async def test_silence_before_any_content_is_a_timeout() -> None:
    reply = stream(frames.created(), Stall())
    async with running(always(reply), CHAT_RETRY_COUNT="0", IDLE_TIMEOUT_SECONDS="0.3") as gateway:
        got = await streamed(gateway)
        assert got.error is not None
        assert (got.status, got.error.code) == (504, "upstream_timeout")


async def test_silence_after_content_is_told_in_the_stream() -> None:
    reply = stream(frames.created(), *CONTENT_DELTAS, Stall())
    async with running(always(reply), CHAT_RETRY_COUNT="3", IDLE_TIMEOUT_SECONDS="0.3") as gateway:
        got = await streamed(gateway)
        assert got.text == "One two three"
        assert got.error is not None
        assert got.error.code == "upstream_timeout"
        assert (got.finish, got.done) == (None, False)
        assert len(gateway.simulator.seen("completions")) == 1
        assert gateway.leases() == 0


async def test_keep_alives_are_no_silence() -> None:
    beats = [step for _ in range(8) for step in (frames.keep_alive(), Pause(0.2))]
    reply = stream(frames.created(), *beats, frames.answer("done"), frames.finished())
    async with running(Scenario(replies=[reply]), IDLE_TIMEOUT_SECONDS="0.6") as gateway:
        assert (await whole(gateway)).text == "done"


async def test_the_whole_request_has_a_limit_of_its_own_and_is_not_tried_again_after_it() -> None:
    beats = [step for _ in range(100) for step in (frames.keep_alive(), Pause(0.05))]
    reply = stream(frames.created(), *beats)
    async with running(always(reply), CHAT_RETRY_COUNT="5", REQUEST_DEADLINE_SECONDS="1") as gateway:
        got = await whole(gateway)
        assert got.error is not None
        assert (got.status, got.error.code) == (504, "upstream_timeout")
        assert len(gateway.simulator.seen("completions")) == 1


async def test_an_upstream_that_is_gone_is_a_bad_gateway_and_comes_back() -> None:
    async with running(CHAT_RETRY_COUNT="1") as gateway:
        assert (await whole(gateway)).status == 200
        await gateway.simulator.stop()
        reply = await whole(gateway)
        assert reply.error is not None
        assert (reply.status, reply.error.code) == (502, "upstream_unavailable")
        await gateway.simulator.start()
        assert (await whole(gateway)).status == 200


async def test_a_connection_that_does_not_come_about_is_a_timeout_of_its_own() -> None:
    """A listener with a full backlog answers no SYN: connecting hangs."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        queued = [socket.socket() for _ in range(4)]
        for each in queued:
            each.setblocking(False)
            each.connect_ex(address)
        url = f"http://127.0.0.1:{address[1]}"
        async with running(QWEN_CHAT_PROXY_URL=url, CONNECT_TIMEOUT_SECONDS="0.3") as gateway:
            reply = await whole(gateway)
        for each in queued:
            each.close()
    assert reply.error is not None
    assert (reply.status, reply.error.code) == (504, "upstream_timeout")
    assert "connect: 0.3 s" in reply.error.message


async def test_all_who_wait_for_a_model_list_that_does_not_come_are_told_at_once() -> None:
    """One fetch for all, also when it fails: else the last of many would wait for as many time limits."""
    faults = [Fault(hang(), endpoint="models"), Fault(hang(), endpoint="models_v2")]
    async with running(Scenario(faults=faults), HEADERS_TIMEOUT_SECONDS="1.5") as gateway:
        replies = await asyncio.gather(*(whole(gateway) for _ in range(30)))
        assert {reply.status for reply in replies} == {504}
        assert len(gateway.simulator.seen("models")) < 6
        gateway.scenario.faults = []
        await asyncio.sleep(RETRY_FIRST_SECONDS)
        assert (await whole(gateway)).status == 200


# --- one budget for all reasons


async def test_the_budget_is_shared_by_all_reasons() -> None:
    faults = [Fault(reply, times=1) for reply in (unavailable(503), stream(), overloaded(), stream(Reset()))]
    accounts = ("a@x.io:p", "b@x.io:p")
    async with running(Scenario(faults=faults), accounts=accounts, CHAT_RETRY_COUNT="3") as gateway:
        reply = await whole(gateway)
        assert reply.status == 502
        assert len(gateway.simulator.seen("completions")) == 4


async def test_the_last_try_of_the_budget_may_succeed() -> None:
    accounts = ("a@x.io:p", "b@x.io:p")
    async with running(accounts=accounts, CHAT_RETRY_COUNT="3") as gateway:
        for _ in accounts:
            assert (await whole(gateway)).status == 200
        replies = (rate_limited(1), unauthorized(), unavailable(503))
        gateway.scenario.faults = [Fault(reply, times=1) for reply in replies]
        reply = await streamed(gateway)
        assert reply.status == 200
        assert reply.done
        assert len(gateway.simulator.seen("completions")) == 2 + 4


async def test_tries_after_a_failing_upstream_are_spaced_and_the_spaces_double() -> None:
    async with running(always(unavailable(503)), CHAT_RETRY_COUNT="2", CHAT_RETRY_BACKOFF_MS="200") as gateway:
        assert (await whole(gateway)).status == 502
        first, second, third = (seen.at for seen in gateway.simulator.seen("completions"))
        assert second - first >= 0.19
        assert third - second >= 0.39


@pytest.mark.parametrize("reply", [rate_limited(1), captcha_json(), unauthorized()])
async def test_what_is_the_accounts_fault_is_tried_elsewhere_at_once(reply: Reply) -> None:
    scenario = Scenario(faults=[Fault(reply, times=1)])
    async with running(scenario, accounts=("a@x.io:p", "b@x.io:p"), CHAT_RETRY_BACKOFF_MS="60000") as gateway:
        assert (await whole(gateway)).status == 200


async def test_a_failed_new_chat_costs_a_try_too() -> None:
    fault = Fault(unavailable(503), endpoint="chats_new")
    async with running(Scenario(faults=[fault]), CHAT_RETRY_COUNT="2") as gateway:
        assert (await whole(gateway)).status == 502
        assert len(gateway.simulator.seen("chats_new")) == 3
        assert gateway.simulator.seen("completions") == []


@pytest.mark.parametrize(
    "reply",
    [failure("Bad_Request", "no", None), empty_body(), unauthorized(), captcha_json(), waf_html(405), rate_limited()],
)
async def test_a_new_chat_that_fails_is_tried_with_another_account(reply: Reply) -> None:
    fault = Fault(reply, endpoint="chats_new", times=1)
    accounts = ("a@x.io:p", "b@x.io:p")
    async with running(Scenario(faults=[fault]), accounts=accounts) as gateway:
        assert (await whole(gateway)).status == 200
        assert len(gateway.simulator.seen("chats_new")) == 2


async def test_what_the_client_did_wrong_is_not_tried_again() -> None:
    async with running(always(stream(INSIDE["invalid_input"][0])), CHAT_RETRY_COUNT="5") as gateway:
        await assert_told(gateway, REFUSED)


async def test_every_try_has_a_chat_of_its_own() -> None:
    """A chat whose generation was dropped stays in progress for a while (§4.9)."""
    async with running(
        Scenario(replies=[stream(frames.created(), Reset()), stream()]), CHAT_RETRY_COUNT="2"
    ) as gateway:
        assert (await whole(gateway)).status == 200
        chats = [seen.query["chat_id"] for seen in gateway.simulator.seen("completions")]
        assert len(set(chats)) == len(chats) == 3


# --- headers and heartbeats before content

EARLY = {"HEADER_COMMIT_SECONDS": "0.1", "HEARTBEAT_SECONDS": "0.1"}


async def test_a_long_pending_reply_gets_headers_and_heartbeats_and_then_its_failure() -> None:
    reply = stream(Pause(0.6), frames.created(), frames.error_object("quota_limit", "used up"))
    async with running(always(reply), CHAT_RETRY_COUNT="0", **EARLY) as gateway:
        got = await streamed(gateway)
        assert got.status == 200
        assert got.comments >= 2
        assert got.error is not None
        assert (got.error.type, got.error.code) == ("rate_limit_error", "upstream_quota")
        assert (got.text, got.finish, got.done) == ("", None, False)


async def test_a_try_that_fails_after_the_heartbeats_is_followed_by_one_that_succeeds() -> None:
    replies = [stream(Pause(0.4), frames.created(), Reset()), stream(Pause(0.3), *CONTENT_DELTAS, frames.finished())]
    async with running(Scenario(replies=replies), **EARLY) as gateway:
        got = await streamed(gateway)
        assert got.status == 200
        assert got.comments >= 2
        assert got.error is None
        assert got.text == "One two three"
        assert (got.finish, got.done) == ("stop", True)
        assert len(gateway.simulator.seen("completions")) == 2


async def test_a_silent_reply_gets_heartbeats_amid_its_content() -> None:
    steps = [frames.created(), frames.answer("a"), Pause(0.5), frames.answer("b"), frames.finished()]
    async with running(Scenario(replies=[stream(*steps)]), **EARLY) as gateway:
        got = await streamed(gateway)
        assert (got.text, got.done) == ("ab", True)
        assert got.comments >= 2


async def test_headers_may_be_set_to_go_out_at_once() -> None:
    steps = [Pause(0.3), *CONTENT_DELTAS, frames.finished()]
    settings = {"HEADER_COMMIT_SECONDS": "0", "HEARTBEAT_SECONDS": "15"}
    async with running(Scenario(replies=[stream(*steps)]), **settings) as gateway:
        got = await streamed(gateway)
        assert got.comments == 1
        assert (got.text, got.done) == ("One two three", True)


# --- candidates (§4.4 (1))

ZERO, ONE = "0", "1"
OTHER = frames.OTHER_RESPONSE_ID


def candidates(*, created_first: str, spoken_first: str, one_by_one: bool) -> list[Step]:
    created = {ZERO: frames.created(ZERO), ONE: frames.created(ONE, response_id=OTHER)}
    said = {
        ZERO: [frames.answer(word) for word in ("Paris", " is", " it.")],
        ONE: [frames.answer(word, response_id=OTHER) for word in ("PARIS", " IS", " IT.")],
    }
    last = {ZERO: frames.finished(), ONE: frames.finished(response_id=OTHER)}
    order = [created_first, ONE if created_first == ZERO else ZERO]
    steps: list[Step] = [created[index] for index in order]
    order = [spoken_first, ONE if spoken_first == ZERO else ZERO]
    if one_by_one:
        for index in order:
            steps += [*said[index], last[index]]
    else:
        for turn in range(3):
            steps += [said[index][turn] for index in order]
        steps += [last[index] for index in order]
    return steps


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("spoken_first", [ZERO, ONE])
@pytest.mark.parametrize("created_first", [ZERO, ONE])
async def test_of_two_candidates_the_first_is_the_reply(
    created_first: str, spoken_first: str, one_by_one: bool
) -> None:
    steps = candidates(created_first=created_first, spoken_first=spoken_first, one_by_one=one_by_one)
    async with running(Scenario(replies=[stream(*steps), stream(*steps)])) as gateway:
        assert (await whole(gateway)).text == "Paris is it."
        got = await streamed(gateway)
        assert (got.text, got.finish, got.done) == ("Paris is it.", "stop", True)


async def test_the_other_candidate_is_the_reply_when_the_first_stays_silent() -> None:
    steps = [frames.created(ZERO), frames.created(ONE, response_id=OTHER), frames.answer("Paris", response_id=OTHER)]
    for end in ([frames.finished(response_id=OTHER)], [frames.finished(), frames.finished(response_id=OTHER)]):
        async with running(Scenario(replies=[stream(*steps, *end)])) as gateway:
            got = await streamed(gateway)
            assert (got.text, got.finish, got.done) == ("Paris", "stop", True)
            assert len(gateway.simulator.seen("completions")) == 1
