"""What is asked of an OpenAI-compatible server."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from qwen_proxy.chat.models import Model, ModelName, Variant
from qwen_proxy.chat.request import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Part,
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
from qwen_proxy.config.backends import Thinking
from qwen_proxy.ground.errors import UnsupportedParameter
from qwen_proxy.upstreams.openai_api.asking import check, encode_chat

MODEL = Model(id="m-1", display_name="M")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def body(thinking: Thinking = Thinking.EFFORT, *, messages: tuple[Message, ...] = (), **fields: Any) -> dict[str, Any]:
    fields.setdefault("model", ModelName("public"))
    request = ChatRequest(messages=messages or (Message(Role.USER, (TextPart("hi"),)),), **fields)
    return msgspec.json.decode(encode_chat(request, MODEL, thinking))


def said(role: Role, *parts: Part) -> list[dict[str, Any]]:
    return body(messages=(Message(role, parts),))["messages"]


def test_a_plain_question_is_streamed_with_its_usage() -> None:
    assert body() == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_texts_are_joined_and_pictures_and_files_are_parts() -> None:
    assert said(Role.SYSTEM, TextPart("a"), TextPart("b")) == [{"role": "system", "content": "a\nb"}]
    assert said(
        Role.USER,
        TextPart("see"),
        ImagePart("https://e.com/a.png"),
        ImagePart("https://e.com/b.png", "low"),
        FilePart("audio", "data:audio/wav;base64,QUJD"),
        FilePart("audio", "https://e.com/a.mp3"),
        FilePart("video", "https://e.com/a.mp4"),
        FilePart("document", "data:application/pdf;base64,QUJD", "a.pdf"),
        FilePart("document", "https://e.com/a.pdf"),
        ReasoningPart("thought"),
    ) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": "https://e.com/a.png"}},
                {"type": "image_url", "image_url": {"url": "https://e.com/b.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
                {"type": "input_audio", "input_audio": {"data": "https://e.com/a.mp3"}},
                {"type": "video_url", "video_url": {"url": "https://e.com/a.mp4"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"}},
                {"type": "file", "file": {"file_data": "https://e.com/a.pdf"}},
                {"type": "text", "text": "thought"},
            ],
        }
    ]


def test_a_turn_in_which_the_user_says_nothing_is_a_turn() -> None:
    assert said(Role.USER) == [{"role": "user", "content": ""}]


def test_what_an_assistant_thought_said_and_called() -> None:
    call = ToolCallPart("call_1", "weather", '{"city":"Paris"}')
    shown = ImagePart("https://e.com/a.png")
    assert said(
        Role.ASSISTANT, ReasoningPart("hm", "sig"), TextPart("I look"), call, ToolCallPart("c2", "now", ""), shown
    ) == [
        {
            "role": "assistant",
            "content": "I look",
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
                },
                {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            ],
        }
    ]


def test_what_an_assistant_only_said_is_that() -> None:
    assert said(Role.ASSISTANT, TextPart("a"), TextPart("b")) == [{"role": "assistant", "content": "a\nb"}]


def test_results_are_messages_of_their_own_and_their_pictures_follow_all_of_them() -> None:
    picture = ImagePart("data:image/png;base64,AA")
    assert said(
        Role.USER,
        ToolResultPart("c1", (TextPart("20 C"), picture)),
        ToolResultPart("c2", (TextPart("no such city"),), is_error=True),
        ToolResultPart("c3", (TextPart("error 5"),), is_error=True),
        TextPart("and now?"),
    ) == [
        {"role": "tool", "tool_call_id": "c1", "content": "20 C"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: no such city"},
        {"role": "tool", "tool_call_id": "c3", "content": "error 5"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What the tool shows:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
            ],
        },
        {"role": "user", "content": "and now?"},
    ]


def test_a_result_and_a_question_behind_it() -> None:
    assert said(Role.USER, ToolResultPart("c1", (TextPart("20 C"),)), TextPart("and now?")) == [
        {"role": "tool", "tool_call_id": "c1", "content": "20 C"},
        {"role": "user", "content": "and now?"},
    ]


def test_a_hint_is_the_last_word() -> None:
    assert body(hint="call a tool")["messages"][-1] == {"role": "user", "content": "call a tool"}


TOOLS = (Tool("weather", "of a city", SCHEMA, strict=True), Tool("now"))


def test_tools_go_as_they_are() -> None:
    sent = body(tools=TOOLS, parallel_tool_calls=False)
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "of a city", "parameters": SCHEMA, "strict": True},
        },
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert sent["parallel_tool_calls"] is False and "tool_choice" not in sent
    assert "parallel_tool_calls" not in body(parallel_tool_calls=False)  # without tools it is refused by some


@pytest.mark.parametrize(
    ("choice", "sent", "offered"),
    [
        (ToolChoice(ToolChoiceKind.NONE), "none", 2),
        (ToolChoice(ToolChoiceKind.REQUIRED), "required", 2),
        (ToolChoice(ToolChoiceKind.REQUIRED, ("now",)), {"type": "function", "function": {"name": "now"}}, 1),
        (ToolChoice(ToolChoiceKind.REQUIRED, ("now", "weather")), "required", 2),
        (ToolChoice(ToolChoiceKind.AUTO, ("now",)), None, 1),
    ],
)
def test_a_choice_among_tools(choice: ToolChoice, sent: object, offered: int) -> None:
    found = body(tools=TOOLS, tool_choice=choice)
    assert found.get("tool_choice") == sent and len(found["tools"]) == offered


def test_sampling_is_passed_but_for_stop_which_is_kept_here() -> None:
    sampling = Sampling(
        temperature=0.5,
        top_p=0.9,
        max_tokens=10,
        stop=("x",),
        top_k=3,
        seed=0,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        top_logprobs=2,
    )
    sent = body(sampling=sampling)
    for name in ("model", "messages", "stream", "stream_options"):
        del sent[name]
    assert sent == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 10,
        "top_k": 3,
        "seed": 0,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "top_logprobs": 2,
    }


def test_with_log_probabilities_stop_is_the_servers() -> None:
    assert body(sampling=Sampling(stop=("x",), logprobs=True))["stop"] == ["x"]


@pytest.mark.parametrize(
    ("output", "sent"),
    [
        (OutputFormat(), {"type": "json_object"}),
        (
            OutputFormat(schema=SCHEMA, name="p", description="d", strict=True),
            {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "description": "d", "strict": True}},
        ),
        (OutputFormat(schema={}), {"type": "json_schema", "json_schema": {"name": "reply", "schema": {}}}),
    ],
)
def test_a_format_of_output(output: OutputFormat, sent: object) -> None:
    assert body(output=output)["response_format"] == sent


@pytest.mark.parametrize(
    ("thinking", "wish", "sent"),
    [
        (Thinking.DASHSCOPE, Reasoning(enabled=True, budget_tokens=9), {"enable_thinking": True, "thinking_budget": 9}),
        (Thinking.DASHSCOPE, Reasoning(enabled=False, effort="none"), {"enable_thinking": False}),
        (Thinking.EFFORT, Reasoning(enabled=True, effort="high"), {"reasoning_effort": "high"}),
        (Thinking.EFFORT, Reasoning(enabled=True), {"reasoning_effort": "medium"}),
        (Thinking.EFFORT, Reasoning(enabled=False), {"reasoning_effort": "none"}),
        (Thinking.EFFORT, Reasoning(budget_tokens=9), {"thinking_budget": 9}),
        (Thinking.TEMPLATE, Reasoning(enabled=False), {"chat_template_kwargs": {"enable_thinking": False}}),
        (Thinking.TEMPLATE, Reasoning(effort="low"), {"reasoning_effort": "low"}),
        (Thinking.OPENROUTER, Reasoning(enabled=True, effort="low"), {"reasoning": {"effort": "low"}}),
        (Thinking.OPENROUTER, Reasoning(enabled=True, budget_tokens=9), {"reasoning": {"max_tokens": 9}}),
        (Thinking.OPENROUTER, Reasoning(enabled=False), {"reasoning": {"enabled": False}}),
    ],
)
def test_thinking_in_the_words_of_each_server(thinking: Thinking, wish: Reasoning, sent: dict[str, object]) -> None:
    found = body(thinking, reasoning=wish)
    assert {name: found[name] for name in found if name not in body()} == sent


def test_a_model_name_can_ask_for_thinking_and_search() -> None:
    name = ModelName("m", Variant(thinking=True, search=True))
    assert body(Thinking.DASHSCOPE, model=name).items() >= {"enable_thinking": True, "enable_search": True}.items()
    request = ChatRequest(model=name, messages=())
    check(request, Thinking.DASHSCOPE)
    with pytest.raises(UnsupportedParameter) as refused:
        check(request, Thinking.EFFORT)
    assert refused.value.param == "model"


def test_foreign_fields_pass_and_replace_nothing_of_ours() -> None:
    sent = body(extra={"min_p": Raw(b"0.1"), "model": Raw(b'"x"'), "stream": Raw(b"false"), "user": Raw(b'"u"')})
    assert sent["min_p"] == 0.1 and sent["user"] == "u" and sent["model"] == "m-1" and sent["stream"] is True


def test_what_a_client_says_of_the_template_holds() -> None:
    def asked(given: bytes) -> dict[str, Any]:
        extra = {"chat_template_kwargs": Raw(given)}
        return body(Thinking.TEMPLATE, reasoning=Reasoning(enabled=True), extra=extra)["chat_template_kwargs"]

    assert asked(b'{"enable_thinking":false,"x":1}') == {"enable_thinking": False, "x": 1}
    with pytest.raises(UnsupportedParameter):
        asked(b"3")
