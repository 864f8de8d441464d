"""What every client protocol must do, over every recorded reply and many invented ones."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

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
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
)
from qwen_proxy.chat.grammar import Grammar
from qwen_proxy.chat.request import text_of
from qwen_proxy.chat.result import Folder
from qwen_proxy.ground.errors import AccountsOutOfQuota, ClientError, ProxyError, QuotaExhausted, ReplyCut
from qwen_proxy.protocols.base import Call, Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.table import PROTOCOLS, ProtocolRoute
from tests.conformance.errors import EXAMPLES, classes
from tests.conformance.readers import READERS, Read
from tests.recordings.decoding import Recording, openai_recordings, recordings

FACTS = ReplyFacts(reply_id="r1", request_id="req_1", created_at=1_800_000_000, model="qwen3.7-plus", prompt_tokens=3)
USAGE = Usage(prompt_tokens=3, completion_tokens=7, reasoning_tokens=2)

each_protocol = pytest.mark.parametrize("route", PROTOCOLS, ids=[route.name for route in PROTOCOLS])
each_recording = pytest.mark.parametrize("recording", recordings(), ids=lambda recording: recording.name)


def parse(route: ProtocolRoute, body: bytes) -> Call:
    incoming = Incoming(path=route.path, query={}, headers={}, body=body, variables={"model": "qwen3.7-plus"})
    return route.protocol.parse(incoming, ParseOptions())


def with_usage(events: Batch) -> Batch:
    """What the gateway makes sure of: there is one Usage, before the Finish."""
    return [event for event in events if not isinstance(event, Usage | Finish)] + [USAGE, events[-1]]


def streamed(route: ProtocolRoute, batches: list[Batch], heartbeat: bytes = b"") -> Read:
    call = parse(route, READERS[route.name].body(True))
    encoder = call.encoder(FACTS, 0)
    pieces = [encoder.start(), *(encoder.encode(batch) for batch in batches), call.trailer(FACTS, USAGE)]
    writes = [piece for piece in pieces if piece]
    return READERS[route.name].stream(heartbeat + heartbeat.join(writes) if heartbeat else b"".join(writes))


def folded(route: ProtocolRoute, events: Batch) -> Read:
    folder = Folder()
    folder.feed(events)
    call = parse(route, READERS[route.name].body(False))
    return READERS[route.name].result(call.result(FACTS, [folder.result()]))


def test_every_protocol_has_a_reader_here() -> None:
    assert {route.name for route in PROTOCOLS} == set(READERS)


@each_protocol
def test_its_own_request_is_parsed_as_it_was_meant(route: ProtocolRoute) -> None:
    for wish in READERS[route.name].wishes:
        call = parse(route, READERS[route.name].body(wish))
        assert call.stream is wish
        assert (call.choices, call.ignored_fields) == (1, ())


@each_protocol
@each_recording
def test_a_recorded_reply_reads_the_same_streamed_and_folded(route: ProtocolRoute, recording: Recording) -> None:
    expected = recording.decode([recording.body])
    events = expected.events
    grammar = Grammar()
    grammar.feed(events)
    if expected.error is not None:
        call = parse(route, READERS[route.name].body(True))
        encoder = call.encoder(FACTS, 0)
        read = READERS[route.name].stream(encoder.start() + encoder.encode(events) + encoder.fail(ReplyCut()))
        assert read.error and not read.ended
        return
    grammar.finish()
    events = with_usage(events)
    read = streamed(route, [events])
    assert read == folded(route, events)
    assert read.ended and read.completion_tokens == 7
    assert streamed(route, [[event] for event in events]) == read


@each_protocol
def test_half_a_character_anywhere_in_a_body_stands_in_nobodys_way(route: ProtocolRoute) -> None:
    """JavaScript clients that cut a text between two of its units leave one: strictly, that is no JSON."""
    for wish in READERS[route.name].wishes:
        body = READERS[route.name].body(wish)
        assert body.count(b"hello") == 1
        half = body.replace(b"hello", rb"hello \ud83d").replace(b"{", rb'{"x_half":"\uDE00",', 1)
        call = parse(route, half)
        (message,) = call.request.messages
        assert text_of(message) == "hello \N{REPLACEMENT CHARACTER}"
        assert call.ignored_fields[0] in ("x_half", "xHalf")


@each_protocol
def test_log_probabilities_are_told_by_every_protocol_that_has_them(route: ProtocolRoute) -> None:
    (recording,) = (each for each in openai_recordings() if each.name == "llamacpp_logprobs")
    events = with_usage(recording.decode([recording.body]).events)
    read = streamed(route, [[event] for event in events])
    told = [token for token, _ in read.logprobs]
    assert told == ([] if route.name == "anthropic_messages" else ["<", "|", "im", "_"])
    assert read == folded(route, events)


def known(text: str) -> TextDelta:
    """A text with the log probabilities of its tokens, which are its characters."""
    return TextDelta(text, Raw(msgspec.json.encode([{"token": each, "logprob": -0.5} for each in text])))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PARTS = st.one_of(
    st.builds(TextDelta, TEXT),
    st.builds(known, TEXT),
    st.builds(ReasoningDelta, TEXT),
    st.tuples(st.builds(ToolCallStart, st.just("call_1"), st.just("read")), st.builds(ToolArgumentsDelta, TEXT)),
    st.builds(MediaOutput, st.sampled_from(MediaKind), st.just("https://cdn.qwen.ai/a b).png")),
    st.builds(SourcesFound, st.tuples(st.builds(Source, st.just("https://x.example/"), title=TEXT))),
)


@st.composite
def replies(draw: st.DrawFn) -> Batch:
    events: Batch = [ReplyStart("u1")]
    for part in draw(st.lists(PARTS, max_size=8)):
        events += part if isinstance(part, tuple) else [part]
    return [*events, USAGE, Finish(draw(st.sampled_from(FinishReason)))]


def cut(events: Batch, at: list[int]) -> list[Batch]:
    places = sorted({place % (len(events) + 1) for place in at})
    return [events[start:end] for start, end in zip([0, *places], [*places, len(events)], strict=True)]


@each_protocol
@given(events=replies(), at=st.lists(st.integers(0, 30), max_size=5))
def test_any_legal_reply_reads_the_same_streamed_and_folded(route: ProtocolRoute, events: Batch, at: list[int]) -> None:
    grammar = Grammar()
    grammar.feed(events)
    grammar.finish()
    read = streamed(route, cut(events, at))
    assert read == folded(route, events)
    assert streamed(route, cut(events, at), route.protocol.heartbeat) == read


@each_protocol
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_has_a_well_formed_reply_and_a_place_in_a_stream(route: ProtocolRoute, error: ProxyError) -> None:
    reply = route.protocol.error(error, "req_1")
    assert 400 <= reply.status < 600
    assert (reply.status < 500) == (isinstance(error, ClientError | QuotaExhausted | AccountsOutOfQuota))
    sentence, kind = READERS[route.name].error(reply.body)
    assert sentence and kind
    for name, value in reply.headers:
        assert name.isascii() and value.isprintable() and value.isascii()
    call = parse(route, READERS[route.name].body(True))
    encoder = call.encoder(FACTS, 0)
    begun = encoder.start() + encoder.encode([ReplyStart(), TextDelta("so far")])
    read = READERS[route.name].stream(begun + encoder.fail(error))
    assert (read.text, read.error, read.ended) == ("so far", sentence, False)


def test_there_is_an_example_of_every_error() -> None:
    assert {type(error) for error in EXAMPLES} == set(classes())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    "messages", "model", "stream", "stream_options", "max_tokens", "stop", "n", "reasoning_effort", "enable_thinking",
    "thinking_budget", "tools", "tool_choice", "functions", "function_call", "response_format", "modalities", "audio",
    "system", "thinking", "output_config", "stop_sequences", "thread", "metadata", "source", "display",
    "input", "instructions", "previous_response_id", "background", "truncation", "reasoning", "effort", "format",
    "include", "call_id", "arguments", "output", "summary", "encrypted_content", "conversation", "prompt", "schema",
    "mode", "namespace", "role", "content", "type", "text", "image_url", "url", "name", "function", "tool_calls",
    "tool_call_id", "id", "format", "options", "think", "images", "suffix", "raw", "keep_alive", "tool_name",
    "num_predict", "logprobs", "top_logprobs", "responseLogprobs", "best_of", "echo", "contents", "parts",
    "systemInstruction", "system_instruction", "generationConfig", "thinkingConfig", "toolConfig", "functionCall",
    "functionResponse", "inlineData", "fileData", "functionDeclarations", "responseSchema", "responseMimeType",
    "cachedContent",
]  # fmt: skip
KINDS = [
    "user", "assistant", "tool", "text", "function", "message", "input_text", "reasoning", "function_call",
    "function_call_output", "custom_tool_call", "compaction", "additional_tools", "namespace", "custom", "json_schema",
    "system", "tool_use", "tool_result", "",
]  # fmt: skip
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=20,
)


@each_protocol
@given(body=st.binary(max_size=60) | JSON.map(msgspec.json.encode) | SHAPES.map(msgspec.json.encode))
def test_garbage_is_refused_with_a_clients_error_or_understood(route: ProtocolRoute, body: bytes) -> None:
    try:
        call = parse(route, body)
    except ClientError as error:
        assert 400 <= route.protocol.error(error, "req_1").status < 500
    else:
        assert call.request.messages and call.choices >= 1


@each_protocol
@given(field=st.sampled_from(FIELDS), value=SHAPES)
def test_one_wrong_field_in_a_good_request_is_refused_or_understood(
    route: ProtocolRoute, field: str, value: object
) -> None:
    body = msgspec.json.decode(READERS[route.name].body(False)) | {field: value}
    try:
        parse(route, msgspec.json.encode(body))
    except ClientError as error:
        assert str(error)
