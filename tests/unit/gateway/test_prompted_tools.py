"""Tools for an upstream without: what it is asked, what is read out of what it says, and what is asked again."""

from itertools import pairwise

import pytest
from msgspec import structs

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    FinishReason,
    ReasoningDelta,
    ReplyStart,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
    merged,
)
from qwen_proxy.chat.grammar import Grammar
from qwen_proxy.chat.models import Model, ModelName
from qwen_proxy.chat.request import (
    ChatRequest,
    Message,
    OutputFormat,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceKind,
    text_of,
)
from qwen_proxy.config.choices import SearchInfo
from qwen_proxy.gateway.backend import WEB, Backend, BackendKind
from qwen_proxy.gateway.catalogue import CatalogueSource
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.gateway.delivery import Delivery
from qwen_proxy.gateway.prompted_tools import MAX_COMPILED, PromptedTools, ToolOptions, ToolReply
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Naming
from qwen_proxy.gateway.run import GatewayOptions
from qwen_proxy.gateway.structured import StructuredOutput
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.gateway.verdict import ReplyHeld
from qwen_proxy.ground.errors import PromptTooLong, ReplyCut, ReplyEmpty, ReplyUnfit, UnsupportedParameter
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.toolcalls.conversation import tell
from tests.support.clock import FakeClock
from tests.support.counting import WordCounter
from tests.support.scripted import Desk, Script, ScriptedUpstream

MODEL = Model(id="m", display_name="M", thinks=True)
START, STOP = ReplyStart("r"), Finish(FinishReason.STOP)
USAGE = Usage(prompt_tokens=7, completion_tokens=2)
READ = Tool("Read", "Reads.", {"properties": {"path": {"type": "string"}}, "required": ["path"]})
WRITE = Tool("Write", "Writes.", {"properties": {"path": {"type": "string"}}})
USER = Message(Role.USER, (TextPart("go"),))
ASKED = ChatRequest(model=ModelName("M"), messages=(USER,), tools=(READ, WRITE))
REQUIRED = structs.replace(ASKED, tool_choice=ToolChoice(ToolChoiceKind.REQUIRED))
ONE = structs.replace(ASKED, parallel_tool_calls=False)
NONCE = tell(ASKED).nonce


def call(path: str = "a", name: str = "Read", key: str = "path") -> str:
    return f"[[call {NONCE} {name}]]\n[[arg {NONCE} {key}]]\n{path}\n[[end {NONCE}]]\n"


def said(*events: ChatEvent | str, end: Finish = STOP) -> Script:
    """A whole reply, an event a read."""
    told: list[ChatEvent] = [TextDelta(event) if isinstance(event, str) else event for event in events]
    return [[START], *([event] for event in told), [USAGE, end]]


class Gateway:
    """A gateway over one scripted upstream, with tools and formats of output by prompt."""

    def __init__(self, *scripts: Script, accounts: str = "a b c", ask_again: int = 2, streams: bool = False) -> None:
        self.upstream = ScriptedUpstream(*scripts, models=[MODEL])
        self.desk = Desk(*accounts.split())
        self.tools = PromptedTools(self.upstream, SystemIds(), ToolOptions())
        clock = FakeClock()

        async def fetch() -> list[Model]:
            return await self.tools.models(None, 0)

        backend = Backend(
            name=WEB,
            kind=BackendKind.WEB,
            upstream=StructuredOutput(self.tools, streams=streams),
            leasing=self.desk,
            catalogue=CatalogueSource(fetch, clock=clock, ttl_seconds=0),
        )
        self.gateway = ChatGateway(
            Router(lambda: (backend,), Naming()),
            clock=clock,
            ids=SystemIds(),
            tokens=WordCounter(),
            options=GatewayOptions(
                retry_backoff_seconds=0, ask_again_count=ask_again, delivery=Delivery(search_info=SearchInfo.NONE)
            ),
        )

    async def ask(self, request: ChatRequest = ASKED, *, in_one: bool = False) -> tuple[Batch, Trace]:
        """What comes out, up to an error; the error is in the trace's failures then."""
        trace, events = Trace("req"), list[ChatEvent]()
        asked, route = await self.gateway.resolve(request)
        grammar = Grammar()
        async with self.gateway.open(asked, route, trace, in_one=in_one) as batches:
            try:
                async for batch in batches:
                    grammar.feed(batch)
                    events += batch
                grammar.finish()
            except (ReplyUnfit, ReplyEmpty, ReplyCut):
                return merged(events), trace
        assert self.upstream.open_now == 0
        return merged(events), trace

    async def both(self, request: ChatRequest = ASKED) -> tuple[Batch, Trace]:
        """The same asked twice, once as for a stream and once whole: the ways have to be equal."""
        one, one_trace = await self.ask(request)
        again = Gateway(*self.upstream.scripts, streams=False)
        other, other_trace = await again.ask(request, in_one=True)
        assert without_ids(one) == without_ids(other)
        for fact in ("tries", "verdicts", "failures", "usage"):
            assert getattr(one_trace, fact) == getattr(other_trace, fact)
        return one, one_trace

    @property
    def hints(self) -> list[str]:
        """The last lines of the prompts that followed the first."""
        return [text_of(request.messages[-1]) for request in self.upstream.requests[1:]]


