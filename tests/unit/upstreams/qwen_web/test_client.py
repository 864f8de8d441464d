"""The upstream against the simulated site."""

import asyncio

import pytest
from msgspec import structs

from qwen_proxy.accounts.model import DIRECT, Credential
from qwen_proxy.chat.events import (
    Finish,
    FinishReason,
    ReasoningDelta,
    ReplyStart,
    SourcesFound,
    TextDelta,
    Usage,
)
from qwen_proxy.chat.grammar import Grammar
from qwen_proxy.chat.models import Variant
from qwen_proxy.ground.errors import (
    CredentialRejected,
    ExitUnreachable,
    ModelNotFound,
    PromptTooLong,
    ProxyError,
    QuotaExhausted,
    ReplyCut,
    ReplyEmpty,
    UpstreamChallenged,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from qwen_proxy.ground.secret import Secret
from qwen_proxy.simulator import Simulator
from qwen_proxy.simulator.frames import answer, created, finished, image
from qwen_proxy.simulator.replies import (
    Cut,
    Drop,
    Pause,
    Reply,
    Reset,
    SendHeaders,
    Stall,
    captcha_json,
    empty_body,
    json_reply,
    stream,
    success,
    unavailable,
    waf_html,
)
from qwen_proxy.simulator.scenario import Fault, Scenario, overload, quota
from qwen_proxy.upstreams.qwen_web.options import CleanupOptions, QwenWebOptions
from qwen_proxy.upstreams.transport import TransportOptions
from tests.support.proxies import HttpProxy, Proxy, Socks5Proxy
from tests.support.web import MODEL, Web, asking, in_seconds, web

KEEP = QwenWebOptions(cleanup=CleanupOptions(delete_after_seconds=None))
QUICK = TransportOptions(headers_seconds=0.2, idle_seconds=0.2, watch_interval_seconds=0.02)


async def test_an_answer_from_beginning_to_end() -> None:
    async with Simulator(Scenario(answer_text="Paris is the capital.")) as simulator, web(simulator) as made:
        events = await made.ask("Name the capital of France.")
        start, text, usage, finish = events
        assert isinstance(start, ReplyStart) and start.reply_id
        assert text == TextDelta("Paris is the capital.")
        assert isinstance(usage, Usage) and usage.prompt_tokens > 0
        assert finish == Finish(FinishReason.STOP)
        new_chat, completion = simulator.requests[:2]
        assert (new_chat.endpoint, completion.endpoint) == ("chats_new", "completions")
        assert completion.json["messages"][0]["content"] == "Name the capital of France."
        assert simulator.warnings == []
        assert made.drift.snapshot() == []


async def test_thinking_and_search() -> None:
    async with Simulator(Scenario(search="both")) as simulator, web(simulator) as made:
        events = await made.ask(variant=Variant(thinking=True, search=True))
        kinds = [type(event) for event in events]
        assert {ReasoningDelta, SourcesFound, TextDelta} <= set(kinds)
        grammar = Grammar()
        grammar.feed(events)
        grammar.finish()
        message = simulator.seen("completions")[0].json["messages"][0]
        assert message["chat_type"] == "search"
        assert message["feature_config"]["thinking_mode"] == "Thinking"


async def test_a_site_below_a_path() -> None:
    async with Simulator(Scenario(path_prefix="/qwen/site")) as simulator:
        simulator_web = web(simulator)
        async with simulator_web as made:
            assert (await made.ask())[-1] == Finish(FinishReason.STOP)
            assert all(seen.headers["referer"].startswith(simulator.base_url) for seen in simulator.requests)


async def test_connections_are_used_again_from_chat_to_chat() -> None:
    async with Simulator() as simulator, web(simulator, KEEP) as made:
        credential = made.credential()
        for _ in range(5):
            await made.ask(credential=credential)
        assert len({seen.peer for seen in simulator.requests}) == 1


async def test_the_owners_cookies_go_along() -> None:
    async with Simulator() as simulator, web(simulator) as made:
        credential = structs.replace(made.credential(), cookies=Secret("cna=abc; token=old; isg=x"))
        await made.ask(credential=credential)
        cookies = simulator.seen("completions")[0].headers["cookie"]
        assert cookies == f"cna=abc; token={credential.token.reveal()}; isg=x"


@pytest.mark.parametrize("kind", [HttpProxy, Socks5Proxy])
async def test_every_call_of_a_credential_takes_its_exit(kind: type[Proxy]) -> None:
    scheme = "http" if kind is HttpProxy else "socks5"
    async with Simulator() as simulator, kind() as proxy:
        async with web(simulator) as made:
            credential = made.credential(exit=f"{scheme}://127.0.0.1:{proxy.port}")
            await made.upstream.models(credential, in_seconds(5))
            await made.ask(credential=credential)
        assert len(simulator.seen("chat_delete")) == 1
        assert len({seen.peer for seen in simulator.requests}) == len(proxy.asked)


# --- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (quota(), QuotaExhausted),
        (overload(), UpstreamOverloaded),
        (Fault(captcha_json()), UpstreamChallenged),
        (Fault(waf_html()), UpstreamChallenged),
        (Fault(waf_html(405), "chats_new"), UpstreamChallenged),
        (Fault(unavailable()), UpstreamUnavailable),
        (Fault(unavailable(), "chats_new"), UpstreamUnavailable),
        (Fault(empty_body()), ReplyEmpty),
        (Fault(empty_body(), "chats_new"), UpstreamFailed),
        (Fault(success({}), "chats_new"), UpstreamProtocolError),
        (Fault(success({"id": "a/../b"}), "chats_new"), UpstreamProtocolError),
        (Fault(Reply([b"id"], content_type="text/plain"), "chats_new"), UpstreamProtocolError),
        (Fault(success({"messages": []})), UpstreamProtocolError),
        (Fault(stream()), ReplyCut),
        (Fault(stream(created(), Cut())), ReplyCut),
        (Fault(stream(created(), finished())), ReplyEmpty),
        (Fault(stream(created(), Pause(0.01), Reset())), ReplyCut),
        (Fault(stream(created(), Pause(0.01), Drop())), ReplyCut),
        (Fault(stream(SendHeaders(), Pause(0.01), Reset())), ReplyCut),
    ],
)
async def test_a_failure_is_told_and_the_chat_goes_to_the_clean_up(fault: Fault, error: type[ProxyError]) -> None:
    async with Simulator(Scenario(faults=[fault])) as simulator:
        async with web(simulator) as made:
            with pytest.raises(error):
                await made.ask()
            assert made.transport.open_streams == 0
        assert all(chat.deleted for chat in simulator.chats.values())


