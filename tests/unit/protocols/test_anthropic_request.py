"""Messages bodies as our requests: what is understood, what is refused by name, what is dropped."""

from typing import Any

import msgspec
import pytest

from qwen_proxy.chat.models import Variant
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
from qwen_proxy.ground.errors import InvalidRequest, ThreadNotFound, UnsupportedParameter
from qwen_proxy.protocols.anthropic_messages import AnthropicCount, AnthropicMessages, Manner, MessagesCall
from qwen_proxy.protocols.base import Incoming, ParseOptions

Json = dict[str, Any]

HELLO: list[Json] = [{"role": "user", "content": "hello"}]
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBO"}
WEATHER: Json = {"name": "get_weather", "description": "of a place", "input_schema": {"type": "object"}}
WEATHER_TOOL = Tool("get_weather", "of a place", {"type": "object"})
DEFERRED: Json = {"name": "rare", "input_schema": {"type": "object"}, "defer_loading": True}


def incoming(body: Json) -> Incoming:
    return Incoming(path="/v1/messages", query={"beta": "true"}, headers={}, body=msgspec.json.encode(body))


def call(options: ParseOptions | None = None, **fields: Any) -> MessagesCall:
    body = {"model": "m", "max_tokens": 100, "messages": HELLO} | fields
    return AnthropicMessages().parse(incoming(body), options or ParseOptions())


def asked(**fields: Any) -> ChatRequest:
    return call(**fields).request


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        call(**fields)
    return refused.value


def user_parts(*blocks: Json) -> tuple[Part, ...]:
    (message,) = asked(messages=[{"role": "user", "content": list(blocks)}]).messages
    return message.parts


def assistant_parts(*blocks: Json) -> tuple[Part, ...]:
    message = asked(messages=[*HELLO, {"role": "assistant", "content": list(blocks)}]).messages[1]
    assert message.role is Role.ASSISTANT
    return message.parts


def result_parts(content: object) -> tuple[TextPart | ImagePart, ...]:
    (part,) = user_parts({"type": "tool_result", "tool_use_id": "toolu_1", "content": content})
    assert isinstance(part, ToolResultPart)
    return part.parts


def test_the_least_request():
    parsed = call()
    assert (parsed.stream, parsed.choices, parsed.ignored_fields, parsed.session) == (False, 1, (), "")
    assert not parsed.needs_prompt_tokens
    assert parsed.manner == Manner()
    request = parsed.request
    assert request.model.base == "m" and request.sampling == Sampling(max_tokens=100)
    assert request.messages == (Message(Role.USER, (TextPart("hello"),)),)
    assert (request.tools, request.tool_choice, request.output, request.reasoning) == ((), AUTO, None, Reasoning())


def test_a_stream_tells_its_prompt_tokens_at_the_beginning():
    assert call(stream=True).stream and call(stream=True).needs_prompt_tokens


def test_sampling_is_read_and_what_no_web_chat_takes_is_named_as_ignored():
    parsed = call(temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END", "END"], service_tier="auto")
    assert parsed.request.sampling == Sampling(temperature=0.5, top_p=0.9, top_k=40, max_tokens=100, stop=("END",))
    assert parsed.ignored_fields == ("temperature", "top_p", "top_k", "service_tier")


def test_context_management_and_fields_nobody_knows_are_ignored_by_name():
    parsed = call(context_management={"edits": []}, cache_control={"type": "ephemeral"}, diagnostics=None)
    assert parsed.ignored_fields == ("context_management", "cache_control")


def test_what_a_strict_server_refuses_is_known_once_the_upstream_is_but_for_a_count():
    assert call(ParseOptions(strict=True), service_tier="auto").ignored_fields == ("service_tier",)
    with pytest.raises(UnsupportedParameter):
        AnthropicCount().parse(incoming({"messages": HELLO, "service_tier": "auto"}), ParseOptions(strict=True))


def test_no_token_at_all_may_be_asked_for():
    assert asked(max_tokens=0).sampling.max_tokens == 0
    assert refusal(max_tokens=-1).param == "max_tokens"


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        ('{"device_id":"d","session_id":"s-1"}', "s-1"),
        ("user_1_session_2", "user_1_session_2"),
        ('{"device_id":"d"}', '{"device_id":"d"}'),
        ("", ""),
    ],
)
def test_the_session_is_read_out_of_the_users_id(user_id: str, session: str):
    parsed = call(metadata={"user_id": user_id})
    assert (parsed.session, parsed.ignored_fields) == (session, ())


