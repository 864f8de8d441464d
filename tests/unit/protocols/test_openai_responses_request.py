"""What `/v1/responses` takes, and what becomes of it."""

from typing import Any

import msgspec
import pytest

from qwen_proxy.chat.request import (
    AUTO,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    ReasoningPart,
    Role,
    Sampling,
    TextPart,
    ToolCallPart,
    ToolChoice,
    ToolChoiceKind,
    ToolResultPart,
)
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.protocols.base import Incoming, ParseOptions
from qwen_proxy.protocols.openai_responses import OpenAIResponses, ResponsesCall, call
from qwen_proxy.protocols.openai_responses_body import ItemBody
from qwen_proxy.protocols.openai_responses_items import COMPACTED
from qwen_proxy.protocols.openai_responses_request import Context, references
from qwen_proxy.protocols.openai_responses_sealed import opened, sealed
from qwen_proxy.protocols.openai_responses_tools import Origin

PROTOCOL = OpenAIResponses()
LIST = {"type": "function", "name": "list", "description": "Lists.", "parameters": {"type": "object"}, "strict": True}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Patches.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"},
}
AGENTS = {
    "type": "namespace",
    "name": "agents",
    "description": "Others.",
    "tools": [{"type": "function", "name": "spawn"}, {"type": "custom", "name": "list"}, {"type": "namespace"}],
}


def incoming(body: object) -> Incoming:
    return Incoming(path="/v1/responses", query={}, headers={}, body=msgspec.json.encode(body))


def parse(input: object = "hello", **fields: object) -> ResponsesCall:
    return PROTOCOL.parse(incoming({"input": input, **fields}), ParseOptions())


def messages(*items: object, **fields: object) -> tuple[Message, ...]:
    return parse(list(items), **fields).request.messages


def spoken(content: object, role: str = "user") -> tuple[object, ...]:
    (message,) = messages({"role": role, "content": content})
    return message.parts


def refusal(input: object = "hello", **fields: object) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as refused:
        parse(input, **fields)
    return refused.value.param, str(refused.value)


def test_a_text_is_a_users_message() -> None:
    assert parse("hello").request.messages == (Message(Role.USER, (TextPart("hello"),)),)


def test_instructions_come_first() -> None:
    said = messages({"type": "message", "role": "developer", "content": "b"}, instructions="a")
    assert said == (Message(Role.SYSTEM, (TextPart("a"),)), Message(Role.SYSTEM, (TextPart("b"),)))


def test_the_kinds_of_content() -> None:
    assert spoken(
        [
            {"type": "input_text", "text": "a"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "high"},
            {"type": "input_image", "image_url": {"url": "https://x.example/a.png"}, "detail": "auto"},
            {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
            {"type": "input_file", "file_url": "https://x.example/a.pdf"},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            {"type": "refusal", "refusal": "no"},
        ]
    ) == (
        TextPart("a"),
        ImagePart("data:image/png;base64,AA==", "high"),
        ImagePart("https://x.example/a.png"),
        FilePart("document", "data:application/pdf;base64,AA==", "a.pdf"),
        FilePart("document", "https://x.example/a.pdf"),
        FilePart("audio", "data:audio/wav;base64,AA=="),
        TextPart("no"),
    )


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "video"}, "type"),
        ({"type": "input_text"}, "text"),
        ({"type": "refusal"}, "refusal"),
        ({"type": "input_image"}, "image_url"),
        ({"type": "input_image", "file_id": "f"}, "file_id"),
        ({"type": "input_image", "image_url": "ftp://x"}, "image_url"),
        ({"type": "input_file"}, "file_data"),
        ({"type": "input_file", "file_id": "f"}, "file_id"),
        ({"type": "input_audio"}, "input_audio"),
    ],
)
def test_content_that_is_wrong_is_named(part: object, param: str) -> None:
    named, sentence = refusal([{"role": "user", "content": [part]}])
    assert named == f"input[0].content[0].{param}" and sentence