async def test_a_rejected_token_and_a_missing_model() -> None:
    async with Simulator() as simulator, web(simulator) as made:
        credential = made.credential()
        with pytest.raises(ModelNotFound):
            async with made.upstream.open(
                asking(), structs.replace(MODEL, id="qwen9"), credential, in_seconds(5)
            ) as batches:
                async for _ in batches:
                    pass
        simulator.revoke_tokens()
        with pytest.raises(CredentialRejected):
            await made.ask(credential=credential)


async def test_what_was_said_before_a_reset_may_be_heard_and_is_never_finished() -> None:
    reply = stream(created(), answer("Par"), Pause(0.05), answer("is"), Pause(0.05), Reset())
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator) as made:
        heard = ""
        with pytest.raises(ReplyCut):
            async with made.upstream.open(asking(), MODEL, made.credential(), in_seconds(5)) as batches:
                async for batch in batches:
                    heard += "".join(event.text for event in batch if isinstance(event, TextDelta))
                    assert not any(isinstance(event, Finish) for event in batch)
        assert heard == "Paris"


async def test_a_cut_behind_the_other_candidates_end_loses_nothing() -> None:
    """Index 0 is silent and the connection is reset: what was held of the other is the reply."""
    other = "$$other_response_id$$"
    steps = [created(), created("1", response_id=other), answer("Paris", response_id=other)]
    reply = stream(*steps, finished(response_id=other), Pause(0.05), Reset())
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator) as made:
        events = await made.ask()
        assert [type(event) for event in events] == [ReplyStart, TextDelta, Finish]


async def test_a_failure_behind_text_is_raised_without_waiting_for_more() -> None:
    reply = stream(created(), answer("Par"), '{"error": "Internal error!"}', Stall())
    reply.chunking = "one"
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator) as made:
        with pytest.raises(UpstreamFailed):
            await asyncio.wait_for(made.ask(), 2)


