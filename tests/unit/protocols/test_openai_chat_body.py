"""What clients send to `/v1/chat/completions`: every field, every spelling, every way to get it wrong."""

import msgspec
import pytest

from qwen_proxy.chat.models import ModelName
from qwen_proxy.chat.request import (
    AUTO,
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
from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.protocols.base import Incoming, ParseOptions
from qwen_proxy.protocols.openai_chat import ChatCall, OpenAIChat
from qwen_proxy.protocols.openai_chat_body import ChatBody

USER = {"role": "user", "content": "Hi"}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it", "parameters": {"type": "object"}},
}
CLOCK = {"type": "function", "function": {"name": "clock", "strict": True}}
PATCH = {"type": "custom", "custom": {"name": "patch", "description": "Changes files."}}
JsonObject = dict[str, object]


def parse_bytes(body: bytes, options: ParseOptions | None = None) -> ChatCall:
    incoming = Incoming(path="/v1/chat/completions", query={}, headers={}, body=body)
    return OpenAIChat().parse(incoming, options or ParseOptions())


def parse(**fields: object) -> ChatCall:
    return parse_bytes(msgspec.json.encode({"messages": [USER], **fields}))


def asked(**fields: object) -> ChatRequest:
    return parse(**fields).request


def message(**fields: object) -> Message:
    return asked(messages=[fields]).messages[0]


def part(**fields: object) -> Part:
    return message(role="user", content=[fields]).parts[0]


def refused(**fields: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    return caught.value


# --- the whole ---------------------------------------------------------------------------------------------


def test_the_least_request():
    call = parse(model="qwen3.7-plus")
    assert call == ChatCall(
        request=ChatRequest(model=ModelName("qwen3.7-plus"), messages=(Message(Role.USER, (TextPart("Hi"),)),)),
        stream=False,
        include_usage=False,
        choices=1,
        ignored_fields=(),
    )


def test_a_missing_model_is_left_to_the_catalogue():
    assert asked().model == asked(model=None).model == ModelName("")


def test_null_is_absent():
    ours = set(ChatBody.__struct_fields__) - {"messages"}
    assert parse(**dict.fromkeys([*ours, "logit_bias", "size"])) == parse()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"[]", "the request body: expected `object`, got `array`"),
        (b"nonsense", "no valid JSON"),
        (b'{"messages": [', "no valid JSON"),
        (b'{"messages": [{"role": "\xff"}]}', "no valid JSON in UTF-8"),
        (
            b'{"messages": [{"role": "user", "content": ""}], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "nested too deeply",
        ),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "messages": [{"role": "user"}]}', "nested too deeply"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, problem: str):
    with pytest.raises(InvalidRequest) as caught:
        parse_bytes(body)
    assert problem in str(caught.value)
    assert caught.value.param is None


@pytest.mark.parametrize(
    ("body", "param", "problem"),
    [
        ({}, "messages", "`messages` is missing"),
        ({"messages": []}, "messages", "messages: expected `array` of length >= 1"),
        ({"messages": [USER] * 10_001}, "messages", "messages: expected `array` of length <= 10000"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}] * 10_001}]},
            "messages[0].content",
            "messages[0].content: expected `array` of length <= 10000",
        ),
        ({"messages": "Hi"}, "messages", "messages: expected `array`, got `string`"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role", "`messages[0].role` is missing"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "expected `string | array | null`"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": 5}]}]},
            "messages[0].content[1].text",
            "expected `string | null`, got `integer`",
        ),
        ({"messages": [USER], "temperature": "hot"}, "temperature", "expected `number | null`, got `string`"),
        ({"messages": [USER], "max_tokens": 0}, "max_tokens", "expected `integer` >= 1"),
        ({"messages": [USER], "logprobs": 1}, "logprobs", "expected `boolean | null`, got `integer`"),
    ],
)
def test_a_wrong_shape_is_named_by_its_path_with_what_would_be_right(body: JsonObject, param: str, problem: str):
    with pytest.raises(InvalidRequest) as caught:
        parse_bytes(msgspec.json.encode(body))
    assert caught.value.param == param
    assert problem in str(caught.value)


# --- fields about the reply --------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "streamed"), [(True, True), ("true", True), (False, False), ("false", False)])
def test_stream(given: object, streamed: bool):
    assert parse(stream=given).stream is streamed


def test_stream_is_a_boolean():
    assert refused(stream="yes").param == "stream"


