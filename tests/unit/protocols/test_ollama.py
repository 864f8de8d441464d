"""Ollama's API: what is asked, and how a reply is told, a line each."""

from typing import Any

import msgspec
import pytest
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
from qwen_proxy.chat.models import Mode, Model, Variant
from qwen_proxy.chat.request import (
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
    ToolResultPart,
)
from qwen_proxy.chat.result import ChatResult, Folder, Said
from qwen_proxy.ground.errors import InternalError, InvalidRequest, ReplyCut, UnsupportedParameter
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols.base import Incoming, ListedModel, ParseOptions, ReplyFacts
from qwen_proxy.protocols.ollama import OllamaCall, OllamaChat, OllamaGenerate, OllamaModels

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
JPEG = "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
USAGE = Usage(prompt_tokens=3, completion_tokens=4)


def incoming(body: dict[str, Any]) -> Incoming:
    return Incoming(path="/api/chat", query={}, headers={}, body=msgspec.json.encode(body))


def chat(options: ParseOptions | None = None, **fields: Any) -> OllamaCall:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return OllamaChat().parse(incoming(body), options or ParseOptions())


def generate(**fields: Any) -> OllamaCall:
    return OllamaGenerate().parse(incoming({"model": "m", "prompt": "hi", **fields}), ParseOptions())


def facts(*seconds: float) -> ReplyFacts:
    times = iter(seconds or (0.5, 2.0))
    return ReplyFacts(
        reply_id="r", request_id="req_1", created_at=0, model="qwen3.7-plus", elapsed_seconds=lambda: next(times)
    )


def lines(written: bytes) -> list[Any]:
    *found, rest = written.split(b"\n")
    assert rest == b""
    return [msgspec.json.decode(line) for line in found]


def folded(events: Batch) -> ChatResult:
    folder = Folder()
    folder.feed(events)
    return folder.result()


def test_a_conversation_with_tools_is_understood() -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is this?", "images": [PNG, JPEG, f"data:image/png;base64,{PNG}"]},
        {"role": "assistant", "content": "I see.", "thinking": "Hm", "tool_calls": [call, call]},
        {"role": "tool", "tool_name": "get_weather", "content": "rain"},
        {"role": "tool", "name": "get_weather", "content": "sun"},
        {"role": "tool", "content": "", "images": [PNG]},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c9"} | call]},
        {"role": "tool", "content": "snow", "tool_call_id": "c9"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "fog"},
    ]
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Tells", "parameters": SCHEMA}}
    asked = chat(messages=messages, tools=[tool]).request
    arguments = '{"city":"Paris"}'
    picture = ImagePart(f"data:image/png;base64,{PNG}")
    assert asked.messages == (
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        Message(Role.USER, (picture, ImagePart(f"data:image/jpeg;base64,{JPEG}"), picture, TextPart("What is this?"))),
        Message(
            Role.ASSISTANT,
            (
                ReasoningPart("Hm"),
                TextPart("I see."),
                ToolCallPart("call_1", "get_weather", arguments),
                ToolCallPart("call_2", "get_weather", arguments),
            ),
        ),
        Message(Role.USER, (ToolResultPart("call_1", (TextPart("rain"),)),)),
        Message(Role.USER, (ToolResultPart("call_2", (TextPart("sun"),)),)),
        Message(Role.USER, (ToolResultPart("call", (picture,)),)),
        Message(Role.ASSISTANT, (ToolCallPart("c9", "get_weather", arguments),)),
        Message(Role.USER, (ToolResultPart("c9", (TextPart("snow"),)),)),
        Message(Role.ASSISTANT, (ToolCallPart("call_4", "get_weather", arguments),)),
        Message(Role.USER, (ToolResultPart("call_4", (TextPart("fog"),)),)),
    )
    assert asked.tools == (Tool("get_weather", "Tells", SCHEMA),)


def test_options_are_read_and_those_without_effect_are_named() -> None:
    call = chat(
        options=ParseOptions(),
        model="m:latest",
        keep_alive="5m",
        template="{{ .Prompt }}",
    )
    assert (call.request.model.base, call.ignored_fields, call.stream) == ("m", ("keep_alive", "template"), True)
    options = {
        "num_predict": 5, "stop": "END", "temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 7, "num_ctx": 4096,
        "presence_penalty": 1, "frequency_penalty": 1, "not a word": 1,
    }  # fmt: skip
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "options": options, "stream": False}
    call = OllamaChat().parse(incoming(body), ParseOptions())
    assert call.stream is False
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
    assert call.ignored_fields[:4] == ("options.temperature", "options.top_p", "options.top_k", "options.seed")
    half = rb'{"messages": [{"role": "user", "content": "\ud83d"}], "options": {"num_ctx": 9}}'
    cut = OllamaChat().parse(Incoming(path="/api/chat", query={}, headers={}, body=half), ParseOptions())
    assert cut.ignored_fields == ("options.num_ctx",)
    assert "options.num_ctx" in call.ignored_fields and len(call.ignored_fields) == 7
    assert OllamaChat().parse(incoming(body), ParseOptions(strict=True)).ignored_fields == call.ignored_fields
    own = {"min_p": 0.1, "repeat_penalty": 1.1, "typical_p": None}
    call = OllamaChat().parse(incoming(body | {"options": own}), ParseOptions())
    handed_on = {name: msgspec.json.decode(value) for name, value in call.request.extra.items()}
    assert handed_on == {"min_p": 0.1, "repeat_penalty": 1.1, "repetition_penalty": 1.1}
    assert call.ignored_fields[:2] == ("options.min_p", "options.repeat_penalty")
    unlimited = body | {"options": {"num_predict": -1, "stop": ["a", "b"]}}
    assert OllamaChat().parse(incoming(unlimited), ParseOptions()).request.sampling == Sampling(stop=("a", "b"))
    with pytest.raises(InvalidRequest) as wrong:
        OllamaChat().parse(incoming(body | {"options": {"num_predict": "many"}}), ParseOptions())
    assert wrong.value.param == "options.num_predict"