@pytest.mark.parametrize("metadata", [{}, {"user_id": 5}, [], "x", None])
def test_metadata_of_another_shape_is_no_reason_to_refuse(metadata: object):
    assert call(metadata=metadata).session == ""


# --- system ------------------------------------------------------------------------------------------------


def test_a_system_text_comes_first():
    assert asked(system="Be kind.").messages[0] == Message(Role.SYSTEM, (TextPart("Be kind."),))
    blocks = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}]
    assert asked(system=blocks).messages[0] == Message(Role.SYSTEM, (TextPart("a"), TextPart("b")))


def test_claude_codes_billing_line_is_dropped_from_the_beginning_only():
    billing = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1;"}
    told = {"type": "text", "text": "You are an agent."}
    assert asked(system=[billing, told]).messages[0].parts == (TextPart("You are an agent."),)
    assert len(asked(system=[told, billing]).messages[0].parts) == 2
    assert (
        asked(system=[billing]).messages == asked(system="").messages == asked(system=[]).messages == asked().messages
    )


def test_only_text_is_a_system_block():
    assert refusal(system=[{"type": "image", "source": PNG}]).param == "system[0].type"
    assert refusal(system=[{"type": "text"}]).param == "system[0].text"


def test_a_system_message_stays_where_it_stands():
    messages: list[Json] = [
        *HELLO,
        {"role": "system", "content": "You are in /tmp."},
        {"role": "system", "content": [{"type": "text", "text": "It rains."}]},
        {"role": "assistant", "content": "Well"},
    ]
    roles = [message.role for message in asked(messages=messages).messages]
    assert roles == [Role.USER, Role.SYSTEM, Role.SYSTEM, Role.ASSISTANT]


def test_a_system_message_may_be_for_one_turn_only():
    once: Json = {"role": "system", "content": "now only", "clear_at": "next_user_message"}
    ever: Json = {"role": "system", "content": "for ever", "clear_at": "never"}
    assert len(asked(messages=[*HELLO, once]).messages) == 2
    later = asked(messages=[*HELLO, once, ever, {"role": "assistant", "content": "ok"}, *HELLO]).messages
    assert [message.role for message in later] == [Role.USER, Role.SYSTEM, Role.ASSISTANT, Role.USER]
    assert later[1].parts == (TextPart("for ever"),)


def test_a_system_message_without_content_may_change_the_effort():
    change: Json = {"role": "system", "output_config": {"effort": "low"}}
    request = asked(messages=[*HELLO, change], output_config={"effort": "high"})
    assert request.reasoning.effort == "low"
    assert len(request.messages) == 1
    assert asked(output_config={"effort": "high"}).reasoning == Reasoning(effort="high")


def test_messages_that_come_to_nothing_are_refused():
    assert refusal(messages=[]).param == "messages"
    assert refusal(messages=[], system="Be brief.").param == "messages"
    assert refusal(messages=[{"role": "system", "output_config": {"effort": "low"}}]).param == "messages"


# --- messages ----------------------------------------------------------------------------------------------


def test_an_unknown_role_and_a_user_without_content_are_refused_by_place():
    assert refusal(messages=[{"role": "tool", "content": "x"}]).param == "messages[0].role"
    assert refusal(messages=[*HELLO, {"role": "user"}]).param == "messages[1].content"


def test_text_blocks_are_parts_and_empty_ones_are_none():
    assert user_parts({"type": "text", "text": "a"}, {"type": "text", "text": ""}) == (TextPart("a"),)
    assert refusal(messages=[{"role": "user", "content": [{"type": "text"}]}]).param == "messages[0].content[0].text"


def test_images_come_as_data_or_by_address():
    url = {"type": "url", "url": "https://x.example/a.png"}
    assert user_parts({"type": "image", "source": PNG}, {"type": "image", "source": url}) == (
        ImagePart("data:image/png;base64,iVBO"),
        ImagePart("https://x.example/a.png"),
    )


@pytest.mark.parametrize(
    ("source", "param"),
    [
        (None, "source"),
        ("a string", "source"),
        ({"type": "base64"}, "source.data"),
        ({"type": "url"}, "source.url"),
        ({"type": "url", "url": "file:///etc/passwd"}, "source.url"),
        ({"type": "file", "file_id": "file_1"}, "source.file_id"),
        ({"type": "wax"}, "source.type"),
    ],
)
def test_a_wrong_source_is_refused_by_its_field(source: object, param: str):
    block = {"type": "image", "source": source}
    assert refusal(messages=[{"role": "user", "content": [block]}]).param == f"messages[0].content[0].{param}"