def test_include_usage():
    assert parse(stream=True, stream_options={"include_usage": True, "include_obfuscation": False}).include_usage
    assert not parse(stream=True, stream_options={"include_usage": None}).include_usage
    assert not parse(stream=True, stream_options={}).include_usage


def test_choices_up_to_the_servers_cap():
    assert parse(n=3).choices == 3
    error = refused(n=9)
    assert (error.param, str(error)) == ("n", "n is 9; this server makes at most 8 choices a request")
    assert refused(n=0).param == "n"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
    ],
)
def test_what_can_not_be_done_is_refused_by_name(field: str, value: object):
    error = refused(**{field: value})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == field
    assert field in str(error)


def test_what_asks_for_nothing_special_is_fine():
    fields = {"logprobs": False, "top_logprobs": 0, "response_format": {"type": "text"}, "modalities": ["text"]}
    assert parse(**fields) == parse()


def test_an_unknown_response_format_is_refused():
    error = refused(response_format={"type": "yaml"})
    assert not isinstance(error, UnsupportedParameter)
    assert error.param == "response_format.type"


def test_log_probabilities_are_the_upstreams_to_refuse():
    sampling = asked(logprobs=True, top_logprobs=3).sampling
    assert (sampling.logprobs, sampling.top_logprobs) == (True, 3)


def test_formats_of_output():
    assert asked(response_format={"type": "json_object"}).output == OutputFormat()
    schema = {"name": "p", "description": "d", "schema": {"type": "object"}, "strict": True}
    wanted = OutputFormat(schema={"type": "object"}, name="p", description="d", strict=True)
    assert asked(response_format={"type": "json_schema", "json_schema": schema}).output == wanted
    for given in ({}, {"json_schema": {"name": "p"}}):
        assert refused(response_format={"type": "json_schema", **given}).param == "response_format.json_schema"


# --- sampling and thinking ---------------------------------------------------------------------------------


def test_sampling():
    wish = Sampling(temperature=1, top_p=0.5, top_k=5, seed=7, presence_penalty=-1, frequency_penalty=0.25)
    fields: JsonObject = {
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 5,
        "seed": 7,
        "presence_penalty": -1,
        "frequency_penalty": 0.25,
    }
    call = parse(**fields)
    assert call.request.sampling == wish
    assert call.ignored_fields == tuple(fields)
    assert asked(max_tokens=9, stop="END").sampling == Sampling(max_tokens=9, stop=("END",))


def test_the_newer_name_of_max_tokens_wins():
    assert asked(max_tokens=9, max_completion_tokens=5).sampling.max_tokens == 5


@pytest.mark.parametrize(("stop", "stops"), [("END", ("END",)), (["a", "b", "a"], ("a", "b")), ([], ())])
def test_stop_is_a_text_or_several(stop: object, stops: tuple[str, ...]):
    assert asked(stop=stop).sampling.stop == stops


@pytest.mark.parametrize("stop", ["", ["a", ""], [str(i) for i in range(17)], "x" * 1025])
def test_stop_sequences_that_can_not_be_kept(stop: object):
    assert refused(stop=stop).param == "stop"


@pytest.mark.parametrize(
    ("fields", "enabled"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "xhigh"}, True),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": "true"}, True),
        ({"enable_thinking": False, "reasoning_effort": "high"}, False),
    ],
)
def test_whether_to_think(fields: JsonObject, enabled: bool | None):
    effort = fields.get("reasoning_effort")
    assert isinstance(effort, str | None)
    assert asked(**fields).reasoning == Reasoning(enabled=enabled, effort=effort)


def test_how_much_to_think():
    assert asked(thinking_budget=1000).reasoning == Reasoning(budget_tokens=1000)
    assert refused(thinking_budget=0).param == "thinking_budget"


# --- session -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "session"),
    [
        ({}, ""),
        ({"metadata": {"user_id": "u"}, "prompt_cache_key": "c"}, "u"),
        ({"metadata": {"user_id": "u", "sessionId": "s", "promptId": "p"}}, "s"),
        ({"metadata": {"user_id": 5}, "prompt_cache_key": "c"}, "c"),
        ({"metadata": ["user_id"], "prompt_cache_key": {"a": 1}}, ""),
        ({"metadata": None, "prompt_cache_key": None}, ""),
    ],
)
def test_what_a_body_says_of_its_session(fields: JsonObject, session: str):
    assert parse(**fields).session == session