def test_items_that_are_wrong_are_named() -> None:
    assert refusal([{"role": "robot", "content": "a"}])[0] == "input[0].role"
    assert refusal([{"role": "user", "content": [{"text": "a"}]}])[0] == "input[0].content[0].type"
    assert refusal([{"role": "user", "content": 1}])[0] == "input[0].content"
    assert refusal([{"role": "user"}])[0] == "input[0].content"
    assert refusal([{"type": "function_call", "name": "a"}])[0] == "input[0].arguments"
    assert refusal([{"type": "function_call", "arguments": "{}"}])[0] == "input[0].name"
    assert refusal([{"type": "function_call", "name": "a", "arguments": "{}"}])[0] == "input[0].call_id"
    assert refusal([{"type": "function_call_output", "output": ""}])[0] == "input[0].call_id"
    assert refusal([{"type": "additional_tools", "tools": [{"name": "a"}]}])[0] == "input[0].tools[0].type"
    assert refusal([{"type": "compaction"}])[0] == "input[0].encrypted_content"
    assert "was not written by this server" in refusal([{"type": "compaction", "encrypted_content": "x"}])[1]
    assert refusal([{"id": 7}])[0] == "input[0].id"
    assert refusal([])[0] == refusal(None)[0] == refusal("")[0] == "input"