@pytest.mark.parametrize(
    ("reply", "phase"), [(Reply([Stall()]), "headers"), (stream(created(), Stall()), "idle")], ids=["headers", "idle"]
)
async def test_silence_is_a_timeout(reply: Reply, phase: str) -> None:
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator, times=QUICK) as made:
        with pytest.raises(UpstreamTimeout) as caught:
            await made.ask()
        assert caught.value.phase == phase


async def test_a_prompt_near_the_firewalls_limit_is_not_sent() -> None:
    async with Simulator() as simulator, web(simulator) as made:
        with pytest.raises(PromptTooLong):
            await made.ask("x" * 120 * 1024)
        assert simulator.requests == []
        await made.ask("x" * 117 * 1024)


async def test_events_under_another_type_are_read_all_the_same() -> None:
    reply = stream(created(), answer("Paris"), finished())
    reply.content_type = "text/plain"
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator) as made:
        assert (await made.ask())[1] == TextDelta("Paris")


async def test_a_cut_inside_the_last_event_is_told_behind_what_was_said() -> None:
    reply = stream(created(), answer("Paris"))
    reply.trailing_blank_line = False
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator) as made:
        heard = ""
        with pytest.raises(ReplyCut):
            async with made.upstream.open(asking(), MODEL, made.credential(), in_seconds(5)) as batches:
                async for batch in batches:
                    heard += "".join(event.text for event in batch if isinstance(event, TextDelta))
        assert heard == "Paris"


# --- leaving -----------------------------------------------------------------------------------------------


async def _until(claim: "asyncio.Event", simulator: Simulator) -> None:
    async with asyncio.timeout(2):
        while simulator.open_generations:  # noqa: ASYNC110 (a plain number of the server)
            await asyncio.sleep(0.005)
    claim.set()


async def test_leaving_early_closes_the_generation_at_once() -> None:
    reply = stream(created(), answer("Par"), Stall())
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator) as made:
        async with made.upstream.open(asking(), MODEL, made.credential(), in_seconds(60)) as batches:
            async for _ in batches:
                break
        await _until(asyncio.Event(), simulator)
        assert simulator.seen("completions")[0].closed_early
        assert made.transport.open_streams == 0


async def test_what_comes_between_the_finish_and_the_end_is_taken_and_the_connection_used_again() -> None:
    reply = stream(created(), answer("Paris"), finished(), Pause(0.03), b": bye\n\n", Pause(0.03))
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator, KEEP) as made:
        await made.ask()
        await made.ask()
        assert len({seen.peer for seen in simulator.requests}) == 1


async def test_an_end_that_does_not_come_after_the_finish_is_not_waited_for_long() -> None:
    reply = stream(created(), answer("Paris"), finished(), Stall())
    options = QwenWebOptions(drain_seconds=0.05)
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator, options) as made:
        events = await asyncio.wait_for(made.ask(), 2)
        assert events[-1] == Finish(FinishReason.STOP)
        await _until(asyncio.Event(), simulator)


# --- models ------------------------------------------------------------------------------------------------


async def test_models_of_the_first_endpoint() -> None:
    async with Simulator() as simulator, web(simulator) as made:
        found = await made.upstream.models(made.credential(), in_seconds(5))
        assert found[0].id == "qwen3.7-plus" and found[0].thinks and found[0].searches
        assert not next(model for model in found if model.id == "qwen3.8-max").can_skip_thinking
        assert [seen.endpoint for seen in simulator.requests] == ["models"]
        assert await made.upstream.models(None, in_seconds(5)) == found
        assert "authorization" not in simulator.requests[-1].headers


@pytest.mark.parametrize("reply", [unavailable(), waf_html(), success([]), json_reply({"detail": "x"}, status=404)])
async def test_models_of_the_second_endpoint(reply: Reply) -> None:
    async with Simulator(Scenario(faults=[Fault(reply, "models")])) as simulator, web(simulator) as made:
        assert await made.upstream.models(None, in_seconds(5))
        assert [seen.endpoint for seen in simulator.requests] == ["models", "models_v2"]


@pytest.mark.parametrize(
    ("reply", "error"),
    [(unavailable(), UpstreamUnavailable), (waf_html(), UpstreamChallenged), (success([]), UpstreamProtocolError)],
)
async def test_no_models(reply: Reply, error: type[ProxyError]) -> None:
    faults = [Fault(reply, "models"), Fault(reply, "models_v2")]
    async with Simulator(Scenario(faults=faults)) as simulator, web(simulator) as made:
        with pytest.raises(error):
            await made.upstream.models(None, in_seconds(5))