def test_a_session_that_is_no_text_is_none():
    body = b'{"metadata": {"user_id": "\xff"}, "prompt_cache_key": "c", "messages": [{"role": "user", "content": ""}]}'
    assert parse_bytes(body).session == "c"


def test_a_session_has_its_effect_and_other_metadata_none():
    assert parse(metadata={"a": "b"}, prompt_cache_key="c").ignored_fields == ("metadata",)


# --- ignored fields ----------------------------------------------------------------------------------------


def test_fields_without_effect_are_listed_in_their_order():
    body = b'{"user": "u", "logit_bias": {}, "size": "1:1", "messages": [{"role": "user", "content": ""}], "seed": 1}'
    assert parse_bytes(body).ignored_fields == ("user", "logit_bias", "size", "seed")


def test_names_of_fields_are_fit_for_a_header():
    assert parse(**{"a\r\nb": 1, "ü": 2, "x" * 65: 3, "a-b.c": 4}).ignored_fields == ("?", "?", "?", "a-b.c")
    assert len(parse(**{f"x{i}": i for i in range(500)}).ignored_fields) == 40


def test_strictness_is_for_who_knows_the_upstream():
    body = msgspec.json.encode({"messages": [USER], "user": "u"})
    assert parse_bytes(body, ParseOptions(strict=True)).ignored_fields == ("user",)


def test_fields_that_are_not_read_here_are_kept_for_an_upstream_that_knows_them():
    fields: JsonObject = {"min_p": 0.1, "metadata": {"a": 1}, "prompt_cache_key": "c", "seed": 1, "store": None}
    kept = asked(**fields).extra
    assert {name: msgspec.json.decode(value) for name, value in kept.items()} == {
        "min_p": 0.1,
        "metadata": {"a": 1},
        "prompt_cache_key": "c",
    }
    assert len(asked(**{f"x{i}": i for i in range(500)}).extra) == 40
    assert asked(temperature=1, seed=1).extra == {}
    assert asked(prompt_cache_key="c").extra.keys() == {"prompt_cache_key"}
    assert asked(metadata={"a": 1}).extra.keys() == {"metadata"}


def test_the_word_of_effort_is_kept():
    assert asked(reasoning_effort="low").reasoning.effort == "low"


# --- messages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "ours"),
    [("user", Role.USER), ("assistant", Role.ASSISTANT), ("system", Role.SYSTEM), ("developer", Role.SYSTEM)],
)
def test_roles(role: str, ours: Role):
    assert message(role=role, content="Hi", name="Ann") == Message(ours, (TextPart("Hi"),))
    assert message(role=role, content=[{"type": "text", "text": "Hi"}]) == Message(ours, (TextPart("Hi"),))


def test_an_unknown_role_is_refused():
    assert refused(messages=[USER, {"role": "wizard", "content": ""}]).param == "messages[1].role"


def test_empty_content():
    assert message(role="user", content="").parts == ()
    assert message(role="user", content=[]).parts == ()
    assert message(role="assistant", content=None).parts == ()
    assert refused(messages=[{"role": "user", "content": None}]).param == "messages[0].content"


@pytest.mark.parametrize(
    ("sent", "ours"),
    [
        ({"type": "text", "text": "Hi"}, TextPart("Hi")),
        ({"type": "refusal", "refusal": "No"}, TextPart("No")),
        ({"type": "image_url", "image_url": {"url": "https://x/a", "detail": "low"}}, ImagePart("https://x/a", "low")),
        ({"type": "image_url", "image_url": "data:image/png;base64,AA"}, ImagePart("data:image/png;base64,AA")),
        ({"type": "image", "image": "http://x/a"}, ImagePart("http://x/a")),
        ({"type": "image", "url": "https://x/a"}, ImagePart("https://x/a")),
        ({"type": "video", "video": "https://x/a"}, FilePart("video", "https://x/a")),
        ({"type": "video_url", "video_url": {"url": "https://x/a"}}, FilePart("video", "https://x/a")),
        ({"type": "input_video", "input_video": {"video_url": "https://x/a"}}, FilePart("video", "https://x/a")),
        (
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            FilePart("audio", "data:audio/wav;base64,AA=="),
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
            FilePart("document", "data:application/pdf;base64,AA", "a.pdf"),
        ),
        ({"type": "file", "file": {"file_data": "https://x/a"}}, FilePart("document", "https://x/a")),
    ],
)
def test_content_parts(sent: JsonObject, ours: Part):
    assert part(**sent) == ours


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"type": "hologram"}, "type"),
        ({"type": "text"}, "text"),
        ({"type": "refusal"}, "refusal"),
        ({"type": "image_url"}, "image_url"),
        ({"type": "image_url", "image_url": {}}, "image_url"),
        ({"type": "image_url", "image_url": "file:///etc/passwd"}, "image_url"),
        ({"type": "video"}, "video"),
        ({"type": "input_audio"}, "input_audio"),
        ({"type": "input_audio", "input_audio": {"data": ""}}, "input_audio.format"),
        ({"type": "file"}, "file"),
        ({"type": "file", "file": {}}, "file.file_data"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
    ],
)
def test_content_parts_that_are_refused(sent: JsonObject, field: str):
    error = refused(messages=[USER, {"role": "user", "content": [{"type": "text", "text": ""}, sent]}])
    assert error.param == f"messages[1].content[1].{field}"