def test_what_an_assistant_does_at_once_is_one_message() -> None:
    box = [LIST, PATCH]
    said = messages(
        {"role": "user", "content": "go"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "list", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": '*** "x"'},
        {"type": "function_call_output", "call_id": "c1", "output": "a.txt"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [
                {"type": "input_text", "text": "done"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
                {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
            ],
        },
        {"role": "assistant", "content": "Well."},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "thanks"},
        {"role": "user", "content": "bye"},
        tools=box,
    )
    assert [(message.role, len(message.parts)) for message in said] == [
        (Role.USER, 1),
        (Role.ASSISTANT, 4),
        (Role.USER, 2),
        (Role.ASSISTANT, 1),
        (Role.ASSISTANT, 1),
        (Role.USER, 1),
        (Role.USER, 1),
    ]
    assert said[1].parts == (
        ReasoningPart("hm"),
        TextPart("I look."),
        ToolCallPart("c1", "list", "{}"),
        ToolCallPart("c2", "apply_patch", '{"input":"*** \\"x\\""}'),
    )
    assert said[2].parts == (
        ToolResultPart("c1", (TextPart("a.txt"),)),
        ToolResultPart(
            "c2",
            (
                TextPart("done"),
                ImagePart("data:image/png;base64,AA=="),
                TextPart("[a file was here that can't be shown: a.pdf]"),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"encrypted_content": sealed("ours"), "summary": [{"text": "not it"}]}, "ours"),
        ({"encrypted_content": "foreign", "summary": [{"text": "a"}, {"text": "b"}]}, "a\n\nb"),
        ({"content": [{"type": "reasoning_text", "text": "all"}], "summary": []}, "all"),
        ({"content": [{"type": "input_image", "image_url": "https://x"}], "summary": [{"text": "a"}]}, "a"),
    ],
)
def test_reasoning_is_read_from_where_it_stands(item: dict[str, object], text: str) -> None:
    (message,) = messages({"type": "reasoning", **item})
    assert message == Message(Role.ASSISTANT, (ReasoningPart(text, item.get("encrypted_content")),))  # pyright: ignore[reportArgumentType] a string, or not there


def test_foreign_reasoning_without_a_text_says_nothing() -> None:
    items: list[object] = [
        {"type": "reasoning", "encrypted_content": "gAAA", "summary": []},
        {"type": "reasoning", "encrypted_content": "gAAA", "summary": None, "content": None, "status": None},
        {"type": "reasoning"},
    ]
    assert len(messages(*items, {"role": "user", "content": "hello"})) == 1


def test_a_compaction_of_ours_is_told_to_the_model() -> None:
    (message,) = messages({"type": "compaction", "encrypted_content": sealed("they built a house")})
    assert message == Message(Role.USER, (TextPart(COMPACTED + "they built a house"),))


def test_what_is_sealed_opens_unless_it_was_touched() -> None:
    content = sealed("a \N{SNOWMAN} \udc80")
    assert opened(content) == "a \N{SNOWMAN} \udc80"
    assert opened(content[:-4]) is None
    assert opened(content + "=") is None or opened(content + "=") == opened(content)
    assert opened("qp1.\N{SNOWMAN}") is None and opened("qp1.a") is None and opened("") is None


def test_items_of_other_kinds_are_named_and_say_nothing() -> None:
    call = parse([{"role": "user", "content": "a"}, {"type": "file_search_call", "id": "fs", "status": "completed"}])
    assert len(call.request.messages) == 1
    assert call.ignored_fields == ("input.file_search_call",)


def test_a_search_in_the_history_says_nothing_and_is_no_reason_to_complain() -> None:
    search = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search"}}
    items = [{"type": "reasoning", "summary": [{"text": "hm"}]}, search, {"role": "assistant", "content": "a"}]
    call = parse(items)
    assert [len(message.parts) for message in call.request.messages] == [2]  # what stands around it is one turn
    assert call.ignored_fields == ()


# --- tools


def test_tools_of_every_kind() -> None:
    call = parse(tools=[LIST, PATCH, AGENTS, {"type": "web_search"}, {"type": "image_generation"}])
    assert [tool.name for tool in call.request.tools] == ["list", "apply_patch", "spawn", "agents__list"]
    patch = call.request.tools[1]
    assert patch.description == "Patches.\n\nThe input has to follow this lark grammar:\nstart: x"
    assert patch.parameters is not None and list(patch.parameters["properties"]) == ["input"]
    assert call.request.tools[0].strict and not patch.strict
    assert call.toolbox.origin("agents__list") == Origin("list", "agents", is_custom=True)
    assert call.toolbox.origin("spawn") == Origin("spawn", "agents")
    assert call.toolbox.origin("of an earlier turn") == Origin("of an earlier turn")
    assert call.toolbox.known_as("list", "agents") == "agents__list"
    assert call.toolbox.known_as("gone", "agents") == "gone"
    assert call.request.model.variant.search
    assert call.ignored_fields == ("tools.image_generation",)


def test_a_search_is_asked_for_only_where_it_may_reach_the_web() -> None:
    assert not parse(tools=[{"type": "web_search", "external_web_access": False}]).request.model.variant.search
    assert not parse(tools=[{"type": "web_search"}], tool_choice="none").request.model.variant.search


@pytest.mark.parametrize(
    ("allowed", "searches"), [([{"type": "web_search"}], True), ([{"type": "function", "name": "list"}], False)]
)
def test_a_search_is_made_only_where_it_is_among_the_allowed_tools(allowed: list[object], searches: bool) -> None:
    wish = {"type": "allowed_tools", "mode": "required", "tools": allowed}
    asked = parse(tools=[LIST, {"type": "web_search"}], tool_choice=wish).request
    assert asked.model.variant.search is searches
    assert not parse(tools=[LIST], tool_choice=wish | {"mode": "auto"}).request.model.variant.search


def test_additional_tools_are_tools() -> None:
    call = parse([{"type": "additional_tools", "role": "developer", "tools": [LIST]}, {"role": "user", "content": "a"}])
    assert [tool.name for tool in call.request.tools] == ["list"] and call.ignored_fields == ()


def test_a_tool_without_a_name_is_refused() -> None:
    assert refusal(tools=[{"type": "function"}])[0] == "tools[0].name"
    assert refusal(tools=[{"type": "namespace", "tools": [LIST]}])[0] == "tools[0].name"
    assert (
        refusal(tools=[{"type": "namespace", "name": "a", "tools": [{"type": "custom"}]}])[0]
        == "tools[0].tools[0].name"
    )
    assert parse(tools=[{"type": "namespace", "name": "a"}]).request.tools == ()


@pytest.mark.parametrize(
    ("wish", "choice"),
    [
        (None, AUTO),
        ("auto", AUTO),
        ("none", ToolChoice(ToolChoiceKind.NONE)),
        ("required", ToolChoice(ToolChoiceKind.REQUIRED)),
        ({"type": "function", "name": "list"}, ToolChoice(ToolChoiceKind.REQUIRED, ("list",))),
        (
            {"type": "custom", "name": "list", "namespace": "agents"},
            ToolChoice(ToolChoiceKind.REQUIRED, ("agents__list",)),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "spawn", "namespace": "agents"}],
            },
            ToolChoice(ToolChoiceKind.REQUIRED, ("spawn",)),
        ),
        (
            {"type": "allowed_tools", "tools": [{"type": "web_search"}, {"type": "custom", "name": "apply_patch"}]},
            ToolChoice(ToolChoiceKind.AUTO, ("apply_patch",)),
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}, ToolChoice(ToolChoiceKind.NONE)),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, ToolChoice(ToolChoiceKind.NONE)),
        ({"type": "web_search"}, AUTO),
    ],
)
def test_tool_choice(wish: object, choice: ToolChoice) -> None:
    assert parse(tools=[LIST, PATCH, AGENTS], tool_choice=wish).request.tool_choice == choice


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ("some", "tool_choice"),
        ({"type": "function", "name": "gone"}, "tool_choice"),
        ({"type": "function"}, "tool_choice"),
        ({"type": "allowed_tools", "mode": "never", "tools": []}, "tool_choice.mode"),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp"}]}, "tool_choice.tools"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]}, "tool_choice.tools[0].name"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "gone"}]},
            "tool_choice.tools[0]",
        ),
    ],
)
def test_a_wrong_tool_choice_is_named(wish: object, param: str) -> None:
    assert refusal(tools=[LIST], tool_choice=wish)[0] == param