@pytest.mark.parametrize("own", [True, False])
async def test_models_through_another_exit_where_the_first_is_dead(own: bool) -> None:
    """A call on an account's behalf stays with its exit."""
    dead = "http://127.0.0.1:1"
    options = QwenWebOptions(exit=dead, other_exits=(dead, DIRECT))
    async with Simulator() as simulator, web(simulator, options) as made:
        if own:
            with pytest.raises(ExitUnreachable):
                await made.upstream.models(made.credential(exit=dead), in_seconds(5))
        else:
            assert await made.upstream.models(None, in_seconds(5))


# --- what is noticed ---------------------------------------------------------------------------------------


async def test_the_sites_clock_is_kept_in_view() -> None:
    async with Simulator(Scenario(clock_offset_seconds=7200)) as simulator, web(simulator) as made:
        assert made.site.clock_offset_seconds is None
        await made.upstream.models(None, in_seconds(5))
        assert made.site.clock_offset_seconds is not None
        assert abs(made.site.clock_offset_seconds - 7200) < 5


async def test_unknown_headers_are_counted() -> None:
    reply = json_reply({"data": [{"id": "m"}]})
    reply.headers = {"X-Mood": "fine", "Date": "never"}
    async with Simulator(Scenario(faults=[Fault(reply, "models")])) as simulator, web(simulator) as made:
        await made.upstream.models(None, in_seconds(5))
        assert ("header", "x-mood") in [(note.kind, note.name) for note in made.drift.snapshot()]
        assert made.site.clock_offset_seconds is None


async def test_a_capture_holds_the_bytes_and_what_must_not_be_told() -> None:
    reply = stream(created(), answer("Paris"), image("https://cdn.qwenlm.ai/x.png"), Pause(0.05), Reset())
    async with Simulator(Scenario(replies=[reply])) as simulator, web(simulator) as made:
        credential: Credential = structs.replace(made.credential(), cookies=Secret("cna=secret-value"))
        exchange = await made.upstream.capture(asking(), MODEL, credential, in_seconds(5))
        assert b"Paris" in b"".join(exchange.chunks)
        assert {credential.token.reveal(), "alice@example.com", "secret-value"} <= set(exchange.secrets)
        assert exchange.status == 200


async def test_a_capture_of_a_whole_reply() -> None:
    async with Simulator(Scenario(answer_text="Paris")) as simulator:
        async with web(simulator) as made:
            exchange = await made.upstream.capture(asking(), MODEL, made.credential(), in_seconds(5))
        assert b"finished" in exchange.chunks[-1]
        assert all(chat.deleted for chat in simulator.chats.values())


# --- the clean-up ------------------------------------------------------------------------------------------


def cleaning(**options: float | None) -> QwenWebOptions:
    return QwenWebOptions(cleanup=structs.replace(CleanupOptions(), **options))


async def _settled(made: Web, deleted: int) -> None:
    async with asyncio.timeout(2):
        while made.upstream.cleanup.counts.deleted < deleted:  # noqa: ASYNC110 (a plain number)
            await asyncio.sleep(0.005)


async def test_chats_are_deleted_in_the_background() -> None:
    async with Simulator() as simulator, web(simulator, cleaning()) as made:
        for _ in range(3):
            await made.ask()
        await _settled(made, 3)
        assert all(chat.deleted for chat in simulator.chats.values())


async def test_chats_are_kept() -> None:
    async with Simulator() as simulator:
        async with web(simulator, KEEP) as made:
            await made.ask()
        assert simulator.seen("chat_delete") == []


async def test_chats_are_deleted_later() -> None:
    async with Simulator() as simulator, web(simulator, cleaning(delete_after_seconds=0.3)) as made:
        await made.ask()
        await made.ask()
        assert made.upstream.cleanup.counts.waiting == 2
        assert simulator.seen("chat_delete") == []
        await _settled(made, 2)


async def test_another_delay_holds_for_what_waits_too() -> None:
    async with Simulator() as simulator, web(simulator, cleaning(delete_after_seconds=600.0)) as made:
        await made.ask()
        made.upstream.cleanup.delete_after(0)
        await _settled(made, 1)
        made.upstream.cleanup.delete_after(600)
        await made.ask()
        assert made.upstream.cleanup.counts.waiting == 1