def test_an_assistants_turn_with_all_there_is():
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    sent = {
        "role": "assistant",
        "content": "Let me see",
        "reasoning_content": "hm",
        "refusal": "no",
        "tool_calls": [call],
    }
    assert message(**sent).parts == (
        ReasoningPart("hm"),
        TextPart("Let me see"),
        TextPart("no"),
        ToolCallPart("c1", "weather", '{"city": "Rome"}'),
    )


def test_a_call_of_the_older_kind():
    sent = {"role": "assistant", "content": None, "function_call": {"name": "clock", "arguments": "{}"}}
    assert message(**sent).parts == (ToolCallPart("clock", "clock", "{}"),)


@pytest.mark.parametrize("call", [{"id": "c1", "type": "custom"}, {"id": "c1", "type": "function"}])
def test_a_call_of_another_kind_is_refused(call: JsonObject):
    error = refused(messages=[{"role": "assistant", "tool_calls": [call]}])
    assert error.param == "messages[0].tool_calls[0]"


def test_results_of_tools():
    sent = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "dry"}]}
    assert message(**sent) == Message(Role.USER, (ToolResultPart("c1", (TextPart("dry"),)),))
    assert message(role="function", name="clock", content="noon").parts == (
        ToolResultPart("clock", (TextPart("noon"),)),
    )


def test_a_result_names_its_call():
    assert refused(messages=[{"role": "tool", "content": "dry"}]).param == "messages[0].tool_call_id"
    assert refused(messages=[{"role": "function", "content": "dry"}]).param == "messages[0].name"


def test_a_result_holds_text_and_images():
    content = [{"type": "image_url", "image_url": "https://x"}, {"type": "video", "video": "https://x"}]
    error = refused(messages=[{"role": "tool", "tool_call_id": "c1", "content": content}])
    assert error.param == "messages[0].content[1].type"


# --- tools -------------------------------------------------------------------------------------------------


def test_tools_of_both_kinds():
    assert asked(tools=[WEATHER], functions=[{"name": "clock", "strict": True}]).tools == (
        Tool("weather", "Tells it", {"type": "object"}),
        Tool("clock", strict=True),
    )
    assert asked(tools=[]).tools == ()


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (None, "Changes files."),
        ({"type": "text"}, "Changes files."),
        (
            {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /x+/"}},
            "Changes files.\n\nThe input has to follow this lark grammar:\nstart: /x+/",
        ),
    ],
)
def test_a_custom_tool_is_a_function_with_one_text(form: object, told: str):
    custom = {"name": "patch", "description": "Changes files.", "format": form}
    read = parse(tools=[WEATHER, {"type": "custom", "custom": custom}])
    weather, patch = read.request.tools
    assert (weather.name, patch.name, patch.description) == ("weather", "patch", told)
    assert patch.parameters is not None and patch.parameters["required"] == ["input"]
    assert read.freeform == {"patch"}
    assert parse(tools=[WEATHER]).freeform == frozenset()


def test_a_custom_call_in_the_history_holds_its_text():
    called = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": 'a "b"\n'}}
    sent = {"role": "assistant", "content": None, "tool_calls": [called]}
    assert message(**sent).parts == (ToolCallPart("c1", "patch", r'{"input":"a \"b\"\n"}'),)


