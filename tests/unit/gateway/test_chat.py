"""The attempt loop: what is tried again, with which account, and what is never tried again."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from msgspec import Raw, structs

from qwen_proxy.accounts.model import Credential, OutcomeKind
from qwen_proxy.chat.events import (
    Batch,
    Finish,
    FinishReason,
    MediaKind,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    Source,
    SourcesFound,
    TextDelta,
    Usage,
    UsageOrigin,
)
from qwen_proxy.chat.grammar import Grammar
from qwen_proxy.chat.models import PLAIN, Model, ModelName, Variant
from qwen_proxy.chat.request import (
    ChatRequest,
    ImagePart,
    Message,
    Part,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolChoice,
    ToolChoiceKind,
    ToolResultPart,
)
from qwen_proxy.config.choices import SearchInfo
from qwen_proxy.gateway.backend import WEB, Backend, BackendKind
from qwen_proxy.gateway.catalogue import CatalogueSource
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.counter import COUNT_IN_THREAD_CHARS
from qwen_proxy.gateway.delivery import Delivery
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Naming
from qwen_proxy.gateway.run import GatewayOptions
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.ground import errors
from qwen_proxy.runtime.ids import SystemIds
from tests.support.clock import FakeClock
from tests.support.counting import WordCounter
from tests.support.scripted import Desk, Script, ScriptedUpstream

MODEL = Model(id="qwen3.7-plus", display_name="Qwen3.7-Plus", thinks=True)
STOP = Finish(FinishReason.STOP)
USAGE = Usage(prompt_tokens=7, completion_tokens=2)
START = ReplyStart("r1")
GOOD: Script = [[START], [TextDelta("Hel"), TextDelta("lo")], [USAGE, STOP]]


def gateway(
    upstream: ScriptedUpstream,
    desk: Desk,
    clock: FakeClock | None = None,
    kind: BackendKind = BackendKind.WEB,
    **options: float,
) -> ChatGateway:
    clock = clock or FakeClock()
    shown = Delivery(show_reasoning=True, reasoning_in_content=False, search_info=SearchInfo.NONE)

    async def fetch() -> list[Model]:
        return await upstream.models(None, 0)

    source = CatalogueSource(fetch, clock=clock, ttl_seconds=0)
    name = WEB if kind is BackendKind.WEB else kind.value
    backend = Backend(name=name, kind=kind, upstream=upstream, leasing=desk, catalogue=source)
    return ChatGateway(
        Router(lambda: (backend,), Naming()),
        clock=clock,
        ids=SystemIds(),
        tokens=WordCounter(),
        options=GatewayOptions(
            retry_count=int(options.get("retry_count", 1)),
            retry_backoff_seconds=options.get("backoff", 0),
            result_bytes=int(options.get("result_bytes", 0)),
            delivery=shown,
        ),
    )


def question(text: str = "hi there", sampling: Sampling | None = None) -> ChatRequest:
    return ChatRequest(
        model=ModelName("Qwen3.7-Plus"),
        messages=(Message(Role.USER, (TextPart(text),)),),
        sampling=sampling or Sampling(),
    )


async def ask(chat: ChatGateway, request: ChatRequest, trace: Trace | None = None) -> list[Batch]:
    request, resolved = await chat.resolve(request)
    batches: list[Batch] = []
    async with chat.open(request, resolved, trace or Trace("req_1")) as reply:
        async for batch in reply:
            batches.append(batch)
    grammar = Grammar()
    for batch in batches:
        grammar.feed(batch)
    grammar.finish()
    return batches


def scripted(*scripts: Script) -> ScriptedUpstream:
    return ScriptedUpstream(*scripts, models=[MODEL])


async def test_a_good_reply_passes_through_and_the_account_is_told() -> None:
    upstream, desk, trace = scripted(GOOD), Desk("a"), Trace("req_1")
    batches = await ask(gateway(upstream, desk), question(), trace)
    assert batches == [[START, TextDelta("Hel"), TextDelta("lo")], [USAGE, STOP]]
    assert desk.outcomes == [("a", OutcomeKind.SUCCEEDED)]
    assert (trace.tries, trace.account_id, trace.usage, trace.failures) == (1, "a", USAGE, [])
    assert upstream.requests[0].model.base == "qwen3.7-plus"


async def test_nothing_comes_out_before_there_is_content() -> None:
    sources = SourcesFound((Source("https://example.com"),))
    upstream = scripted([[START], [], [sources], [ReasoningDelta("hm")], [TextDelta("x")], [USAGE, STOP]])
    batches = await ask(gateway(upstream, Desk("a")), question())
    assert batches == [[START, sources, ReasoningDelta("hm")], [TextDelta("x")], [USAGE, STOP]]


async def test_a_picture_is_content() -> None:
    picture = MediaOutput(MediaKind.IMAGE, "https://cdn.qwenlm.ai/output/a.png")
    assert (await ask(gateway(scripted([[START, picture], [USAGE, STOP]]), Desk("a")), question()))[0][1] == picture


@pytest.mark.parametrize(
    "failure",
    [
        errors.UpstreamUnavailable("HTTP 503"),
        errors.ReplyEmpty("nothing"),
        errors.ReplyCut(),
        errors.QuotaExhausted(60),
        errors.UpstreamChallenged("json"),
        errors.ExitUnreachable("refused"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_failure_before_content_is_tried_on_another_account_and_exit(failure: errors.ProxyError) -> None:
    upstream, desk = scripted([[START], failure], GOOD), Desk("a@x", "b@x", "c@y")
    batches = await ask(gateway(upstream, desk), question())
    assert batches[-1] == [USAGE, STOP]
    expected = "c" if failure.blame is errors.Blame.EXIT else "b"
    assert upstream.accounts == ["a", expected]
    assert [kind for _, kind in desk.outcomes][1] is OutcomeKind.SUCCEEDED


async def test_content_that_was_sent_is_never_followed_by_another_try() -> None:
    upstream, desk = scripted([[START], [TextDelta("Hel")], errors.ReplyCut()], GOOD), Desk("a", "b")
    chat = gateway(upstream, desk, retry_count=5)
    request, resolved = await chat.resolve(question())
    got: list[Batch] = []
    with pytest.raises(errors.ReplyCut):
        async with chat.open(request, resolved, Trace("req_1")) as reply:
            async for batch in reply:
                got.append(batch)
    assert got == [[START, TextDelta("Hel")]]
    assert (len(upstream.requests), desk.held, upstream.open_now) == (1, 0, 0)


async def test_a_reply_in_one_may_fail_behind_its_content_and_be_tried_again() -> None:
    broken: Script = [[START], [TextDelta("Hel")], errors.ReplyCut()]
    upstream, desk, trace = scripted(broken, GOOD), Desk("a", "b"), Trace("r")
    served = gateway(upstream, desk)
    request, resolved = await served.resolve(question())
    async with served.open(request, resolved, trace, in_one=True) as batches:
        (reply,) = [batch async for batch in batches]
    assert reply == [START, TextDelta("Hel"), TextDelta("lo"), USAGE, STOP]
    assert (upstream.accounts, trace.failures) == (["a", "b"], ["ReplyCut"])
    assert [kind for _, kind in desk.outcomes] == [OutcomeKind.UPSTREAM_FAILED, OutcomeKind.SUCCEEDED]


async def test_all_reasons_share_one_budget_of_tries() -> None:
    upstream = scripted(
        [errors.ReplyEmpty("nothing")], [errors.QuotaExhausted(60)], [errors.UpstreamOverloaded()], GOOD
    )
    trace = Trace("req_1")
    with pytest.raises(errors.UpstreamOverloaded):
        await ask(gateway(upstream, Desk("a", "b", "c", "d"), retry_count=2), question(), trace)
    assert trace.tries == 3
    assert trace.failures == ["ReplyEmpty", "QuotaExhausted", "UpstreamOverloaded"]


async def test_what_had_come_of_the_last_try_is_known() -> None:
    upstream = scripted([errors.ReplyEmpty("nothing")], [[START], [TextDelta("Hell")], errors.ReplyCut()])
    trace = Trace("req_1")
    chat = gateway(upstream, Desk("a", "b"))
    with pytest.raises(errors.ReplyCut):
        await ask(chat, question(), trace)
    assert trace.unfinished_bytes == 4
    assert chat.follows_sessions


async def test_zero_retries_is_one_try() -> None:
    upstream = scripted([errors.ReplyCut()], GOOD)
    with pytest.raises(errors.ReplyCut):
        await ask(gateway(upstream, Desk("a"), retry_count=0), question())
    assert len(upstream.requests) == 1


async def test_a_rejected_token_is_renewed_once_and_the_same_account_tried_again() -> None:
    upstream, desk = scripted([errors.CredentialRejected()], GOOD), Desk("a", "b")
    await ask(gateway(upstream, desk), question())
    assert (desk.renewed, upstream.accounts) == (["a"], ["a", "a"])
    assert desk.outcomes == [("a", OutcomeKind.CREDENTIAL_REJECTED), ("a", OutcomeKind.SUCCEEDED)]


async def test_a_token_rejected_twice_goes_to_another_account() -> None:
    rejected = [errors.CredentialRejected()]
    upstream, desk = scripted(rejected, rejected, GOOD), Desk("a", "b")
    await ask(gateway(upstream, desk, retry_count=2), question())
    assert (desk.renewed, upstream.accounts) == (["a"], ["a", "a", "b"])


async def test_a_sign_in_that_fails_goes_to_another_account() -> None:
    refused = errors.SignInRefused(errors.SignInReason.WRONG_PASSWORD)
    upstream, desk, trace = scripted([errors.CredentialRejected()], GOOD), Desk("a", "b", renewal=refused), Trace("r")
    await ask(gateway(upstream, desk), question(), trace)
    assert upstream.accounts == ["a", "b"]
    assert trace.failures == ["CredentialRejected", "SignInRefused"]


async def test_a_second_challenge_ends_the_request_whatever_tries_are_left() -> None:
    challenged = [errors.UpstreamChallenged("json")]
    upstream = scripted(challenged, challenged, GOOD)
    with pytest.raises(errors.UpstreamChallenged):
        await ask(gateway(upstream, Desk("a@x", "b@y", "c@z"), retry_count=9), question())
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("failure", "seconds"),
    [
        (errors.QuotaExhausted(6 * 3600), 6 * 3600),
        (errors.QuotaExhausted(), 15 * 60),
        (errors.UpstreamChallenged("html"), 60),
        (errors.ReplyCut(), None),
    ],
)
async def test_the_last_failure_says_when_to_come_again_where_that_is_known(
    failure: errors.ProxyError, seconds: float | None
) -> None:
    with pytest.raises(errors.ProxyError) as told:
        await ask(gateway(scripted([failure]), Desk("a"), retry_count=0), question())
    assert told.value.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("desk", "told", "seconds"),
    [
        (Desk("a", "b", "c"), errors.QuotaElsewhere, 1),  # c is free
        (Desk("a", "b", empty=errors.AccountsBusy("all busy")), errors.QuotaElsewhere, 1),
        (Desk("a", "b", empty=errors.AccountsOutOfQuota("all out", 7200)), errors.AccountsOutOfQuota, 7200),
        (Desk("a", "b", empty=errors.NoAccountUsable("the others can't sign in")), errors.QuotaExhausted, 3600),
        (Desk("a", "b"), errors.QuotaExhausted, 3600),  # the pool would give a tried one again
    ],
)
async def test_tries_spent_on_quota_tell_how_long_to_wait_only_when_nobody_else_is_free(
    desk: Desk, told: type[errors.ProxyError], seconds: float
) -> None:
    with pytest.raises(told) as caught:
        await ask(gateway(scripted([errors.QuotaExhausted(3600)]), desk), question())
    assert caught.value.retry_after_seconds == seconds
    assert desk.held == 0


async def test_without_an_account_the_pools_reason_is_told() -> None:
    with pytest.raises(errors.NoAccountUsable):
        await ask(gateway(scripted(GOOD), Desk(), retry_count=3), question())


async def test_the_pause_before_another_try_doubles() -> None:
    clock = FakeClock()
    cut: Script = [errors.ReplyCut()]
    chat = gateway(scripted(cut, cut, GOOD), Desk("a"), clock, retry_count=2, backoff=0.4)
    asking = asyncio.ensure_future(ask(chat, question()))  # noqa: TID251
    await clock.advance(0.39)
    assert clock.sleepers == 1
    await clock.advance(0.02)
    await clock.advance(0.78)
    assert not asking.done()
    await clock.advance(0.02)
    assert (await asking)[-1] == [USAGE, STOP]


async def test_an_upstream_that_ends_without_a_finish_is_a_failure() -> None:
    with pytest.raises(errors.ReplyCut):
        await ask(gateway(scripted([[START], []]), Desk("a"), retry_count=0), question())


async def test_usage_is_counted_here_when_the_upstream_gives_none() -> None:
    reply: Script = [[START, ReasoningDelta("let me see")], [TextDelta("one two three")], [STOP]]
    trace = Trace("req_1")
    batches = await ask(gateway(scripted(reply), Desk("a")), question("four words are here"), trace)
    assert batches[-1] == [trace.usage, STOP]
    assert trace.usage is not None
    assert trace.usage.origin is UsageOrigin.COUNTED
    assert (trace.usage.completion_tokens, trace.usage.reasoning_tokens) == (6, 3)
    assert trace.usage.prompt_tokens >= 4


async def test_a_stop_sequence_ends_the_reply_and_the_upstream() -> None:
    upstream, desk = scripted([[START, TextDelta("one STOP two")], [TextDelta("three")], [USAGE, STOP]]), Desk("a")
    batches = await ask(gateway(upstream, desk), question(sampling=Sampling(stop=("STOP",))))
    assert batches[0] == [START, TextDelta("one ")]
    assert batches[-1][-1] == Finish(FinishReason.STOP, "STOP")
    assert desk.outcomes == [("a", OutcomeKind.SUCCEEDED)]
    assert upstream.open_now == 0


async def test_a_reply_that_a_stop_sequence_leaves_empty_is_no_failure() -> None:
    batches = await ask(
        gateway(scripted([[START, TextDelta("STOP")]]), Desk("a")), question(sampling=Sampling(stop=("STOP",)))
    )
    assert [type(event) for event in batches[-1]] == [ReplyStart, Usage, Finish]


async def test_long_texts_are_counted_all_the_same() -> None:
    words = "word " * (COUNT_IN_THREAD_CHARS // 4)
    trace = Trace("req_1")
    await ask(gateway(scripted([[START, TextDelta(words)], [STOP]]), Desk("a")), question(words), trace)
    assert trace.usage is not None
    assert trace.usage.completion_tokens == len(words.split())


async def test_leaving_closes_the_upstream_and_returns_the_lease_as_cancelled() -> None:
    upstream, desk = scripted(GOOD), Desk("a")
    chat = gateway(upstream, desk)
    request, resolved = await chat.resolve(question())
    async with chat.open(request, resolved, Trace("req_1")) as reply:
        await anext(reply)
        assert (desk.held, upstream.open_now) == (1, 1)
    assert (desk.held, upstream.open_now) == (0, 0)
    assert desk.outcomes == [("a", OutcomeKind.CANCELLED)]


async def test_leaving_behind_the_finish_still_counts_as_a_success() -> None:
    desk = Desk("a")
    chat = gateway(scripted(GOOD), desk)
    request, resolved = await chat.resolve(question())
    async with chat.open(request, resolved, Trace("req_1")) as reply:
        async for batch in reply:
            if isinstance(batch[-1], Finish):
                break
    assert desk.outcomes == [("a", OutcomeKind.SUCCEEDED)]


@pytest.mark.parametrize(
    ("model", "parts", "param"),
    [
        ("Qwen3.7-Plus-image", (TextPart("x"),), "model"),
    ],
)
async def test_what_can_not_be_honoured_is_refused_by_name(model: str, parts: tuple[Part, ...], param: str) -> None:
    request = ChatRequest(model=ModelName(model), messages=(Message(Role.USER, parts),))
    with pytest.raises(errors.UnsupportedParameter) as caught:
        await gateway(scripted(GOOD), Desk("a")).resolve(request)
    assert caught.value.param == param


async def test_a_search_that_the_client_wants_besides_the_name_is_made_by_every_model_that_can() -> None:
    chat = gateway(ScriptedUpstream(GOOD, models=[structs.replace(MODEL, searches=True)]), Desk("a"))
    wish = ModelName(MODEL.id, Variant(search=True))
    request = ChatRequest(model=wish, messages=(Message(Role.USER, (TextPart("x"),)),))
    asked, route = await chat.resolve(request)
    assert asked.model == route.targets[0].name == wish
    assert chat.warnings(asked, route, wished=request) == []
    other = gateway(scripted(GOOD), Desk("a"))
    plain, route = await other.resolve(request)
    assert plain.model.variant == PLAIN
    assert other.warnings(plain, route, wished=request) == ["this model searches nothing"]


async def test_a_field_that_an_upstream_is_handed_is_not_without_effect() -> None:
    class Forwarding(ScriptedUpstream):
        forwards_fields = True

    request = structs.replace(question(), extra={"speed": Raw(b"1")})
    for upstream, left in (
        (Forwarding(GOOD, models=[MODEL]), ["user"]),
        (scripted(GOOD), ["topK", "options.seed", "speed", "user"]),
    ):
        chat = gateway(upstream, Desk("a"))
        asked, route = await chat.resolve(request)
        assert chat.without_effect(("topK", "options.seed", "speed", "user"), asked, route) == left


async def test_a_prompt_is_counted_without_asking_for_its_reply() -> None:
    upstream = scripted(GOOD)
    chat = gateway(upstream, Desk("a"))
    shorter, longer = await chat.count_prompt(question("hi")), await chat.count_prompt(question("hi there you"))
    assert (longer - shorter, upstream.requests) == (2, [])


async def test_what_an_upstream_makes_of_a_failure_as_it_closes_is_what_counts() -> None:
    class Naming(ScriptedUpstream):
        """Says only as its block ends what went wrong."""

        @asynccontextmanager
        async def open(
            self, request: ChatRequest, model: Model, credential: Credential, deadline: float
        ) -> AsyncGenerator[AsyncGenerator[Batch]]:
            async with super().open(request, model, credential, deadline) as reads:
                try:
                    yield reads
                except errors.ReplyCut as cut:
                    raise errors.QuotaExhausted from cut

    upstream, desk, trace = Naming([[START], errors.ReplyCut()], GOOD, models=[MODEL]), Desk("a", "b"), Trace("req_1")
    assert (await ask(gateway(upstream, desk), question(), trace))[-1] == [USAGE, STOP]
    assert desk.outcomes == [("a", OutcomeKind.OUT_OF_QUOTA), ("b", OutcomeKind.SUCCEEDED)]
    assert (trace.failures, upstream.open_now, desk.held) == (["QuotaExhausted"], 0, 0)


async def test_who_sends_an_image_in_a_result_is_warned_where_it_is_not_shown() -> None:
    def asking(part: TextPart | ImagePart) -> ChatRequest:
        said = Message(Role.USER, (TextPart("x"), ToolResultPart("c1", (part,))))
        return ChatRequest(model=ModelName(MODEL.id), messages=(said,))

    async def warned(kind: BackendKind, part: TextPart | ImagePart) -> bool:
        chat = gateway(scripted(GOOD), Desk("a"), kind=kind)
        return bool(chat.warnings(*await chat.resolve(asking(part)), wished=asking(part)))

    image = ImagePart("data:image/png;base64,iVBO")
    assert await warned(BackendKind.WEB, image)
    assert not await warned(BackendKind.WEB, TextPart("ok"))
    assert not await warned(BackendKind.API, image)


@pytest.mark.parametrize(
    ("parts", "is_cut"),
    [
        ((TextPart("x" * 10),), False),
        ((TextPart("x" * 11),), True),
        ((TextPart("ä" * 5),), False),
        ((TextPart("ä" * 6),), True),
        ((TextPart("x" * 6), ImagePart("data:,"), TextPart("x" * 6)), True),
    ],
)
async def test_who_sends_a_result_that_is_cut_is_warned(parts: tuple[TextPart | ImagePart, ...], is_cut: bool) -> None:
    request = ChatRequest(
        model=ModelName(MODEL.id), messages=(Message(Role.USER, (TextPart("x" * 99), ToolResultPart("c1", parts))),)
    )
    chat = gateway(scripted(GOOD), Desk("a"), result_bytes=10)
    told = chat.warnings(*await chat.resolve(request), wished=request)
    assert any("longer than 10 bytes" in warning for warning in told) is is_cut


async def test_tools_that_may_not_be_called_do_no_harm() -> None:
    request = ChatRequest(
        model=ModelName("Qwen3.7-Plus"),
        messages=(Message(Role.USER, (TextPart("x"),)),),
        tools=(Tool("f"),),
        tool_choice=ToolChoice(ToolChoiceKind.NONE),
    )
    assert (await ask(gateway(scripted(GOOD), Desk("a")), request))[-1] == [USAGE, STOP]


async def test_what_the_upstream_can_not_be_asked_takes_no_account() -> None:
    upstream, desk = ScriptedUpstream(GOOD, models=[MODEL], refusal=errors.PromptTooLong(200, 100, "bytes")), Desk("a")
    with pytest.raises(errors.PromptTooLong):
        await ask(gateway(upstream, desk), question())
    assert desk.outcomes == []


async def test_a_request_keeps_the_options_it_began_with() -> None:
    failing: Script = [errors.UpstreamUnavailable("HTTP 503")]
    upstream, desk = (
        scripted(failing, GOOD, [[START], [ReasoningDelta("hm")], [TextDelta("x"), USAGE, STOP]]),
        Desk("a"),
    )
    chat = gateway(upstream, desk)
    request, resolved = await chat.resolve(question())
    async with chat.open(request, resolved, Trace("req_1")) as reply:
        async for _ in reply:
            chat.options = structs.replace(chat.options, retry_count=0)
    hidden = structs.replace(chat.options.delivery, show_reasoning=False)
    chat.options = structs.replace(chat.options, delivery=hidden)
    batches = await ask(chat, question())
    assert not any(isinstance(event, ReasoningDelta) for batch in batches for event in batch)


async def test_an_upstream_that_counts_itself_is_not_cut_here() -> None:
    upstream = scripted(GOOD)
    upstream.forwards_fields = True
    batches = await ask(gateway(upstream, Desk("a")), question(sampling=Sampling(max_tokens=1, stop=("lo",))))
    told = [event for batch in batches for event in batch]
    assert "".join(event.text for event in told if isinstance(event, TextDelta)) == "Hel"  # the stop alone is ours
    assert told[-1] == Finish(FinishReason.STOP, "lo")
    batches = await ask(gateway(upstream, Desk("a")), question(sampling=Sampling(max_tokens=1, logprobs=True)))
    assert "".join(event.text for batch in batches for event in batch if isinstance(event, TextDelta)) == "Hello"


async def test_a_judged_reply_that_ends_without_finish_is_no_success() -> None:
    upstream = scripted([[START]], [[START]])
    upstream.has_native_tools = True
    request = structs.replace(question(), tools=(Tool("look"),))
    with pytest.raises(errors.ReplyCut):
        await ask(gateway(upstream, Desk("a")), request)
