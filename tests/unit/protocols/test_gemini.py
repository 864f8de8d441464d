"""Gemini's API: what is asked, what is refused, and how a reply is told."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw, structs

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
from qwen_proxy.chat.models import Mode, Model, Variant
from qwen_proxy.chat.request import (
    AUTO,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Reasoning,
    ReasoningPart,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceKind,
    ToolResultPart,
)
from qwen_proxy.chat.result import ChatResult, Folder, Said
from qwen_proxy.ground.errors import (
    InternalError,
    InvalidRequest,
    QuotaExhausted,
    ReplyCut,
    Unauthenticated,
    UnsupportedParameter,
)
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols.base import Incoming, ListedModel, ParseOptions, ReplyFacts
from qwen_proxy.protocols.gemini import GeminiArray, GeminiCount, GeminiEvents, GeminiGenerate, GenerateCall
from qwen_proxy.protocols.gemini_models import GeminiModels

Json = dict[str, Any]

FACTS = ReplyFacts(reply_id="r1", request_id="req_1", created_at=7, model="qwen3.7-plus")
USAGE = Usage(prompt_tokens=3, completion_tokens=5, reasoning_tokens=2, cached_tokens=1)
HELLO = [{"role": "user", "parts": [{"text": "hi"}]}]
DECLARED = {
    "name": "get_weather",
    "description": "Tells",
    "parameters": {"type": "OBJECT", "properties": {"city_name": {"type": "STRING"}}},
}
SCHEMA = {"type": "object", "properties": {"city_name": {"type": "string"}}}


def incoming(body: Json) -> Incoming:
    return Incoming(
        path="/", query={}, headers={}, body=msgspec.json.encode(body), variables={"model": "models/qwen3.7-plus"}
    )


def parsed(options: ParseOptions | None = None, protocol: GeminiGenerate | None = None, **fields: Any) -> GenerateCall:
    return (protocol or GeminiGenerate()).parse(incoming({"contents": HELLO} | fields), options or ParseOptions())


def configured(**fields: Any) -> GenerateCall:
    return parsed(generationConfig=fields)


def folded(events: Batch) -> ChatResult:
    folder = Folder()
    folder.feed(events)
    return folder.result()


def chunks(written: bytes) -> list[Json]:
    *frames, rest = written.split(b"\n\n")
    assert rest == b""
    return [msgspec.json.decode(frame.removeprefix(b"data: ")) for frame in frames]


# --- the request -------------------------------------------------------------------------------------------


def test_a_conversation_with_every_kind_of_part_is_understood() -> None:
    call = {"functionCall": {"name": "get_weather", "args": {"city_name": "Paris"}}}
    contents: list[Json] = [
        {"parts": [{"text": "What is this?"}, {"inlineData": {"mimeType": "image/png", "data": "-_8="}}]},
        {
            "role": "model",
            "parts": [
                {"text": "Hm", "thought": True, "thoughtSignature": "abc"},
                {"text": "I look."},
                {"thoughtSignature": "abc"},
                call,
                {"functionCall": {"name": "now", "id": "c9"}},
                {"executableCode": {"code": "1 + 1"}},
                {"codeExecutionResult": {"output": "2"}},
                {"codeExecutionResult": {}},
            ],
        },
        {
            "role": "function",
            "parts": [
                {"functionResponse": {"name": "get_weather", "response": {"output": "rain"}}},
                {"functionResponse": {"name": "now", "id": "c9", "response": {"error": "no clock"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "name": "read",
                        "response": {"a": 1, "b": 2},
                        "parts": [
                            {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
                            {"inlineData": {"mimeType": "audio/wav", "data": "AA=="}},
                            {},
                        ],
                    }
                },
                {"functionResponse": {"name": "write"}},
                {"functionResponse": {"name": "count", "response": {"result": 3}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"fileData": {"fileUri": "https://x.example/a.mp4", "mimeType": "video/mp4"}},
                {"inlineData": {"mimeType": "audio/wav", "data": "AA==", "displayName": "a.wav"}},
                {"inlineData": {"mimeType": "application/pdf", "data": "AA=="}},
            ],
        },
        {"role": "system", "parts": [{"text": "Be quick."}]},
        {"role": "model"},
    ]
    assert parsed(contents=contents, systemInstruction={"parts": [{"text": "Be brief."}]}).request.messages == (
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        Message(Role.USER, (TextPart("What is this?"), ImagePart("data:image/png;base64,+/8="))),
        Message(
            Role.ASSISTANT,
            (
                ReasoningPart("Hm"),
                TextPart("I look."),
                ToolCallPart("call_1", "get_weather", '{"city_name":"Paris"}'),
                ToolCallPart("c9", "now", "{}"),
                TextPart("1 + 1"),
                TextPart("2"),
            ),
        ),
        Message(
            Role.USER,
            (
                ToolResultPart("call_1", (TextPart("rain"),)),
                ToolResultPart("c9", (TextPart("no clock"),), is_error=True),
            ),
        ),
        Message(
            Role.USER,
            (
                ToolResultPart("read", (TextPart('{"a":1,"b":2}'), ImagePart("data:image/png;base64,AA=="))),
                ToolResultPart("write", (TextPart("{}"),)),
                ToolResultPart("count", (TextPart('{"result":3}'),)),
            ),
        ),
        Message(
            Role.USER,
            (
                FilePart("video", "https://x.example/a.mp4"),
                FilePart("audio", "data:audio/wav;base64,AA==", "a.wav"),
                FilePart("document", "data:application/pdf;base64,AA=="),
            ),
        ),
        Message(Role.SYSTEM, (TextPart("Be quick."),)),
    )


def test_one_content_and_a_text_will_do() -> None:
    said = (Message(Role.USER, (TextPart("hi"),)),)
    assert parsed(contents="hi").request.messages == parsed(contents=HELLO[0]).request.messages == said
    asked = parsed(systemInstruction="Be brief.").request
    assert asked.messages == (Message(Role.SYSTEM, (TextPart("Be brief."),)), *said)
    assert asked.model.base == "qwen3.7-plus"


def test_names_may_be_spelt_with_underscores_but_for_what_is_the_clients_own() -> None:
    call = parsed(
        contents=[
            {"role": "model", "parts": [{"function_call": {"name": "f", "args": {"a_b": 1}}}]},
            {"parts": [{"inline_data": {"mime_type": "image/png", "data": "AA=="}}]},
        ],
        system_instruction={"parts": [{"text": "Be brief."}]},
        tools=[{"function_declarations": [DECLARED]}],
        generation_config={"max_output_tokens": 5, "response_mime_type": "application/json"},
        safety_settings=[],
    )
    assert call.request.messages[1].parts == (ToolCallPart("call_1", "f", '{"a_b":1}'),)
    assert call.request.messages[2].parts == (ImagePart("data:image/png;base64,AA=="),)
    assert call.request.tools == (Tool("get_weather", "Tells", SCHEMA),)
    assert call.request.sampling.max_tokens == 5
    assert call.ignored_fields == ("safetySettings",)
    half = b'{"system_instruction":{"parts":[{"text":"\\ud83d"}]},"contents":[{"parts":[{"text":"hi"}]}]}'
    cut = GeminiGenerate().parse(structs.replace(incoming({}), body=half), ParseOptions())
    assert cut.request.messages[0] == Message(Role.SYSTEM, (TextPart("\N{REPLACEMENT CHARACTER}"),))
    deep: object = {"a_b": 1}
    for _ in range(20):
        deep = {"of_nobody": deep}
    assert parsed(labels=deep).ignored_fields == ("labels",)


def test_the_configuration_is_read() -> None:
    call = configured(
        temperature=0.5, topP=0.9, topK=3.0, seed=7, presencePenalty=1, frequencyPenalty=1, maxOutputTokens=5,
        stopSequences=["END"], candidateCount=2, thinkingConfig={"includeThoughts": True}, responseModalities=["TEXT"],
    )  # fmt: skip
    assert call.request.sampling == Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        seed=7,
        max_tokens=5,
        stop=("END",),
        presence_penalty=1,
        frequency_penalty=1,
    )
    assert (call.choices, call.shows_thoughts, call.stream) == (2, True, False)
    assert call.ignored_fields[:3] == ("generationConfig.temperature", "generationConfig.topP", "generationConfig.topK")
    assert len(call.ignored_fields) == 6
    assert parsed(safetySettings=[], options=ParseOptions(strict=True)).ignored_fields == ("safetySettings",)


@pytest.mark.parametrize(
    ("thinking", "wish"),
    [
        (None, Reasoning()),
        ({"includeThoughts": True}, Reasoning()),
        ({"thinkingBudget": -1}, Reasoning()),
        ({"thinkingBudget": 0}, Reasoning(enabled=False)),
        ({"thinkingBudget": 1024}, Reasoning(enabled=True, budget_tokens=1024)),
        ({"thinkingLevel": "HIGH"}, Reasoning(enabled=True, effort="high")),
        ({"thinkingLevel": "MINIMAL"}, Reasoning(enabled=False, effort="minimal")),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, Reasoning()),
    ],
)
def test_thinking(thinking: Json | None, wish: Reasoning) -> None:
    assert configured(thinkingConfig=thinking).request.reasoning == wish


def test_the_form_of_the_answer() -> None:
    assert configured(responseMimeType="text/plain").request.output is None
    assert configured(responseMimeType="application/json").request.output == OutputFormat()
    wanted = OutputFormat(schema=SCHEMA, strict=True)
    dialect: object = DECLARED["parameters"]
    assert configured(responseMimeType="application/json", responseSchema=dialect).request.output == wanted
    assert configured(responseMimeType="application/json", responseJsonSchema=SCHEMA).request.output == wanted
    assert configured(responseSchema=dialect).request.output == wanted
    assert configured(responseMimeType="text/plain", responseSchema=dialect).request.output is None


def test_tools() -> None:
    functions = [DECLARED, {"name": "now"}, {"name": "old", "parametersJsonSchema": SCHEMA}]
    asked = parsed(tools=[{"functionDeclarations": functions}, {"googleSearch": {}, "codeExecution": None}]).request
    assert asked.tools == (Tool("get_weather", "Tells", SCHEMA), Tool("now"), Tool("old", "", SCHEMA))
    assert asked.model.variant == Variant(search=True) and asked.tool_choice == AUTO
    assert parsed(tools=[{"googleSearchRetrieval": {}}]).request.model.variant.search is True


@pytest.mark.parametrize(
    ("wish", "choice"),
    [
        ({}, AUTO),
        ({"mode": "AUTO"}, AUTO),
        ({"mode": "VALIDATED"}, AUTO),
        ({"mode": "NONE"}, ToolChoice(ToolChoiceKind.NONE)),
        ({"mode": "any"}, ToolChoice(ToolChoiceKind.REQUIRED)),
        (
            {"mode": "ANY", "allowedFunctionNames": ["get_weather"]},
            ToolChoice(ToolChoiceKind.REQUIRED, ("get_weather",)),
        ),
    ],
)
def test_the_choice_of_tools(wish: Json, choice: ToolChoice) -> None:
    config = {"functionCallingConfig": wish}
    assert parsed(tools=[{"functionDeclarations": [DECLARED]}], toolConfig=config).request.tool_choice == choice


MODE = "toolConfig.functionCallingConfig.mode"


WRONG: list[tuple[Json, str]] = [
    ({"contents": ()}, "contents"),
    ({"contents": [{"parts": ()}]}, "contents"),
    ({"contents": [{"role": "user"}] * 10_001}, "contents"),
    ({"contents": [{"role": "robot"}]}, "contents[0].role"),
    ({"contents": [{"parts": [{"text": 1}]}]}, "contents[0].parts[0].text"),
    ({"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/a"}}]}]}, "contents[0].parts[0].fileData.fileUri"),
    ({"cachedContent": "cachedContents/1"}, "cachedContent"),
    ({"tools": [{"codeExecution": {}}]}, "tools[0].codeExecution"),
    ({"tools": [{}, {"urlContext": {}}]}, "tools[1].urlContext"),
    ({"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}}, MODE),
    ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, MODE),
    (
        {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}},
        "toolConfig.functionCallingConfig.allowedFunctionNames",
    ),
    ({"generationConfig": {"logprobs": 2}}, "generationConfig.logprobs"),
    ({"generationConfig": {"responseLogprobs": True, "logprobs": 21}}, "generationConfig.logprobs"),
    ({"generationConfig": {"responseModalities": ["IMAGE"]}}, "generationConfig.responseModalities"),
    ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType"),
    ({"generationConfig": {"candidateCount": 9}}, "generationConfig.candidateCount"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_what_is_wrong_is_refused_by_name(fields: Json, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(**fields)
    assert refused.value.param == param


def test_log_probabilities_are_asked_for_as_chat_does() -> None:
    name = "generationConfig.responseLogprobs"
    wish = configured(responseLogprobs=True, logprobs=2).request.sampling
    assert wish == Sampling(logprobs=True, top_logprobs=2, logprobs_field=name)
    spelt = parsed(generation_config={"response_logprobs": True}).request.sampling
    assert spelt == Sampling(logprobs=True, logprobs_field=name)
    assert configured(responseLogprobs=False, logprobs=0).request.sampling == Sampling()


def test_bodies_that_are_none() -> None:
    for body in (b"", b"{_", b'{"contents_": ' + b"[" * 3000):
        with pytest.raises(InvalidRequest):
            GeminiGenerate().parse(Incoming(path="/", query={}, headers={}, body=body), ParseOptions())


def test_several_candidates_are_not_streamed_as_an_array() -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        parsed(protocol=GeminiArray(), generationConfig={"candidateCount": 2})
    assert refused.value.param == "generationConfig.candidateCount"


def test_what_is_counted_is_a_request_or_contents_alone() -> None:
    counter = GeminiCount()
    alone = counter.parse(incoming({"contents": HELLO}), ParseOptions())
    whole = counter.parse(incoming({"generateContentRequest": {"contents": HELLO}}), ParseOptions())
    assert alone == whole and alone.model.base == "qwen3.7-plus"
    assert msgspec.json.decode(counter.result(5)) == {"totalTokens": 5}
    with pytest.raises(InvalidRequest) as refused:
        counter.parse(incoming({}), ParseOptions())
    assert refused.value.param == "contents"


# --- the reply ---------------------------------------------------------------------------------------------

EVENTS: Batch = [
    ReplyStart(),
    ReasoningDelta("Hm"),
    SourcesFound((), ("weather of Paris",)),
    SourcesFound((Source("https://x.example/", title="X"), Source("https://y.example/"))),
    TextDelta("I "),
    TextDelta("look"),
    ToolCallStart("c1", "get_weather"),
    ToolArgumentsDelta('{"city":'),
    ToolArgumentsDelta('"Paris"}'),
    ToolCallStart("c2", "now"),
    MediaOutput(MediaKind.IMAGE, "https://x.example/a.png"),
    USAGE,
    Finish(FinishReason.TOOL_CALLS),
]
PARTS: list[Json] = [
    {"text": "Hm", "thought": True},
    {"text": "I look"},
    {"functionCall": {"id": "c1", "name": "get_weather", "args": {"city": "Paris"}}},
    {"functionCall": {"id": "c2", "name": "now", "args": {}}},
    {"text": "\n![image](https://x.example/a.png)\n"},
]
GROUNDS = {
    "groundingChunks": [
        {"web": {"uri": "https://x.example/", "title": "X"}},
        {"web": {"uri": "https://y.example/", "title": "https://y.example/"}},
    ],
    "webSearchQueries": ["weather of Paris"],
}
COUNTS = {
    "promptTokenCount": 3,
    "candidatesTokenCount": 3,
    "totalTokenCount": 8,
    "thoughtsTokenCount": 2,
    "cachedContentTokenCount": 1,
}
THOUGHTS = {"thinkingConfig": {"includeThoughts": True}}


def test_a_whole_reply() -> None:
    reply = msgspec.json.decode(parsed(generationConfig=THOUGHTS).result(FACTS, [folded(EVENTS)]))
    assert reply == {
        "candidates": [
            {
                "content": {"role": "model", "parts": PARTS},
                "index": 0,
                "finishReason": "STOP",
                "groundingMetadata": GROUNDS,
            }
        ],
        "usageMetadata": COUNTS,
        "modelVersion": "qwen3.7-plus",
        "responseId": "r1",
    }
    few = Usage(prompt_tokens=1, completion_tokens=2)
    bare = ChatResult(parts=(Said("x"),), sources=(), usage=few, finish=Finish(FinishReason.STOP))
    usage = msgspec.json.decode(parsed().result(FACTS, [bare]))["usageMetadata"]
    assert usage == {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3}
    bare = ChatResult(parts=(Said("x"),), sources=(), usage=None, finish=Finish(FinishReason.CONTENT_FILTER))
    reply = msgspec.json.decode(parsed().result(FACTS, [bare]))
    assert reply["candidates"][0]["finishReason"] == "SAFETY" and "usageMetadata" not in reply


def token(text: str, logprob: float) -> TextDelta:
    return TextDelta(text, Raw(msgspec.json.encode([{"token": text, "logprob": logprob}])))


def test_log_probabilities_stand_with_their_text() -> None:
    pieces: Batch = [token("Good", -0.5), token(" day", -1.5), token("", -1), TextDelta("!")]
    writer = parsed(protocol=GeminiEvents()).encoder(FACTS, 0)
    end: Batch = [USAGE, Finish(FinishReason.STOP)]
    told = [
        each["candidates"][0]
        for each in chunks(b"".join(writer.encode([piece]) for piece in pieces) + writer.encode(end))
    ]
    sums = [each.get("logprobsResult", {}).get("logProbabilitySum") for each in told]
    assert sums == [-0.5, -1.5, -1.0, None, None]
    assert [each.get("avgLogprobs") for each in told] == [None] * 4 + [-1.0]
    whole = msgspec.json.decode(parsed().result(FACTS, [folded([*pieces, *end])]))["candidates"][0]
    assert [each["token"] for each in whole["logprobsResult"]["chosenCandidates"]] == ["Good", " day", ""]
    assert whole["avgLogprobs"] == -1.0


def test_a_stream_has_whole_calls_and_the_numbers_at_its_end() -> None:
    call = parsed(protocol=GeminiEvents(), generationConfig=THOUGHTS)
    assert call.stream is True
    writer = call.encoder(FACTS, 0)
    assert writer.start() == b""
    told = chunks(writer.encode(EVENTS) + writer.encode([TextDelta("")]) + call.trailer(FACTS, USAGE))
    assert [each["candidates"][0]["content"]["parts"] for each in told] == [*([part] for part in PARTS), [{"text": ""}]]
    end = told[-1]
    assert end["candidates"][0]["finishReason"] == "STOP" and end["candidates"][0]["groundingMetadata"] == GROUNDS
    assert (end["usageMetadata"], end["responseId"]) == (COUNTS, "r1")
    assert all("finishReason" not in each["candidates"][0] for each in told[:-1])


def test_who_does_not_ask_for_thoughts_sees_none() -> None:
    call = parsed()
    assert call.encoder(FACTS, 0).encode([ReasoningDelta("Hm")]) == b""
    assert msgspec.json.decode(call.result(FACTS, [folded(EVENTS)]))["candidates"][0]["content"]["parts"] == PARTS[1:]


def test_the_sum_over_several_candidates_is_told_at_the_end() -> None:
    call = parsed(protocol=GeminiEvents(), generationConfig={"candidateCount": 2})
    (last,) = chunks(call.trailer(FACTS, USAGE))
    assert last["usageMetadata"] == COUNTS and "candidates" not in last
    (chunk,) = chunks(call.encoder(FACTS, 1).encode([TextDelta("x")]))
    assert chunk["candidates"][0]["index"] == 1


@pytest.mark.parametrize(
    ("reason", "told"), [(FinishReason.TOOL_CALLS, "MALFORMED_FUNCTION_CALL"), (FinishReason.LENGTH, "MAX_TOKENS")]
)
def test_a_call_without_whole_arguments_is_left_out_and_is_why_it_ended(reason: FinishReason, told: str) -> None:
    events: Batch = [ReplyStart(), ToolCallStart("c1", "f"), ToolArgumentsDelta('{"a'), Finish(reason)]
    (chunk,) = chunks(parsed().encoder(FACTS, 0).encode(events))
    assert chunk["candidates"][0]["finishReason"] == told
    candidate = msgspec.json.decode(parsed().result(FACTS, [folded(events)]))["candidates"][0]
    assert (candidate["content"]["parts"], candidate["finishReason"]) == ([], told)


def test_an_array_grows_and_ends() -> None:
    call = parsed(protocol=GeminiArray())
    writer = call.encoder(FACTS, 0)
    written = writer.encode([TextDelta("a")]) + writer.encode([TextDelta("b"), Finish(FinishReason.STOP)])
    told = msgspec.json.decode(written + call.trailer(FACTS, USAGE))
    assert [each["candidates"][0]["content"]["parts"][0]["text"] for each in told] == ["a", "b", ""]
    thinking = parsed(protocol=GeminiArray(), generationConfig=THOUGHTS).encoder(FACTS, 0)
    told = msgspec.json.decode(
        thinking.encode([ToolCallStart("c1", "now"), ReasoningDelta("Hm"), Finish(FinishReason.STOP)]) + b"]"
    )
    assert ["functionCall" in each["candidates"][0]["content"]["parts"][0] for each in told] == [True, False, False]
    broken = call.encoder(FACTS, 0)
    told = msgspec.json.decode(broken.encode([TextDelta("a")]) + broken.fail(ReplyCut()))
    assert told[1]["error"]["status"] == "UNAVAILABLE"
    assert "error" in msgspec.json.decode(call.encoder(FACTS, 0).fail(ReplyCut()))[0]


def test_a_failure_begins_as_the_sdk_wants_it() -> None:
    assert parsed().encoder(FACTS, 0).fail(ReplyCut()).startswith(b'data: {"error":')


def test_errors_have_googles_details() -> None:
    protocol = GeminiGenerate()

    def told(error: Any) -> tuple[int, Json]:
        reply = protocol.error(error, "req_1")
        return reply.status, msgspec.json.decode(reply.body)["error"]

    status, error = told(QuotaExhausted(3.5))
    assert (status, error["code"], error["status"]) == (429, 429, "RESOURCE_EXHAUSTED")
    assert error["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "4s"}]
    status, error = told(Unauthenticated())
    assert (status, error["details"][0]["reason"]) == (401, "API_KEY_INVALID")
    status, error = told(InvalidRequest("contents is missing", param="contents"))
    assert (status, error["details"][0]["fieldViolations"][0]["field"]) == (400, "contents")
    assert "details" not in told(InvalidRequest("no"))[1]
    assert "req_1" in told(InternalError())[1]["message"]
    assert protocol.limit_headers(LimitFacts(at=0.0)) == ()


# --- the models --------------------------------------------------------------------------------------------


def listed(number: int = 0, **fields: Any) -> ListedModel:
    model = Model(id=f"qwen{number}", display_name=f"Qwen{number}", **fields)
    return ListedModel(id=f"Qwen{number}", name=f"qwen{number}", variant=Variant(), model=model, backend="web")


def test_models_are_listed_by_pages() -> None:
    protocol = GeminiModels()
    models = [listed(number) for number in range(5)]

    def page(**query: str) -> Json:
        return msgspec.json.decode(protocol.all(models, query))

    assert [each["name"] for each in page()["models"]] == [f"models/Qwen{number}" for number in range(5)]
    first = page(pageSize="2")
    assert (len(first["models"]), first["nextPageToken"]) == (2, "2")
    last = page(pageSize="2", pageToken="4")
    assert [each["name"] for each in last["models"]] == ["models/Qwen4"] and "nextPageToken" not in last
    for wrong in ({"pageSize": "many"}, {"pageToken": "-1"}):
        with pytest.raises(InvalidRequest):
            page(**wrong)


def test_a_model_tells_what_it_can() -> None:
    protocol = GeminiModels()
    told = msgspec.json.decode(protocol.one(listed(context_tokens=1000, output_tokens=100, thinks=True)))
    assert (told["inputTokenLimit"], told["outputTokenLimit"], told["thinking"]) == (1000, 100, True)
    assert "generateContent" in told["supportedGenerationMethods"]
    image = msgspec.structs.replace(listed(context_tokens=1000), variant=Variant(mode=Mode.IMAGE))
    told = msgspec.json.decode(protocol.one(image))
    assert told["supportedGenerationMethods"] == [] and "inputTokenLimit" not in told
    assert told["displayName"] == "Qwen0-image"
    routed = msgspec.structs.replace(listed(), backend="")
    assert msgspec.json.decode(protocol.one(routed))["displayName"] == "Qwen0"
