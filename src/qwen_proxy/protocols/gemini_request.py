"""A body of Gemini's API in our words. Pure.

What is wrong is refused by the field's path in camel case, such as `contents[0].parts[1].fileData.fileUri`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from qwen_proxy.chat.models import ModelName, Variant
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
from qwen_proxy.protocols import bodies
from qwen_proxy.protocols.gemini_body import (
    BlobBody,
    ContentBody,
    FileBody,
    GenerateBody,
    GenerationBody,
    PartBody,
    ResponseBody,
    ThinkingBody,
    ToolBody,
    ToolConfigBody,
    camel_case,
)
from qwen_proxy.protocols.gemini_schemas import json_schema
from qwen_proxy.protocols.unnamed_calls import CallNames

_json: Final = msgspec.json.encode

MOST_CONTENTS: Final = 10_000


def request(body: GenerateBody, model: str) -> ChatRequest:
    """Raises InvalidRequest, or UnsupportedParameter for what is legal and can't be done here."""
    if body.cached_content:
        raise UnsupportedParameter(
            "cachedContent: no contents are kept here; send them in contents", param="cachedContent"
        )
    wishes = body.generation_config or GenerationBody()
    _refuse_unsupported(wishes)
    tools, searches = _tools(body.tools or ())
    names = frozenset(tool.name for tool in tools)
    said = (*_system(body.system_instruction), *_messages(body.contents))
    if not any(message.role is not Role.SYSTEM for message in said):
        raise InvalidRequest("contents: at least one content with a part is required", param="contents")
    return ChatRequest(
        model=ModelName(model.removeprefix("models/"), Variant(search=searches)),
        messages=said,
        tools=tools,
        tool_choice=_choice(body.tool_config, names),
        sampling=Sampling(
            temperature=wishes.temperature,
            top_p=wishes.top_p,
            top_k=None if wishes.top_k is None else int(wishes.top_k),
            max_tokens=wishes.max_output_tokens,
            stop=bodies.checked_stops(wishes.stop_sequences or [], "generationConfig.stopSequences"),
            seed=wishes.seed,
            presence_penalty=wishes.presence_penalty,
            frequency_penalty=wishes.frequency_penalty,
            logprobs=wishes.response_logprobs is True,
            top_logprobs=wishes.logprobs or None,
            logprobs_field="generationConfig.responseLogprobs" if wishes.response_logprobs else "",
        ),
        reasoning=_reasoning(wishes.thinking_config),
        output=_output(wishes),
    )


def _refuse_unsupported(wishes: GenerationBody) -> None:
    if wishes.logprobs and not wishes.response_logprobs:
        param = "generationConfig.logprobs"
        raise InvalidRequest(f"{param} needs generationConfig.responseLogprobs to be true", param=param)
    if any(word.upper() != "TEXT" for word in wishes.response_modalities or ()):
        param = "generationConfig.responseModalities"
        raise UnsupportedParameter(f"{param}: replies are text only", param=param)


def _reasoning(wish: ThinkingBody | None) -> Reasoning:
    """A budget of -1 leaves it to the model, as does a mere wish to see its thoughts."""
    if wish is None:
        return Reasoning()
    level = (wish.thinking_level or "").lower().removeprefix("thinking_level_unspecified")
    if wish.thinking_budget is not None and wish.thinking_budget >= 0:
        return Reasoning(enabled=wish.thinking_budget > 0, budget_tokens=wish.thinking_budget or None)
    return Reasoning(enabled=level != "minimal", effort=level) if level else Reasoning()


def _output(wishes: GenerationBody) -> OutputFormat | None:
    schema = wishes.response_json_schema
    if schema is None and wishes.response_schema is not None:
        schema = json_schema(wishes.response_schema, "generationConfig.responseSchema")
    match wishes.response_mime_type:
        case None | "" if schema is not None:  # who sends one wants JSON
            return OutputFormat(schema=schema, strict=True)
        case None | "" | "text/plain":
            return None
        case "application/json":
            return OutputFormat(schema=schema, strict=schema is not None)
        case kind:
            param = "generationConfig.responseMimeType"
            raise UnsupportedParameter(
                f"{param} {kind[:40]!r} is not supported; application/json and text/plain are", param=param
            )


def _tools(tools: Sequence[ToolBody]) -> tuple[tuple[Tool, ...], bool]:
    """The functions, and whether the model may search."""
    functions: list[Tool] = []
    searches = False
    for i, tool in enumerate(tools):
        searches = searches or _is_given(tool.google_search) or _is_given(tool.google_search_retrieval)
        for name in _GOOGLES:
            if _is_given(getattr(tool, name)):
                param = f"tools[{i}].{camel_case(name)}"
                raise UnsupportedParameter(
                    f"{param}: of the tools that Google runs only googleSearch is served here", param=param
                )
        for j, each in enumerate(tool.function_declarations or ()):
            schema = each.parameters_json_schema
            if schema is None and each.parameters is not None:
                schema = json_schema(each.parameters, f"tools[{i}].functionDeclarations[{j}].parameters")
            functions.append(Tool(each.name, each.description or "", schema))
    return tuple(functions), searches


_GOOGLES: Final = (
    *("code_execution", "url_context", "google_maps", "file_search"),
    *("retrieval", "computer_use", "mcp_servers"),
)


