"""What a client sends to Gemini's routes: the shapes, and bytes to them. Pure.

Shapes: the API reference, as typed in the google-genai SDK 3.4. As protobuf's JSON does, a request may spell names in
camel case or with underscores. `null` means absent.
"""

from typing import Annotated, Any, Final, cast

import msgspec
from msgspec import Meta, Raw, Struct

from qwen_proxy.protocols import bodies

_json: Final = msgspec.json.encode


class BlobBody(Struct, rename="camel"):
    data: str
    mime_type: str = ""
    display_name: str | None = None


class FileBody(Struct, rename="camel"):
    file_uri: str
    mime_type: str = ""
    display_name: str | None = None


class CalledBody(Struct):
    name: str
    args: dict[str, Any] | None = None  # JSON enters here
    id: str | None = None


class ResponsePartBody(Struct, rename="camel"):
    inline_data: BlobBody | None = None


class ResponseBody(Struct):
    name: str
    response: dict[str, Any] | None = None  # JSON enters here
    id: str | None = None
    parts: list[ResponsePartBody] | None = None


class CodeBody(Struct):
    code: str | None = None
    output: str | None = None


class PartBody(Struct, rename="camel"):
    """One of the fields besides `thought` and `thought_signature`, which is anybody's and means nothing here."""

    text: str | None = None
    thought: bool | None = None
    inline_data: BlobBody | None = None
    file_data: FileBody | None = None
    function_call: CalledBody | None = None
    function_response: ResponseBody | None = None
    executable_code: CodeBody | None = None
    code_execution_result: CodeBody | None = None


class ContentBody(Struct):
    parts: list[PartBody] | None = None
    role: str | None = None


class FunctionBody(Struct, rename="camel"):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class ToolBody(Struct, rename="camel"):
    """The last ones are tools that Google runs."""

    function_declarations: list[FunctionBody] | None = None
    google_search: Raw = Raw()
    google_search_retrieval: Raw = Raw()
    code_execution: Raw = Raw()
    url_context: Raw = Raw()
    google_maps: Raw = Raw()
    file_search: Raw = Raw()
    retrieval: Raw = Raw()
    computer_use: Raw = Raw()
    mcp_servers: Raw = Raw()


class CallingBody(Struct, rename="camel"):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class ToolConfigBody(Struct, rename="camel"):
    function_calling_config: CallingBody | None = None


class ThinkingBody(Struct, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationBody(Struct, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop_sequences: list[str] | None = None
    candidate_count: Annotated[int, Meta(ge=1)] | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    response_modalities: list[str] | None = None
    response_logprobs: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    thinking_config: ThinkingBody | None = None


class GenerateBody(Struct, rename="camel"):
    contents: list[ContentBody] | ContentBody | str
    system_instruction: ContentBody | str | None = None
    tools: list[ToolBody] | None = None
    tool_config: ToolConfigBody | None = None
    generation_config: GenerationBody | None = None
    cached_content: str | None = None


class CountBody(Struct, rename="camel"):
    """Either the contents alone, or a whole request."""

    contents: list[ContentBody] | ContentBody | str | None = None
    generate_content_request: GenerateBody | None = None


_GENERATE: Final = msgspec.json.Decoder(GenerateBody)
COUNT: Final = msgspec.json.Decoder(CountBody)
_ANY: Final = msgspec.json.Decoder(object)
_HONOURED: Final = frozenset(GenerateBody.__struct_encode_fields__)
# These are read into Sampling, but chat.qwen.ai takes none of them.
_WITHOUT_EFFECT: Final = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")


def decoded(body: bytes) -> tuple[GenerateBody, tuple[str, ...]]:
    """The body, and the names of its fields that have no effect here. Raises InvalidRequest."""
    read, ignored = bodies.decode(in_camel_case(body), _GENERATE, _HONOURED, "contents")
    wishes = read.generation_config
    if wishes is not None:
        names = (name for name in _WITHOUT_EFFECT if getattr(wishes, name) is not None)
        ignored += tuple(f"generationConfig.{camel_case(name)}" for name in names)
    return read, ignored


# What is the client's own below these names; nothing of it is renamed.
_OPAQUE: Final = frozenset(
    {"args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema"}
)
_DEEPEST_NAMES: Final = 12  # far more than there are levels of the API's own


def in_camel_case(body: bytes) -> bytes:
    """The same with every name of the API's own in camel case; as it is where nothing can be read of it."""
    if b"_" not in body:
        return body
    try:
        return _json(_renamed(_ANY.decode(bodies.whole_characters(body)), _DEEPEST_NAMES))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body


def _renamed(value: Any, depth: int) -> Any:
    if depth == 0:
        return value
    if isinstance(value, list):
        return [_renamed(each, depth - 1) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for name, inner in cast("dict[str, Any]", value).items():
        camel = camel_case(name)
        made[camel] = inner if camel in _OPAQUE else _renamed(inner, depth - 1)
    return made


def camel_case(name: str) -> str:
    first, *more = name.lstrip("_").split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in more)