def test_parallel_tool_calls():
    assert asked(parallel_tool_calls=True).parallel_tool_calls
    assert not asked(parallel_tool_calls=False).parallel_tool_calls


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "mcp", "custom": {"name": "x"}}, "tools[1].type"),
        ({"type": "custom", "name": "x"}, "tools[1].custom"),
        ({"type": "custom", "custom": {"name": ""}}, "tools[1].custom.name"),
        ({"type": "custom", "custom": {"name": "x", "format": {"type": "xml"}}}, "tools[1].custom.format.type"),
        ({"type": "custom", "custom": {"name": "x", "format": {"type": "grammar"}}}, "tools[1].custom.format.grammar"),
        (
            {"type": "custom", "custom": {"name": "x", "format": {"type": "grammar", "grammar": {"syntax": "lark"}}}},
            "tools[1].custom.format.grammar.definition",
        ),
        ({"type": "custom", "custom": {"name": "weather"}}, "tools"),
        ({"type": "function"}, "tools[1].function"),
        ({"type": "function", "function": {"name": ""}}, "tools[1].function.name"),
        ({"type": "function", "function": {"name": "x", "parameters": []}}, "tools[1].function.parameters"),
    ],
)
def test_tools_that_are_refused(tool: JsonObject, param: str):
    assert refused(tools=[WEATHER, tool]).param == param


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, AUTO),
        ({"tool_choice": "auto"}, AUTO),
        ({"tool_choice": "none"}, ToolChoice(ToolChoiceKind.NONE)),
        ({"tool_choice": "required"}, ToolChoice(ToolChoiceKind.REQUIRED)),
        (
            {"tool_choice": {"type": "function", "function": {"name": "clock"}}},
            ToolChoice(ToolChoiceKind.REQUIRED, ("clock",)),
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [WEATHER]}}},
            ToolChoice(ToolChoiceKind.AUTO, ("weather",)),
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [WEATHER, CLOCK]},
                }
            },
            ToolChoice(ToolChoiceKind.REQUIRED, ("weather", "clock")),
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
            ToolChoice(ToolChoiceKind.NONE),
        ),
        (
            {"tool_choice": {"type": "custom", "custom": {"name": "patch"}}},
            ToolChoice(ToolChoiceKind.REQUIRED, ("patch",)),
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [PATCH, CLOCK]}}},
            ToolChoice(ToolChoiceKind.AUTO, ("patch", "clock")),
        ),
        ({"function_call": "none"}, ToolChoice(ToolChoiceKind.NONE)),
        ({"function_call": {"name": "clock"}}, ToolChoice(ToolChoiceKind.REQUIRED, ("clock",))),
    ],
)
def test_tool_choice(fields: JsonObject, choice: ToolChoice):
    assert asked(tools=[WEATHER, CLOCK, PATCH], **fields).tool_choice == choice


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": {"type": "custom"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "all", "tools": []}}},
            "tool_choice.allowed_tools.mode",
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}},
            "tool_choice.allowed_tools.tools",
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp"}]}}},
            "tool_choice.allowed_tools.tools[0]",
        ),
        ({"function_call": {"name": "x"}}, "function_call"),
        ({"function_call": "maybe"}, "function_call"),
    ],
)
def test_tool_choices_that_are_refused(fields: JsonObject, param: str):
    assert refused(tools=[WEATHER], **fields).param == param


def test_a_call_can_not_be_required_without_tools():
    assert refused(tool_choice="required").param == "tool_choice"
    assert asked(tool_choice="none").tool_choice == ToolChoice(ToolChoiceKind.NONE)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\uDE00 cut", "\ufffd cut"),
        (rb"whole \ud83d\ude00", "whole \U0001f600"),
        (rb"\ud83d\uD83D\uDE00", "\ufffd\U0001f600"),
        (rb"a backslash \\ud83d", "a backslash \\ud83d"),
        (rb"two \\\\\ud83d", "two \\\\\ufffd"),
    ],
)
def test_half_a_character_becomes_the_one_that_says_so(sent: bytes, read: str) -> None:
    """JavaScript clients that cut a text between two of its units leave one."""
    call = parse_bytes(b'{"messages": [{"role": "user", "content": "' + sent + b'"}]}')
    assert call.request.messages[0].parts == (TextPart(read),)


def test_half_a_character_keeps_no_field_from_who_may_know_it() -> None:
    call = parse_bytes(rb'{"messages": [{"role": "user", "content": "\ud83d"}], "min_p": 0.1}')
    assert {name: bytes(value) for name, value in call.request.extra.items()} == {"min_p": b"0.1"}
