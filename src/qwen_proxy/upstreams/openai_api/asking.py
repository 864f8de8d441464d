"""Our question as a body of chat completions. Pure.

Source: OpenAI's API reference, and for thinking each server's own words (`Thinking`). A text in several parts is
joined to a string: templates of local models know no others.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from msgspec import Raw

from qwen_proxy.chat.models import Model
from qwen_proxy.chat.request import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Part,
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

Body = dict[str, Any]  # on its way to JSON

_encode: Final = msgspec.json.Encoder().encode
_NOTHING_SAID: Final = Sampling()

OWN: Final = frozenset(
    (
        "model",
        "messages",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "n",
    )
)  # what a client's further fields never replace


def encode_chat(request: ChatRequest, model: Model, thinking: Thinking) -> bytes:
    """See `chat_body`."""
    return _encode(chat_body(request, model, thinking))


def chat_body(request: ChatRequest, model: Model, thinking: Thinking) -> Body:
    """Always streamed, and with usage.

    `stop` stays here: only so is it known which sequence ended a reply. With log probabilities it is the server's,
    since a text that is cut here would not fit to its tokens.
    """
    body: Body = {}
    if request.extra:
        body = {name: value for name, value in request.extra.items() if name not in OWN}
    body["model"] = model.id
    body["messages"] = messages = _messages(request.messages)
    if request.hint:
        messages.append({"role": "user", "content": request.hint})
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    if request.tools:
        _put_tools(body, request)
    if request.sampling != _NOTHING_SAID:
        _put_sampling(body, request.sampling)
    if request.output is not None:
        body["response_format"] = _response_format(request.output)
    _put_thinking(body, request, thinking)
    if request.model.variant.search and thinking is Thinking.DASHSCOPE:
        body["enable_search"] = True
    return body


def check(request: ChatRequest, thinking: Thinking) -> None:
    """Raises UnsupportedParameter for what no such server does."""
    if request.model.variant.search and thinking is not Thinking.DASHSCOPE:
        raise UnsupportedParameter("this model's backend has no search of its own; leave out -search", param="model")


# --- messages ----------------------------------------------------------------------------------------------


def _messages(messages: Sequence[Message]) -> list[Body]:
    told: list[Body] = []
    for message in messages:
        role, parts = message.role, message.parts
        if role is Role.ASSISTANT:
            told.append(_assistant(parts))
        elif role is Role.SYSTEM:
            told.append({"role": "system", "content": _content(parts)})
        elif len(parts) == 1 and isinstance(parts[0], TextPart):  # what most turns are
            told.append({"role": "user", "content": parts[0].text})
        else:
            told += _user(parts)
    return told


def _user(parts: tuple[Part, ...]) -> Iterator[Body]:
    """Results of tools are messages of their own; what a tool shows follows behind: they may not be parted."""
    if not parts:
        yield {"role": "user", "content": ""}  # who says nothing has his turn nevertheless
    for are_results, run in groupby(parts, lambda part: isinstance(part, ToolResultPart)):
        if not are_results:
            yield {"role": "user", "content": _content(tuple(run))}
            continue
        shown: list[Part] = []
        for part in (each for each in run if isinstance(each, ToolResultPart)):
            yield {"role": "tool", "tool_call_id": part.call_id, "content": _result(part)}
            shown += [each for each in part.parts if isinstance(each, ImagePart)]
        if shown:
            yield {"role": "user", "content": _content((TextPart("What the tool shows:"), *shown))}


def _result(part: ToolResultPart) -> str:
    """The protocol has no mark for a failure: a word tells it."""
    said = "\n".join(each.text for each in part.parts if isinstance(each, TextPart))
    return f"Error: {said}" if part.is_error and not said.casefold().startswith("error") else said


def _assistant(parts: Iterable[Part]) -> Body:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Body] = []
    for part in parts:
        match part:
            case TextPart(text):
                texts.append(text)
            case ReasoningPart(text):
                thoughts.append(text)
            case ToolCallPart(call_id, name, arguments):
                function = {"name": name, "arguments": arguments or "{}"}
                calls.append({"id": call_id, "type": "function", "function": function})
            case _:
                pass  # no protocol puts pictures, files or results into what an assistant said
    body: Body = {"role": "assistant", "content": "\n".join(texts)}
    if thoughts:
        body["reasoning_content"] = "\n".join(thoughts)
    if calls:
        body["tool_calls"] = calls
    return body


def _content(parts: tuple[Part, ...]) -> str | list[Body]:
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    if all(isinstance(part, TextPart) for part in parts):
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return [_part(part) for part in parts if not isinstance(part, ToolCallPart | ToolResultPart)]


def _part(part: TextPart | ImagePart | FilePart | ReasoningPart) -> Body:
    if isinstance(part, TextPart | ReasoningPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": part.url, **_known(detail=part.detail or None)}}
    if part.kind == "audio":
        head, _, coded = part.url.partition(";base64,")
        form = _known(format=head.removeprefix("data:audio/") if coded else None)
        return {"type": "input_audio", "input_audio": {"data": coded or part.url, **form}}
    if part.kind == "video":
        return {"type": "video_url", "video_url": {"url": part.url}}
    return {"type": "file", "file": {"file_data": part.url, **_known(filename=part.name or None)}}


# --- the rest ----------------------------------------------------------------------------------------------


def _put_tools(body: Body, request: ChatRequest) -> None:
    offered, choice = request.tools, request.tool_choice
    if choice.names:  # not every server knows `allowed_tools`: only what is allowed is offered
        offered = tuple(tool for tool in request.tools if tool.name in choice.names)
    body["tools"] = [_tool(tool) for tool in offered]
    if choice.kind is not ToolChoiceKind.AUTO:
        body["tool_choice"] = _tool_choice(choice)
    if not request.parallel_tool_calls:
        body["parallel_tool_calls"] = False


def _tool(tool: Tool) -> Body:
    function: Body = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = {"type": "object", "properties": {}} if tool.parameters is None else tool.parameters
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | Body:
    if choice.kind is ToolChoiceKind.REQUIRED and len(choice.names) == 1:
        return {"type": "function", "function": {"name": choice.names[0]}}
    return choice.kind.value


def _put_sampling(body: Body, sampling: Sampling) -> None:
    body |= {
        name: value
        for name, value in (
            ("temperature", sampling.temperature),
            ("top_p", sampling.top_p),
            ("top_k", sampling.top_k),
            ("max_tokens", sampling.max_tokens),
            ("stop", sampling.stop if sampling.logprobs and sampling.stop else None),
            ("seed", sampling.seed),
            ("presence_penalty", sampling.presence_penalty),
            ("frequency_penalty", sampling.frequency_penalty),
            ("logprobs", sampling.logprobs or None),
            ("top_logprobs", sampling.top_logprobs),
        )
        if value is not None
    }


def _response_format(output: OutputFormat) -> Body:
    if output.schema is None:
        return {"type": "json_object"}
    schema: Body = {"name": output.name or "reply", "schema": output.schema}
    if output.description:
        schema["description"] = output.description
    if output.strict:
        schema["strict"] = True
    return {"type": "json_schema", "json_schema": schema}


def _put_thinking(body: Body, request: ChatRequest, thinking: Thinking) -> None:
    """What the client said, in the server's words; nothing where it said nothing."""
    wish = request.reasoning
    enabled = True if wish.enabled is None and request.model.variant.thinking else wish.enabled
    if enabled is None and wish.budget_tokens is None and wish.effort is None:
        return
    match thinking:
        case Thinking.DASHSCOPE:
            body |= _known(enable_thinking=enabled, thinking_budget=wish.budget_tokens)
        case Thinking.TEMPLATE:
            if enabled is not None:
                body["chat_template_kwargs"] = _with_template(request.extra.get("chat_template_kwargs"), enabled)
            body |= _known(reasoning_effort=wish.effort)
        case Thinking.OPENROUTER:
            told = _known(effort=wish.effort, max_tokens=None if wish.effort else wish.budget_tokens)
            body["reasoning"] = told or {"enabled": enabled}
        case _:
            effort = wish.effort or (None if enabled is None else "medium" if enabled else "none")
            body |= _known(reasoning_effort=effort, thinking_budget=wish.budget_tokens)


def _with_template(given: Raw | None, enabled: bool) -> Body:
    """What the client itself says of the template holds."""
    own: Body = {}
    if given is not None:
        try:
            own = msgspec.json.decode(given, type=dict[str, Any])
        except msgspec.ValidationError as error:
            raise UnsupportedParameter(
                "chat_template_kwargs must be an object", param="chat_template_kwargs"
            ) from error
    return {"enable_thinking": enabled, **own}


def _known(**fields: object) -> Body:
    return {name: value for name, value in fields.items() if value is not None}