def test_documents_are_text_or_files():
    text: Json = {"type": "text", "media_type": "text/plain", "data": "Once upon"}
    pdf: Json = {"type": "base64", "data": "JVBE"}
    inner: Json = {"type": "content", "content": [{"type": "text", "text": "in it"}, {"type": "image", "source": PNG}]}
    assert user_parts({"type": "document", "source": text, "title": "Tale", "context": "old"}) == (
        TextPart("Tale\nold\nOnce upon"),
    )
    assert user_parts({"type": "document", "source": pdf, "title": "a.pdf"}) == (
        FilePart("document", "data:application/pdf;base64,JVBE", "a.pdf"),
    )
    image = ImagePart("data:image/png;base64,iVBO")
    assert user_parts({"type": "document", "source": inner, "title": "T"}) == (TextPart("T"), TextPart("in it"), image)
    whole = {"type": "content", "content": "all of it"}
    assert user_parts({"type": "document", "source": whole}) == (TextPart("all of it"),)
    odd = {"type": "content", "content": [{"type": "document"}]}
    wrong = refusal(messages=[{"role": "user", "content": [{"type": "document", "source": odd}]}])
    assert wrong.param == "messages[0].content[0].source.content[0].type"


def test_a_search_result_is_told_as_text():
    block: Json = {
        "type": "search_result",
        "title": "A",
        "source": "https://a",
        "content": [{"type": "text", "text": "b"}],
    }
    assert user_parts(block, {"type": "search_result", "content": "?"}) == (TextPart("A\nhttps://a\nb"), TextPart(""))


def test_a_block_nobody_knows_is_taken_for_its_text_or_refused_by_name():
    assert user_parts({"type": "note", "text": "mind this"}) == (TextPart("mind this"),)
    refused = refusal(messages=[{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}])
    assert refused.param == "messages[0].content[0].type"
    assert "container_upload" in str(refused)


def test_a_tools_result_is_a_string_or_blocks():
    assert result_parts("ok") == (TextPart("ok"),)
    assert result_parts([{"type": "text", "text": "a"}, {"type": "image", "source": PNG}]) == (
        TextPart("a"),
        ImagePart("data:image/png;base64,iVBO"),
    )
    assert result_parts(None) == result_parts([]) == result_parts({"odd": 1}) == ()
    failed, fine = user_parts(
        {"type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": True},
        {"type": "tool_result", "tool_use_id": "t2"},
    )
    assert failed == ToolResultPart("t1", (TextPart("no"),), True)
    assert fine == ToolResultPart("t2", ())
    missing = refusal(messages=[{"role": "user", "content": [{"type": "tool_result", "content": "ok"}]}])
    assert missing.param == "messages[0].content[0].tool_use_id"


def test_what_can_not_be_read_in_a_result_is_told_of_and_ends_nothing():
    pdf = {"type": "document", "title": "a.pdf", "source": {"type": "base64", "data": "JVBE"}}
    kept = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
    state, note = {"type": "browser_state"}, {"type": "new", "text": "seen"}
    assert result_parts([pdf, kept, state, note, {"type": "tool_reference", "tool_name": "rare"}]) == (
        TextPart("[document a.pdf: not shown]"),
        TextPart("[image: not shown]"),
        TextPart("[browser_state: not shown]"),
        TextPart("seen"),
        TextPart("The tool rare can be called now."),
    )


def test_an_assistants_turn_has_thinking_text_and_calls():
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": [1, "ü"]}}
    assert assistant_parts(
        {"type": "thinking", "thinking": "hm", "signature": "of somebody else"},
        {"type": "thinking", "thinking": "", "signature": "omitted"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "So"},
        call,
        {"type": "tool_use", "id": "toolu_2", "name": "g"},
    ) == (
        ReasoningPart("hm", "of somebody else"),
        TextPart("So"),
        ToolCallPart("toolu_1", "f", '{"a":[1,"ü"]}'),
        ToolCallPart("toolu_2", "g", "{}"),
    )


@pytest.mark.parametrize(
    ("block", "param"),
    [({"name": "f"}, "id"), ({"id": "t"}, "name"), ({"id": "t", "name": "f", "input": "x"}, "input")],
)
def test_a_broken_call_is_refused_by_its_field(block: Json, param: str):
    messages = [*HELLO, {"role": "assistant", "content": [{"type": "tool_use", **block}]}]
    assert refusal(messages=messages).param == f"messages[1].content[0].{param}"