async def test_keeping_from_now_on_keeps_what_waits() -> None:
    async with Simulator() as simulator:
        async with web(simulator, cleaning(delete_after_seconds=600.0)) as made:
            await made.ask()
            made.upstream.cleanup.delete_after(None)
            await made.ask()
            assert made.upstream.cleanup.counts.waiting == 0
        assert simulator.seen("chat_delete") == []


async def test_shutting_down_deletes_what_waits() -> None:
    async with Simulator() as simulator:
        async with web(simulator, cleaning(delete_after_seconds=600.0)) as made:
            await made.ask()
            await asyncio.sleep(0.01)
        assert all(chat.deleted for chat in simulator.chats.values())
        assert made.upstream.cleanup.counts.deleted == 1


async def test_shutting_down_does_not_wait_for_ever() -> None:
    faults = [Fault(Reply([Stall()]), "chat_delete")]
    async with Simulator(Scenario(faults=faults)) as simulator:
        async with asyncio.timeout(2):
            async with web(simulator, cleaning(shutdown_seconds=0.1, max_at_once=1)) as made:
                await made.ask()
                await made.ask()
                await made.ask()
        assert made.upstream.cleanup.counts.deleted == 0


@pytest.mark.parametrize("reply", [unavailable(), waf_html(), Reply([Drop()])])
async def test_a_deletion_that_fails_harms_nobody(reply: Reply) -> None:
    faults = [Fault(reply, "chat_delete")]
    async with Simulator(Scenario(faults=faults)) as simulator:
        async with web(simulator, cleaning()) as made:
            for _ in range(3):
                await made.ask()
        counts = made.upstream.cleanup.counts
        assert counts.failed + counts.dropped == 3
        assert counts.failed >= 1


async def test_a_challenge_lets_deletions_rest() -> None:
    faults = [Fault(captcha_json(), "chat_delete", times=1)]
    async with Simulator(Scenario(faults=faults)) as simulator, web(simulator, cleaning(rest_seconds=0.3)) as made:
        made.upstream.cleanup.hand_over(made.credential(), "605fdeab-bcc7-4b00-ab4c-64acac491286")
        async with asyncio.timeout(2):
            while not made.upstream.cleanup.counts.failed:  # noqa: ASYNC110 (a plain number)
                await asyncio.sleep(0.005)
        made.upstream.cleanup.hand_over(made.credential(), "605fdeab-bcc7-4b00-ab4c-64acac491286")
        await asyncio.sleep(0.05)
        assert len(simulator.seen("chat_delete")) == 1
        await _settled(made, 1)


async def test_shutting_down_while_challenged_deletes_nothing() -> None:
    faults = [Fault(captcha_json(), "chat_delete")]
    async with Simulator(Scenario(faults=faults)) as simulator:
        async with web(simulator, cleaning(max_at_once=1)) as made:
            made.upstream.cleanup.hand_over(made.credential(), "605fdeab-bcc7-4b00-ab4c-64acac491286")
            async with asyncio.timeout(2):
                while not made.upstream.cleanup.counts.failed:  # noqa: ASYNC110 (a plain number)
                    await asyncio.sleep(0.005)
            made.upstream.cleanup.hand_over(made.credential(), "605fdeab-bcc7-4b00-ab4c-64acac491286")
        assert made.upstream.cleanup.counts.dropped == 1
        assert len(simulator.seen("chat_delete")) == 1


async def test_a_chat_that_is_gone_already_counts_as_deleted() -> None:
    async with Simulator() as simulator:
        async with web(simulator, cleaning()) as made:
            made.upstream.cleanup.hand_over(made.credential(), "605fdeab-bcc7-4b00-ab4c-64acac491286")
        assert made.upstream.cleanup.counts.deleted == 1
        assert len(simulator.seen("chat_delete")) == 1


async def test_the_queue_is_bounded() -> None:
    async with Simulator() as simulator:
        async with web(simulator, cleaning(delete_after_seconds=600.0, max_waiting=2)) as made:
            for _ in range(5):
                made.upstream.cleanup.hand_over(made.credential(), "605fdeab-bcc7-4b00-ab4c-64acac491286")
            counts = made.upstream.cleanup.counts
            assert (counts.waiting, counts.dropped) == (2, 3)
