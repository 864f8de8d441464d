"""A `/v1/responses` body in our words. Pure.

What is wrong is refused by the field's path as the client wrote it, such as `input[0].content[1].text`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.chat.models import ModelName, Variant
from qwen_proxy.chat.request import (
    ChatRequest,
    Message,
    OutputFormat,
    Reasoning,
    Role,
    Sampling,
    TextPart,
)
from qwen_proxy.ground.errors import InvalidRequest, UnsupportedParameter
from qwen_proxy.protocols import openai_responses_items as items
from qwen_proxy.protocols.openai_responses_body import ItemBody, ResponsesBody, ToolBody, part_of
from qwen_proxy.protocols.openai_responses_items import Numbered
from qwen_proxy.protocols.openai_responses_tools import Toolbox, searches, tool_choice, toolbox

_TOOLS: Final[msgspec.json.Decoder[list[ToolBody]]] = msgspec.json.Decoder(list[ToolBody])


class Context(Struct, frozen=True):
    """What is known of earlier responses: the items of the conversation so far, and those that were referred to."""

    history: Sequence[ItemBody] = ()
    found: Mapping[str, ItemBody] = {}


class Understood(Struct, frozen=True):
    request: ChatRequest
    toolbox: Toolbox
    ignored: tuple[str, ...]


def references(body: ResponsesBody) -> tuple[str, ...]:
    """The ids of items that the body names without saying what they are."""
    return tuple(item.id or "" for item in body.items if item.kind == "item_reference")


def understood(body: ResponsesBody, context: Context) -> Understood:
    """Raises InvalidRequest, or UnsupportedParameter for what is legal and can't be done here."""
    _refuse(body)
    conversation = list(_conversation(body, context))
    box = toolbox(list(_tools(body, conversation)))
    spoken = items.messages(conversation, box)
    if body.instructions:
        spoken = (Message(Role.SYSTEM, (TextPart(body.instructions),)), *spoken)
    if not spoken:
        raise InvalidRequest("`input` is missing, or says nothing", param="input")
    choice = tool_choice(body.tool_choice, box)
    request = ChatRequest(
        model=ModelName(body.model or "", Variant(search=searches(body.tool_choice, box))),
        messages=spoken,
        tools=box.tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        sampling=_sampling(body),
        reasoning=_reasoning(body),
        output=_output(body),
    )
    return Understood(request, box, (*box.ignored, *items.ignored(conversation)))


def _refuse(body: ResponsesBody) -> None:
    if body.conversation and bytes(body.conversation) != b"null":
        raise UnsupportedParameter(
            "conversation: no conversations are kept here; use previous_response_id", param="conversation"
        )
    if body.prompt and bytes(body.prompt) != b"null":
        raise UnsupportedParameter("prompt: no prompt templates are kept here; send `input`", param="prompt")
    if body.truncation not in (None, "auto", "disabled"):
        raise InvalidRequest("truncation must be 'auto' or 'disabled'", param="truncation")
    if body.background and body.store is False:
        raise InvalidRequest("background needs the response to be stored; leave `store` out", param="background")


def _conversation(body: ResponsesBody, context: Context) -> Iterator[Numbered]:
    for item in context.history:
        yield "previous_response_id", item
    for i, item in enumerate(body.items):
        path = f"input[{i}]"
        if item.kind == "item_reference":
            if not item.id:
                raise InvalidRequest(f"`{path}.id` is missing", param=f"{path}.id")
            found = context.found.get(item.id)
            if found is None:
                raise InvalidRequest(
                    f"Item with id '{item.id[:80]}' not found. Items are kept with stored responses of the same"
                    " key only; send the whole item.",
                    param="input",
                )
            yield path, found
        else:
            yield path, item


def _tools(body: ResponsesBody, conversation: Sequence[Numbered]) -> Iterator[tuple[str, ToolBody]]:
    for i, tool in enumerate(body.tools or []):
        yield f"tools[{i}]", tool
    for path, item in conversation:
        if item.kind == "additional_tools":
            for i, tool in enumerate(part_of(item.tools, _TOOLS, f"{path}.tools")):
                yield f"{path}.tools[{i}]", tool


def _sampling(body: ResponsesBody) -> Sampling:
    """Either of the two fields asks for log probabilities, and `include` alone for those of the chosen tokens."""
    includes = "message.output_text.logprobs" in (body.include or [])
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        max_tokens=body.max_output_tokens,
        logprobs=includes or bool(body.top_logprobs),
        top_logprobs=body.top_logprobs or None,
        logprobs_field="top_logprobs" if body.top_logprobs else "include" if includes else "",
    )


def _reasoning(body: ResponsesBody) -> Reasoning:
    effort = body.reasoning.effort if body.reasoning is not None else None
    return Reasoning(enabled=None if effort is None else effort not in ("none", "minimal"), effort=effort)


def _output(body: ResponsesBody) -> OutputFormat | None:
    wanted = body.text.format if body.text is not None else None
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return OutputFormat()
    if wanted.type != "json_schema":
        raise InvalidRequest(
            "text.format.type must be 'text', 'json_object' or 'json_schema'", param="text.format.type"
        )
    if wanted.schema is None:
        raise InvalidRequest("`text.format.schema` is missing", param="text.format.schema")
    return OutputFormat(
        schema=wanted.schema,
        name=wanted.name,
        description=wanted.description or "",
        strict=wanted.strict is True,
    )