def test_blocks_of_anthropics_own_tools_are_dropped_and_a_summary_is_kept():
    results = [{"type": "web_search_result", "url": "https://a", "title": "A", "encrypted_content": "x"}]
    assert assistant_parts(
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": results},
        {"type": "web_search_tool_result", "tool_use_id": "s2", "content": {"type": "web_search_tool_result_error"}},
        {"type": "compaction", "content": "They spoke of the weather."},
        {"type": "compaction", "content": None},
        {"type": "text", "text": "It rains."},
    ) == (TextPart("They spoke of the weather."), TextPart("It rains."))


def test_an_assistants_message_at_the_end_is_to_be_continued():
    request = asked(messages=[*HELLO, {"role": "assistant", "content": "The answer is ("}])
    assert request.messages[-1] == Message(Role.ASSISTANT, (TextPart("The answer is ("),))
    assert asked(messages=[*HELLO, {"role": "assistant"}]).messages[-1] == Message(Role.ASSISTANT, ())


# --- thinking and output -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thinking", "reasoning", "manner"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, Reasoning(enabled=True, budget_tokens=1024), Manner()),
        ({"type": "adaptive", "display": "updates"}, Reasoning(enabled=True), Manner()),
        ({"type": "adaptive", "display": "omitted"}, Reasoning(enabled=True), Manner(omits_thinking=True)),
        ({"type": "between_tools"}, Reasoning(enabled=True), Manner()),
        ({"type": "disabled"}, Reasoning(enabled=False), Manner(shows_thinking=False)),
    ],
)
def test_kinds_of_thinking(thinking: Json, reasoning: Reasoning, manner: Manner):
    parsed = call(thinking=thinking)
    assert (parsed.request.reasoning, parsed.manner) == (reasoning, manner)


def test_an_unknown_kind_of_thinking_is_refused():
    assert refusal(thinking={"type": "deep"}).param == "thinking.type"


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"output_format": {"type": "json_schema", "schema": {"type": "object"}}},
    ],
)
def test_both_ways_to_ask_for_json(fields: Json):
    parsed = call(**fields)
    assert parsed.request.output == OutputFormat(schema={"type": "object"}, strict=True)
    assert parsed.manner == Manner(is_single=True)
    assert parsed.ignored_fields == ()


def test_a_wrong_format_of_the_output_is_refused():
    assert refusal(output_format={"type": "xml"}).param == "output_format.type"
    assert refusal(output_config={"format": {"type": "json_schema"}}).param == "output_config.format.schema"


# --- threads and servers -----------------------------------------------------------------------------------


def test_threads_are_refused_so_that_the_sdks_go_on_without():
    refused = refusal(thread={"type": "create"})
    assert isinstance(refused, UnsupportedParameter) and refused.param == "thread"
    with pytest.raises(ThreadNotFound):
        call(messages=[], thread={"type": "continue", "previous_message_id": "msg_1"})
    with pytest.raises(ThreadNotFound):
        call(thread={"type": "continue"})


def test_servers_that_nobody_would_call_are_refused():
    assert refusal(mcp_servers=[{"type": "url", "url": "https://x"}]).param == "mcp_servers"
    assert call(mcp_servers=[]).ignored_fields == ()


# --- tools -------------------------------------------------------------------------------------------------


def change(kind: str, tool: object) -> Json:
    return {"role": "system", "content": [{"type": kind, "tool": tool}]}


def named(name: str) -> Json:
    return {"type": "tool_reference", "name": name}


def offered(*tools: Json, messages: list[Json] | None = None) -> list[str]:
    return [tool.name for tool in asked(tools=list(tools), messages=messages or HELLO).tools]


def test_tools_are_offered_with_their_schema():
    assert asked(tools=[WEATHER]).tools == (WEATHER_TOOL,)
    assert asked(tools=[{"type": "custom", "name": "f", "strict": True}]).tools == (Tool("f", "", None, True),)
    assert refusal(tools=[WEATHER, {"description": "?"}]).param == "tools[1].name"
    assert refusal(tools=[{"name": ""}]).param == "tools[0].name"