@pytest.mark.parametrize(
    ("think", "wish"),
    [
        (None, Reasoning()),
        (True, Reasoning(enabled=True)),
        (False, Reasoning(enabled=False)),
        ("high", Reasoning(enabled=True, effort="high")),
        ("none", Reasoning(enabled=False, effort="none")),
    ],
)
def test_thinking(think: object, wish: Reasoning) -> None:
    assert chat(think=think).request.reasoning == wish


def test_the_form_of_the_answer() -> None:
    assert chat(format="").request.output is None
    assert chat(format="json").request.output == OutputFormat()
    assert chat(format=SCHEMA).request.output == OutputFormat(schema=SCHEMA, strict=True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"format": "yaml"}, "format"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "images": ["no picture!"]}]}, "messages[0].images[0]"),
        ({"messages": [{"role": "user"}] * 10_001}, "messages"),
    ],
)
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)
    assert refused.value.param == param


def test_log_probabilities_are_asked_for_as_chat_does() -> None:
    call = chat(logprobs=True, top_logprobs=2)
    assert call.request.sampling == Sampling(logprobs=True, top_logprobs=2) and call.ignored_fields == ()
    assert generate(logprobs=True).request.sampling == Sampling(logprobs=True)
    alone = chat(top_logprobs=2)  # which asks for nothing in Ollama either
    assert alone.request.sampling == Sampling() and alone.ignored_fields == ("top_logprobs",)


def test_log_probabilities_stand_with_their_text() -> None:
    tokens: list[dict[str, Any]] = [
        {"token": each, "logprob": -0.5, "bytes": None, "top_logprobs": []} for each in ("Good", " day")
    ]
    pieces: Batch = [TextDelta(each["token"], Raw(msgspec.json.encode([each]))) for each in tokens]
    told = lines(chat().encoder(facts(), 0).encode([*pieces, TextDelta("!")]))
    assert [(line["message"]["content"], line["logprobs"]) for line in told] == [("Good day!", tokens)]
    told = lines(generate().encoder(facts(), 0).encode([TextDelta("", Raw(b"[]"))]))
    assert [(line["response"], line["logprobs"]) for line in told] == [("", [])]
    whole = folded([*pieces, Finish(FinishReason.STOP)])
    assert msgspec.json.decode(chat(stream=False).result(facts(1.0), [whole]))["logprobs"] == tokens


def test_a_prompt_is_what_a_user_says() -> None:
    asked = generate(system="Be brief.", images=[PNG]).request
    assert asked.messages == (
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        Message(Role.USER, (ImagePart(f"data:image/png;base64,{PNG}"), TextPart("hi"))),
    )
    assert generate().request.messages == (Message(Role.USER, (TextPart("hi"),)),)
    for field in ("suffix", "raw"):
        with pytest.raises(UnsupportedParameter) as refused:
            generate(**{field: "x" if field == "suffix" else True})
        assert refused.value.param == field
    with pytest.raises(InvalidRequest) as wrong:
        generate(images=["?"])
    assert wrong.value.param == "images[0]"


@pytest.mark.parametrize("call", [chat(messages=[]), chat(messages=None), generate(prompt="")])
def test_who_asks_nothing_only_loads_the_model(call: OllamaCall) -> None:
    assert call.request.sampling.max_tokens == 0
    end = folded([ReplyStart(), Usage(prompt_tokens=1, completion_tokens=0), Finish(FinishReason.LENGTH)])
    reply = msgspec.json.decode(call.result(facts(1.0), [end]))
    assert (reply["done"], reply["done_reason"]) == (True, "load")


EVENTS: Batch = [
    ReplyStart(),
    ReasoningDelta("Hm"),
    SourcesFound((Source("https://x.example"),)),
    TextDelta("I "),
    TextDelta("look"),
    ToolCallStart("c1", "get_weather"),
    ToolArgumentsDelta('{"city":'),
    ToolArgumentsDelta('"Paris"}'),
    ToolCallStart("c2", "now"),
    MediaOutput(MediaKind.IMAGE, "https://x.example/a.png"),
    ToolCallStart("c3", "write"),
    ToolArgumentsDelta('{"text": "half'),
    USAGE,
    Finish(FinishReason.LENGTH),
]
CALLS: list[dict[str, Any]] = [
    {"id": "c1", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}},
    {"id": "c2", "function": {"name": "now", "arguments": {}}},
]
PICTURE = "\n![image](https://x.example/a.png)\n"