def test_nothing_can_be_required_where_there_is_nothing_to_call() -> None:
    assert refusal(tools=[{"type": "mcp"}], tool_choice="required")[0] == "tool_choice"


# --- the rest of the body


def test_sampling_reasoning_and_output() -> None:
    schema: dict[str, Any] = {"type": "object"}
    request = parse(
        model="qwen3.7-plus",
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        parallel_tool_calls=False,
        reasoning={"effort": "high", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True, "description": "d"}},
    ).request
    assert request.model.base == "qwen3.7-plus"
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.top_p) == (7, 0.5, 0.9)
    assert not request.parallel_tool_calls
    assert (request.reasoning.enabled, request.reasoning.effort) == (True, "high")
    assert request.output == OutputFormat(schema=schema, name="n", strict=True, description="d")


def test_effort_decides_about_thinking_only_where_it_is_given() -> None:
    assert parse(reasoning={"summary": "auto"}).request.reasoning.enabled is None
    assert parse(reasoning={"effort": "none"}).request.reasoning.enabled is False


def test_formats_of_output() -> None:
    assert parse(text={"format": {"type": "text"}}).request.output is None
    assert parse(text={"verbosity": "low"}).request.output is None
    assert parse(text={"format": {"type": "json_object"}}).request.output == OutputFormat()
    assert refusal(text={"format": {"type": "xml"}})[0] == "text.format.type"
    assert refusal(text={"format": {"type": "json_schema", "name": "n"}})[0] == "text.format.schema"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "some"}, "truncation"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_can_not_be_done_is_refused_by_name(fields: dict[str, object], param: str) -> None:
    assert refusal(**fields)[0] == param


def test_log_probabilities_are_asked_for_in_either_way() -> None:
    include = ["message.output_text.logprobs"]
    assert parse(include=include).request.sampling == Sampling(logprobs=True, logprobs_field="include")
    both = Sampling(logprobs=True, top_logprobs=2, logprobs_field="top_logprobs")
    assert parse(include=include, top_logprobs=2).request.sampling == both
    assert parse(top_logprobs=2).request.sampling == both
    assert parse(top_logprobs=0, include=["reasoning.encrypted_content"]).request.sampling == Sampling()