def test_a_deferred_tool_is_offered_once_a_result_refers_to_it():
    assert offered(WEATHER, DEFERRED) == ["get_weather"]

    def found(content: object) -> list[Json]:
        return [*HELLO, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": content}]}]

    references = [{"type": "tool_reference", "tool_name": name} for name in ("rare", "gone", "")]
    assert offered(WEATHER, DEFERRED, messages=found([{"type": "text", "text": "two"}, *references])) == [
        "get_weather",
        "rare",
    ]
    assert offered(WEATHER, DEFERRED, messages=found("rare")) == ["get_weather"]


def test_where_anthropic_would_search_for_tools_all_are_offered():
    finder = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    assert offered(WEATHER, DEFERRED, finder) == ["get_weather", "rare"]


def test_system_messages_change_the_offer_in_their_order():
    assert offered(WEATHER, messages=[*HELLO, change("tool_removal", named("get_weather"))]) == []
    assert offered(WEATHER, DEFERRED, messages=[*HELLO, change("tool_addition", named("rare"))]) == [
        "get_weather",
        "rare",
    ]
    definition = {"type": "tool_definition", "definition": {"name": "new", "input_schema": {"type": "object"}}}
    back = [change("tool_addition", definition), change("tool_removal", named("new"))]
    assert offered(messages=[*HELLO, back[0]]) == ["new"]
    assert offered(messages=[*HELLO, *back]) == []
    assert offered(messages=[*HELLO, *back, change("tool_addition", named("new"))]) == ["new"]
    assert offered(messages=[*HELLO, change("tool_removal", named("never there"))]) == []
    request = asked(
        messages=[
            *HELLO,
            {
                "role": "system",
                "content": [change("tool_addition", definition)["content"][0], {"type": "text", "text": "Use it."}],
            },
        ]
    )
    assert request.messages[1].parts == (TextPart("Use it."),)


@pytest.mark.parametrize(
    "tool",
    [
        None,
        {"type": "mcp_toolset_reference", "name": "x"},
        {"type": "tool_reference"},
        {"type": "tool_definition"},
        named("unknown"),
    ],
)
def test_a_change_that_can_not_be_understood_is_refused(tool: object):
    refused = refusal(messages=[*HELLO, change("tool_addition", tool)])
    assert refused.param == "messages[1].content[0].tool"


def test_anthropics_search_of_the_web_is_ours():
    parsed = call(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}, WEATHER])
    assert parsed.request.model.variant == Variant(search=True)
    assert parsed.manner == Manner(searches=True)
    assert parsed.request.tools == (WEATHER_TOOL,)


def test_tools_whose_schema_is_known_by_type_are_offered_with_it():
    tools = asked(
        tools=[
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
            {"type": "memory_20250818"},
        ]
    ).tools
    assert [tool.name for tool in tools] == ["bash", "str_replace_based_edit_tool", "memory"]
    assert all(tool.description and tool.parameters for tool in tools)


def test_a_tool_that_anthropic_would_run_is_refused():
    refused = refusal(tools=[{"type": "code_execution_20250825", "name": "code_execution"}])
    assert isinstance(refused, UnsupportedParameter) and refused.param == "tools[0].type"


@pytest.mark.parametrize(
    ("wish", "choice"),
    [
        ({"type": "auto"}, AUTO),
        ({"type": "none"}, ToolChoice(ToolChoiceKind.NONE)),
        ({"type": "any"}, ToolChoice(ToolChoiceKind.REQUIRED)),
        ({"type": "tool", "name": "get_weather"}, ToolChoice(ToolChoiceKind.REQUIRED, ("get_weather",))),
    ],
)
def test_choices_of_tools(wish: Json, choice: ToolChoice):
    request = asked(tools=[WEATHER], tool_choice=wish)
    assert (request.tool_choice, request.parallel_tool_calls) == (choice, True)
    one = asked(tools=[WEATHER], tool_choice=wish | {"disable_parallel_tool_use": True})
    assert (one.tool_choice, one.parallel_tool_calls) == (choice, False)


@pytest.mark.parametrize(
    ("wish", "tools", "param"),
    [
        ({"type": "any"}, [], "tool_choice"),
        ({"type": "tool"}, [WEATHER], "tool_choice.name"),
        ({"type": "tool", "name": "rare"}, [WEATHER, DEFERRED], "tool_choice.name"),
        ({"type": "must"}, [WEATHER], "tool_choice.type"),
    ],
)
def test_choices_that_can_not_be_kept_are_refused(wish: Json, tools: list[Json], param: str):
    assert refusal(tools=tools, tool_choice=wish).param == param


def test_counting_reads_the_same_body():
    request = AnthropicCount().parse(incoming({"model": "m", "messages": HELLO, "tools": [WEATHER]}), ParseOptions())
    assert request.tools == (WEATHER_TOOL,)
    assert AnthropicCount().result(7) == b'{"input_tokens":7}'