def test_a_stream_has_whole_calls_and_the_numbers_at_its_end() -> None:
    writer = chat().encoder(facts(0.5, 2.0), 0)
    assert writer.start() == b""
    told = lines(b"".join(writer.encode([event]) for event in EVENTS))
    assert {(line["model"], line["created_at"]) for line in told} == {("qwen3.7-plus", "1970-01-01T00:00:00Z")}
    said = [line["message"] for line in told]
    assert said == [
        {"role": "assistant", "content": "", "thinking": "Hm"},
        {"role": "assistant", "content": "I "},
        {"role": "assistant", "content": "look"},
        {"role": "assistant", "content": "", "tool_calls": CALLS[:1]},
        {"role": "assistant", "content": "", "tool_calls": CALLS[1:]},
        {"role": "assistant", "content": PICTURE},
        {"role": "assistant", "content": 'write({"text": "half'},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in told] == [False] * 7 + [True]
    end = told[-1]
    assert end["done_reason"] == "length"
    assert (end["prompt_eval_count"], end["eval_count"], end["load_duration"]) == (3, 4, 0)
    assert (end["total_duration"], end["prompt_eval_duration"], end["eval_duration"]) == (
        2_000_000_000,
        500_000_000,
        1_500_000_000,
    )


def test_a_batch_is_one_line_for_each_kind() -> None:
    writer = generate().encoder(facts(), 0)
    told = lines(writer.encode(EVENTS[:5]) + writer.encode([TextDelta("")]))
    assert [(line["response"], line.get("thinking")) for line in told] == [("", "Hm"), ("I look", None)]
    assert chat().trailer(facts(), USAGE) == b""


def test_a_whole_reply() -> None:
    reply = msgspec.json.decode(chat(stream=False).result(facts(2.0), [folded(EVENTS)]))
    assert reply["message"] == {
        "role": "assistant",
        "content": f'I look{PICTURE}write({{"text": "half',
        "thinking": "Hm",
        "tool_calls": CALLS,
    }
    assert (reply["done"], reply["done_reason"], reply["total_duration"]) == (True, "length", 2_000_000_000)
    bare = ChatResult(parts=(Said("x"),), sources=(), usage=None, finish=Finish(FinishReason.STOP))
    reply = msgspec.json.decode(generate(stream=False).result(facts(1.0), [bare]))
    assert (reply["response"], reply["done_reason"], reply["eval_count"]) == ("x", "stop", 0)


def test_who_wants_no_thinking_sees_none() -> None:
    call = chat(think=False)
    assert call.encoder(facts(), 0).encode([ReasoningDelta("Hm")]) == b""
    assert "thinking" not in msgspec.json.decode(call.result(facts(), [folded(EVENTS)]))["message"]


def test_a_failure_is_a_sentence() -> None:
    protocol = OllamaChat()
    assert protocol.error(ReplyCut(), "req_1").status == 502
    (told,) = lines(chat().encoder(facts(), 0).fail(ReplyCut()))
    assert told == {"error": str(ReplyCut())}
    assert b"req_1" in protocol.error(InternalError(), "req_1").body
    assert protocol.limit_headers(LimitFacts(at=0.0)) == ()


def listed(**fields: Any) -> ListedModel:
    model = Model(id="qwen3.7-plus", display_name="Qwen3.7-Plus", thinks=True, sees_images=True, **fields)
    return ListedModel(id="Qwen3.7-Plus", name="qwen3.7-plus", variant=Variant(), model=model)


def test_models_are_listed_and_shown() -> None:
    protocol = OllamaModels()
    (tag,) = msgspec.json.decode(protocol.all([listed()], {}))["models"]
    assert (tag["name"], tag["model"], tag["size"], len(tag["digest"])) == ("Qwen3.7-Plus", "Qwen3.7-Plus", 0, 64)
    shown = msgspec.json.decode(protocol.one(listed(context_tokens=1000)))
    assert shown["capabilities"] == ["completion", "tools", "thinking", "vision"]
    assert shown["model_info"]["qwen.context_length"] == 1000
    assert "qwen.context_length" not in msgspec.json.decode(protocol.one(listed()))["model_info"]
    image = msgspec.structs.replace(listed(), variant=Variant(mode=Mode.IMAGE))
    assert msgspec.json.decode(protocol.one(image))["capabilities"] == ["thinking", "vision"]
    assert protocol.asked(incoming({"model": "m:latest"})) == "m"
    assert protocol.asked(incoming({"name": "m"})) == "m"
    with pytest.raises(InvalidRequest) as refused:
        protocol.asked(incoming({"verbose": True}))
    assert refused.value.param == "model"