def test_what_runs_in_the_background_has_to_be_stored() -> None:
    asked = PROTOCOL.read(incoming({"input": "a", "background": True, "store": False}), ParseOptions())
    with pytest.raises(InvalidRequest, match="background needs the response to be stored"):
        call(asked, Context())


def test_fields_without_effect_are_named() -> None:
    fields: dict[str, object] = {"conversation": None, "prompt": None, "truncation": "disabled", "store": False}
    assert parse(**fields).ignored_fields == ()
    fields = {"truncation": "auto", "temperature": 1, "max_tool_calls": 3, "service_tier": "flex"}
    told = parse(**fields, text={"verbosity": "low"}).ignored_fields
    assert told == (*fields, "text.verbosity")
    strict = PROTOCOL.parse(incoming({"input": "a", "max_tool_calls": 3}), ParseOptions(strict=True))
    assert strict.ignored_fields == ("max_tool_calls",)  # refused where the upstream is known


def test_what_a_server_of_chat_completions_may_know_is_kept_for_it() -> None:
    fields: dict[str, object] = {
        "user": "u", "prompt_cache_key": "k", "service_tier": "flex", "min_p": 0.1, "safety_identifier": None,
        "store": False, "metadata": {"a": "b"}, "max_tool_calls": 3, "text": {"verbosity": "low"},
    }  # fmt: skip
    kept = {name: msgspec.json.decode(value) for name, value in parse(**fields).request.extra.items()}
    assert kept == {"user": "u", "prompt_cache_key": "k", "service_tier": "flex", "min_p": 0.1, "verbosity": "low"}
    assert parse(text={"format": {"type": "text"}}).request.extra == {}


def test_what_names_the_session() -> None:
    assert parse().session == ""
    assert parse(prompt_cache_key="k").session == "k"
    assert parse(metadata={"session_id": "s"}, prompt_cache_key="k").session == "s"
    assert parse(client_metadata={"session_id": "c"}).session == "c"
    assert parse(client_metadata=7).session == ""


# --- what is kept


def test_references_are_filled_in_from_what_is_kept() -> None:
    body = incoming({"input": [{"id": "msg_1"}, {"type": "item_reference", "id": "fc_1"}], "tools": [LIST]})
    asked = PROTOCOL.read(body, ParseOptions())
    assert references(asked.body) == ("msg_1", "fc_1")
    found = {
        "msg_1": msgspec.json.decode(b'{"type":"message","role":"user","content":"kept"}', type=ItemBody),
        "fc_1": ItemBody(type="function_call", call_id="c", name="list", arguments=msgspec.Raw(b'"{}"')),
    }
    history = [ItemBody(role="user", content=msgspec.Raw(b'"before"'))]
    request = call(asked, Context(history, found)).request
    assert [message.parts for message in request.messages] == [
        (TextPart("before"),),
        (TextPart("kept"),),
        (ToolCallPart("c", "list", "{}"),),
    ]
    assert refusal([{"id": ""}])[0] == "input[0].id"
    with pytest.raises(InvalidRequest, match="Item with id 'msg_1' not found"):
        call(asked, Context())


def test_half_a_character_is_kept_as_the_one_that_says_so() -> None:
    body = rb'{"input": "\ud83d", "tools": [{"type": "function", "name": "f", "description": "\uDE00"}]}'
    asked = PROTOCOL.read(Incoming(path="/v1/responses", query={}, headers={}, body=body), ParseOptions())
    assert msgspec.json.decode(asked.kept.input) == "\N{REPLACEMENT CHARACTER}"
    assert msgspec.json.decode(asked.kept.tools)[0]["description"] == "\N{REPLACEMENT CHARACTER}"