def _is_given(value: Raw) -> bool:
    return bytes(value) not in (b"", b"null")


def _choice(config: ToolConfigBody | None, known: frozenset[str]) -> ToolChoice:
    wish = None if config is None else config.function_calling_config
    if wish is None:
        return AUTO
    param = "toolConfig.functionCallingConfig"
    kind = _KINDS.get((wish.mode or "AUTO").upper())
    if kind is None:
        raise InvalidRequest(f"{param}.mode must be AUTO, ANY, VALIDATED or NONE", param=f"{param}.mode")
    names = tuple(wish.allowed_function_names or ())
    for name in names:
        if name not in known:
            param = f"{param}.allowedFunctionNames"
            raise InvalidRequest(f"{param} names {name[:64]!r}, which is not among the tools", param=param)
    if kind is ToolChoiceKind.REQUIRED and not known:
        raise InvalidRequest(f"{param}.mode requires a call, but there are no functions", param=f"{param}.mode")
    return ToolChoice(kind, names)


_KINDS: Final = {
    "MODE_UNSPECIFIED": ToolChoiceKind.AUTO,
    "AUTO": ToolChoiceKind.AUTO,
    "VALIDATED": ToolChoiceKind.AUTO,
    "ANY": ToolChoiceKind.REQUIRED,
    "NONE": ToolChoiceKind.NONE,
}


def _system(content: ContentBody | str | None) -> Iterator[Message]:
    if isinstance(content, str):
        content = ContentBody([PartBody(text=content)])
    texts = tuple(TextPart(part.text) for part in (content.parts if content else None) or () if part.text)
    if texts:
        yield Message(Role.SYSTEM, texts)


def _messages(contents: list[ContentBody] | ContentBody | str) -> Iterator[Message]:
    if isinstance(contents, str):
        contents = ContentBody([PartBody(text=contents)])
    listed = contents if isinstance(contents, list) else [contents]
    if len(listed) > MOST_CONTENTS:
        raise InvalidRequest(f"contents: at most {MOST_CONTENTS} are taken", param="contents")
    names = CallNames()
    for i, content in enumerate(listed):
        path = f"contents[{i}]"
        if content.role not in (None, "", "user", "model", "function", "system"):
            raise InvalidRequest(
                f"{path}.role: unknown role {content.role[:40]!r}; the roles are user and model", param=f"{path}.role"
            )
        parts = tuple(
            each for j, part in enumerate(content.parts or ()) for each in _part(part, names, f"{path}.parts[{j}]")
        )
        if parts:
            yield Message(_ROLES.get(content.role or "", Role.USER), parts)


_ROLES: Final = {"model": Role.ASSISTANT, "system": Role.SYSTEM}


def _part(part: PartBody, names: CallNames, path: str) -> Iterator[Part]:
    """None of a part that says nothing, such as one with a signature only."""
    if part.text:
        yield ReasoningPart(part.text) if part.thought else TextPart(part.text)
    if part.inline_data is not None:
        yield _inline(part.inline_data, f"{path}.inlineData")
    if part.file_data is not None:
        yield _file(part.file_data, f"{path}.fileData")
    if (call := part.function_call) is not None:
        yield ToolCallPart(names.called(call.name, call.id or ""), call.name, _json(call.args or {}).decode())
    if (answer := part.function_response) is not None:
        yield _answer(answer, names)
    for code in (part.executable_code, part.code_execution_result):
        if code is not None and (said := code.code or code.output):
            yield TextPart(said)


def _answer(answer: ResponseBody, names: CallNames) -> ToolResultPart:
    """A response's only member `output`, `result` or `error` is what is meant; else the whole is."""
    said = answer.response or {}
    text = _json(said).decode()
    if len(said) == 1 and isinstance(value := next(iter(said.values())), str) and not said.keys().isdisjoint(_MEANT):
        text = value
    pictures = [
        _inline(part.inline_data, "")
        for part in answer.parts or ()
        if part.inline_data is not None and part.inline_data.mime_type.startswith("image/")
    ]
    inner = (TextPart(text), *(picture for picture in pictures if isinstance(picture, ImagePart)))
    return ToolResultPart(names.answered(answer.name, answer.id or ""), inner, is_error=set(said) == {"error"})


_MEANT: Final = frozenset({"output", "result", "error", "content"})


def _inline(blob: BlobBody, place: str) -> ImagePart | FilePart:
    """Base64 comes in both of its alphabets."""
    encoded = blob.data.translate(_STANDARD)
    return _media(f"data:{blob.mime_type};base64,{encoded}", blob.mime_type, blob.display_name or "", place)


_STANDARD: Final = str.maketrans("-_", "+/")


def _file(file: FileBody, path: str) -> ImagePart | FilePart:
    is_kept = "://generativelanguage.googleapis.com/" in file.file_uri
    if is_kept or not file.file_uri.startswith(("https://", "http://", "data:")):
        raise UnsupportedParameter(
            f"{path}.fileUri: no files are kept here; send inlineData, or an http(s) URL", param=f"{path}.fileUri"
        )
    return _media(file.file_uri, file.mime_type, file.display_name or "", path)


def _media(url: str, mime_type: str, name: str, place: str) -> ImagePart | FilePart:
    family = mime_type.partition("/")[0]
    if family == "image":
        return ImagePart(url, place=place)
    return FilePart(family if family in ("audio", "video") else "document", url, name, place)