def without_ids(events: Batch) -> Batch:
    return [ToolCallStart("", event.name) if isinstance(event, ToolCallStart) else event for event in events]


def calls(events: Batch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for event, following in pairwise(events):
        if isinstance(event, ToolCallStart) and isinstance(following, ToolArgumentsDelta):
            found.append((event.name, following.text))
    return found


def text(events: Batch) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_the_upstream_is_asked_without_tools_and_its_text_becomes_calls() -> None:
    gateway = Gateway(said(ReasoningDelta("hm"), "I read.\n", call()[:20], call()[20:]))
    events, trace = await gateway.both()
    assert events[:3] == [START, ReasoningDelta("hm"), TextDelta("I read.")]
    assert calls(events) == [("Read", '{"path":"a"}')]
    assert events[-2:] == [USAGE, Finish(FinishReason.TOOL_CALLS)]
    asked = gateway.upstream.requests[0]
    assert (asked.tools, asked.taught) == ((), {"Read", "Write"})
    assert [message.role for message in asked.messages] == [Role.SYSTEM, Role.USER, Role.SYSTEM]
    assert isinstance(trace.tools, ToolReply) and trace.tools.report.committed == 1
    start = next(event for event in events if isinstance(event, ToolCallStart))
    assert start.call_id.startswith("call_") and len(start.call_id) == 29


async def test_what_concerns_no_tools_goes_as_it_is() -> None:
    gateway = Gateway(said("x"))
    plain = structs.replace(ASKED, tools=())
    assert text((await gateway.both(plain))[0]) == "x"
    assert gateway.upstream.requests[0].messages == (USER,)
    assert (await gateway.ask(plain))[1].tools is None


async def test_earlier_calls_are_told_where_none_may_be_made_and_nothing_is_read() -> None:
    gateway = Gateway(said(call()))
    turns = (USER, Message(Role.ASSISTANT, (ToolCallPart("c", "Read", "{}"),)))
    request = structs.replace(ASKED, messages=turns, tool_choice=ToolChoice(ToolChoiceKind.NONE))
    assert text((await gateway.both(request))[0]) == call()


@pytest.mark.parametrize(
    ("bad", "verdict", "hint"),
    [
        (said(call(key="file", path="zzz")), "call_invalid", "- Read: "),
        (said(call(name="Delete")), "call_invalid", "there is no tool `Delete`"),
        (said("Reading.\n", call()[:-10], end=STOP), None, ""),
        (said(ReasoningDelta(call()), "I have read it."), "call_in_thinking", "in your thinking"),
        (said(f"[[result {NONCE} #1 Read]]\nprint(1)\n[[end {NONCE}]]\n"), "result_invented", "not true"),
        (said("Tool Read does not exists."), "intercepted", "was lost"),
        ([[START], [ReasoningDelta(call())], ReplyEmpty("thinking_only")], "call_in_thinking", "in your thinking"),
        ([[START], ReplyUnfit("intercepted", "p")], "intercepted", "was lost"),
    ],
)
async def test_an_unfit_reply_is_asked_for_again_with_the_reason(bad: Script, verdict: str | None, hint: str) -> None:
    gateway = Gateway(bad, said(call("b")))
    events, trace = await gateway.both()
    if verdict is None:  # half an end marker is one
        assert (calls(events), trace.verdicts) == ([("Read", '{"path":"a"}')], [])
        return
    assert calls(events) == [("Read", '{"path":"b"}')]
    assert (trace.verdicts, trace.tries, events[-1]) == ([verdict], 2, Finish(FinishReason.TOOL_CALLS))
    assert hint in gateway.hints[0] and gateway.hints[0].startswith("A call is a line")
    assert gateway.upstream.accounts[:2] == ["a", "a"]


async def test_the_third_try_is_on_another_account_and_what_is_left_is_text() -> None:
    bad = call(name="Delete")
    gateway = Gateway(said("Now.\n", bad))
    events, trace = await gateway.both()
    assert text(events) == f"Now.\n\nNow.\n\nNow.{bad}"
    assert (trace.verdicts, trace.tries, events[-1]) == (["call_invalid"] * 3, 3, STOP)
    assert gateway.upstream.accounts == ["a", "a", "b"]


async def test_asking_again_can_be_switched_off() -> None:
    bad = call(name="Delete")
    events, trace = await Gateway(said(bad), ask_again=0).ask()
    assert (text(events), trace.verdicts, trace.tries) == (bad, ["call_invalid"], 1)


async def test_a_claim_without_its_call_stays_when_nothing_better_comes() -> None:
    events, trace = await Gateway(said(ReasoningDelta(call()), "Done.")).both()
    assert text(events) == "Done.\n\nDone.\n\nDone." and trace.verdicts == ["call_in_thinking"] * 3


async def test_a_native_call_that_is_invalid_leaves_nothing_but_an_error() -> None:
    native: Script = [[START], [ToolCallStart("n", "Read"), ToolArgumentsDelta('{"x')], [USAGE, STOP]]
    events, trace = await Gateway(native).both()
    assert (events, trace.verdicts) == ([], ["call_invalid"] * 3)
    assert trace.failures == ["ReplyUnfit"] * 3


async def test_calls_that_come_as_events_are_calls() -> None:
    native: Script = [
        [START, TextDelta("Hm.")],
        [ToolCallStart("n", "Read"), ToolArgumentsDelta('{"path":'), ToolArgumentsDelta('"a"}'), TextDelta("Sorry.")],
        [USAGE, STOP],
    ]
    events, _ = await Gateway(native).both()
    assert (text(events), calls(events)) == ("Hm.", [("Read", '{"path":"a"}')])
    assert events[-1] == Finish(FinishReason.TOOL_CALLS)


async def test_calls_before_the_site_took_one_are_made() -> None:
    script: Script = [[START, TextDelta(call())], ReplyUnfit("intercepted", "p")]
    events, trace = await Gateway(script).both()
    assert (calls(events), trace.verdicts) == ([("Read", '{"path":"a"}')], [])
    assert events[-1] == Finish(FinishReason.TOOL_CALLS)


async def test_blanks_before_an_empty_end_are_nothing_and_held_text_before_a_failed_one_is_some() -> None:
    events, trace = await Gateway([[START], [TextDelta("\n")], ReplyEmpty("nothing")]).both()
    assert (events, trace.failures) == ([], ["ReplyEmpty", "ReplyEmpty"])
    events, trace = await Gateway([[START], [TextDelta("[[ca")], ReplyUnfit("intercepted", "p")], said("x")).both()
    assert (text(events), trace.verdicts) == ("[[ca\n\nx", ["intercepted"])


async def test_a_demanded_call_is_waited_for_and_text_is_withheld_until_then() -> None:
    gateway = Gateway(said("I would rather talk."), said("Well.\n", call()))
    events, trace = await gateway.both(REQUIRED)
    assert (text(events), calls(events)) == ("Well.", [("Read", '{"path":"a"}')])
    assert trace.verdicts == ["required_call_missing"] and "this reply has to" in gateway.hints[0]


async def test_a_demanded_call_that_does_not_come_is_an_error_after_two_tries() -> None:
    for script in (said("I would rather talk."), said(call(name="Delete"))):
        gateway = Gateway(script)
        events, trace = await gateway.both(REQUIRED)
        assert text(events) == "" and trace.failures[-1] == "ReplyUnfit"
    assert (await Gateway(said("No.")).both(REQUIRED))[1].tries == 2


async def test_a_named_function_is_the_only_one_that_is_offered() -> None:
    named = structs.replace(ASKED, tool_choice=ToolChoice(ToolChoiceKind.REQUIRED, ("Write",)))
    gateway = Gateway(said(call()), said(call(name="Write")))
    events, _ = await gateway.both(named)
    assert calls(events) == [("Write", '{"path":"a"}')]
    assert "## Read" not in text_of(gateway.upstream.requests[0].messages[0])


async def test_of_several_calls_one_is_made_where_one_is_the_most() -> None:
    gateway = Gateway([[START], [TextDelta(call() + call("b"))], [TextDelta("never read")]])
    events, trace = await gateway.both(ONE)
    assert calls(events) == [("Read", '{"path":"a"}')]
    assert events[-1] == Finish(FinishReason.TOOL_CALLS)
    assert trace.usage is not None and trace.usage.completion_tokens > 0


async def test_a_runaway_is_cut() -> None:
    events, trace = await Gateway([[START], *([TextDelta(call(str(n)))] for n in range(100))]).both()
    assert len(calls(events)) == 24 and trace.tools is not None and trace.tools.report.runaway
    assert events[-1] == Finish(FinishReason.TOOL_CALLS)


async def test_a_call_that_is_cut_behind_its_commitment_is_told_as_length() -> None:
    whole = call("x" * 20_000)
    events, _ = await Gateway(said(whole[:15_000])).both()
    assert events[-1] == Finish(FinishReason.LENGTH)
    assert calls(events)[0][1].startswith('{"path":"xxx') and not calls(events)[0][1].endswith("}")


async def test_other_ends_keep_their_reason() -> None:
    for reason in (FinishReason.LENGTH, FinishReason.CONTENT_FILTER):
        events, trace = await Gateway(said("x", end=Finish(reason))).both(
            REQUIRED if reason == "content_filter" else ASKED
        )
        assert (events[-1], trace.verdicts) == (Finish(reason), [])


async def test_thinking_that_went_out_does_not_keep_from_another_try() -> None:
    broken: Script = [[START], [ReasoningDelta("one")], ReplyCut()]
    events, trace = await Gateway(broken, said(ReasoningDelta("two"), call())).both()
    assert events[:2] == [START, ReasoningDelta("one\n\ntwo")] and calls(events)
    assert trace.failures == ["ReplyCut"]


async def test_text_that_went_out_does() -> None:
    events, trace = await Gateway([[START], [TextDelta("one")], ReplyCut()], said(call())).both()
    assert (text(events), trace.failures, trace.tries) == ("one", ["ReplyCut"], 1)


async def test_thinking_alone_is_told_to_the_model() -> None:
    gateway = Gateway([[START], [ReasoningDelta("one")], ReplyEmpty("thinking_only")], said("Yes."))
    assert text((await gateway.both())[0]) == "Yes."
    assert gateway.hints[0].endswith("Think briefly, then write the reply itself.")


async def test_what_the_upstream_would_refuse_is_refused_with_the_tools_in_it() -> None:
    gateway = Gateway(said("x"))
    gateway.upstream.refusal = PromptTooLong(200, 100, "bytes")
    with pytest.raises(PromptTooLong):
        await gateway.ask()
    many = structs.replace(ASKED, tools=tuple(Tool(f"t{i}", "x" * 200) for i in range(1000)))
    with pytest.raises(UnsupportedParameter, match="1000 tools take"):
        await gateway.ask(many)


async def test_lists_of_tools_are_remembered_up_to_a_bound() -> None:
    tools = PromptedTools(ScriptedUpstream(said("x")), SystemIds())
    for number in [*range(MAX_COMPILED + 1), 1]:
        tools.check(structs.replace(ASKED, tools=(Tool(f"t{number}"),)))
    assert len(tools._compiled) == MAX_COMPILED  # pyright: ignore[reportPrivateUsage]  # what it costs is all it shows
    assert (tools.name, tools.has_native_tools, tools.has_native_output, tools.forwards_fields) == (
        "scripted", True, False, False,
    )  # fmt: skip


async def read_alone(script: Script, request: ChatRequest = ASKED) -> list[Batch]:
    """Every batch of the upstream alone, to its very end."""
    whole = StructuredOutput(PromptedTools(ScriptedUpstream(script), SystemIds()))
    credential = Desk("a").credentials[0]
    async with whole.open(request, MODEL, credential, 0) as reads:
        return [batch async for batch in reads]


async def test_the_upstream_alone_ends_where_its_reply_does() -> None:
    whole: Script = [[START, TextDelta("x\n"), TextDelta(call()), USAGE, STOP], [TextDelta("behind")]]
    (only,) = await read_alone(whole)
    assert (text(only), len(calls(only)), only[-1]) == ("x", 1, Finish(FinishReason.TOOL_CALLS))
    taken: Script = [[START], [TextDelta(call())], ReplyUnfit("intercepted", "p")]
    assert [calls(batch) for batch in await read_alone(taken)][-2:] == [[("Read", '{"path":"a"}')], []]
    for request in (ASKED, JSON):
        assert await read_alone([[START], []], request) == [[START]]  # no Finish: the gateway calls that cut


async def test_what_is_said_in_the_same_read_as_an_unfit_end_comes_before_it() -> None:
    script: Script = [[START, TextDelta(f"Now.\n{call(name='Delete')}"), USAGE, STOP]]
    with pytest.raises(ReplyHeld) as held:
        await read_alone(script)
    assert held.value.rest == [TextDelta(call(name="Delete")), USAGE, STOP]


# --- structured output

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
JSON = ChatRequest(model=ModelName("M"), messages=(USER,), output=OutputFormat(schema=SCHEMA))


async def test_json_that_was_demanded_comes_bare() -> None:
    gateway = Gateway(said(ReasoningDelta("hm"), "Here:\n```json\n", '{"a": 1}', "\n```\nBye."))
    events, trace = await gateway.both(JSON)
    assert events == [START, ReasoningDelta("hm"), TextDelta('{"a": 1}'), USAGE, STOP]
    assert (trace.verdicts, trace.tools) == ([], None)
    asked = gateway.upstream.requests[0]
    assert asked.output is None and '"required": ["a"]' in text_of(asked.messages[-1])


async def test_json_that_is_wrong_is_asked_for_once_more_with_the_errors() -> None:
    gateway = Gateway(said('{"a": "x"}'), said('{"a": 2}'))
    events, trace = await gateway.both(JSON)
    assert (text(events), trace.verdicts, trace.tries) == ('{"a": 2}', ["output_invalid"], 2)
    assert 'a: "x" is not of type "integer"' in gateway.hints[0]


async def test_json_that_stays_wrong_is_an_error() -> None:
    events, trace = await Gateway(said('{"a": "x"}')).both(JSON)
    assert (text(events), trace.failures) == ("", ["ReplyUnfit", "ReplyUnfit"])


async def test_json_that_was_cut_off_is_told_as_such() -> None:
    events, _ = await Gateway(said('{"a": ', end=Finish(FinishReason.LENGTH))).both(JSON)
    assert (text(events), events[-1]) == ('{"a": ', Finish(FinishReason.LENGTH))
    silent: Script = [[START], [Finish(FinishReason.LENGTH)]]
    assert text((await Gateway(silent).both(JSON))[0]) == ""


async def test_an_answer_that_is_to_be_continued_stays_the_last() -> None:
    gateway = Gateway(said('{"a": 1}'))
    await gateway.ask(structs.replace(JSON, messages=(USER, Message(Role.ASSISTANT, (TextPart("{"),)))))
    assert [m.role for m in gateway.upstream.requests[0].messages] == [Role.USER, Role.SYSTEM, Role.ASSISTANT]


async def test_with_tools_a_call_is_as_good_as_json() -> None:
    both = structs.replace(ASKED, output=JSON.output)
    events, _ = await Gateway(said("Let me see.\n", call())).both(both)
    assert (text(events), calls(events)) == ("Let me see.", [("Read", '{"path":"a"}')])
    events, _ = await Gateway(said('{"a": 1}')).both(both)
    assert text(events) == '{"a": 1}'


async def test_streamed_json_goes_out_as_it_comes() -> None:
    gateway = Gateway(said("```json\n", '{"a"', ": 1}", "\n```"), streams=True)
    asked, route = await gateway.gateway.resolve(JSON)
    async with gateway.gateway.open(asked, route, Trace("req")) as batches:
        told = [batch async for batch in batches]
    assert [text(batch) for batch in told] == ['{"a"', ": 1}", ""]


async def test_streamed_text_before_a_call_is_let_go() -> None:
    both = structs.replace(ASKED, output=JSON.output)
    events, _ = await Gateway(said("Let me see.\n", call()), streams=True).ask(both)
    assert (text(events), len(calls(events))) == ("", 1)


async def test_streamed_json_that_turns_out_wrong_is_an_error() -> None:
    for wrong in ('{"a": "x"}', "{'a': 1}", '{"a": 1'):
        events, trace = await Gateway(said(wrong), said('{"a": 1}'), streams=True).ask(JSON)
        assert trace.failures == ["ReplyUnfit"] and not any(isinstance(event, Finish) for event in events)
        assert (text(events), trace.tries) == (wrong, 1)
    events, trace = await Gateway(said("I can't."), said('{"a": 1}'), streams=True).ask(JSON)
    assert (text(events), trace.tries) == ('{"a": 1}', 2)  # nothing had gone out
    cut, trace = await Gateway(said('{"a": ', end=Finish(FinishReason.LENGTH)), streams=True).ask(JSON)
    assert (text(cut), trace.failures) == ('{"a": ', [])


async def test_an_upstream_with_formats_of_its_own_keeps_its_name() -> None:
    output = StructuredOutput(ScriptedUpstream(said("x")))
    assert await output.models(None, 0) == []
    assert (output.name, output.has_native_tools, output.has_native_output, output.forwards_fields) == (
        "scripted", False, True, False,
    )  # fmt: skip
