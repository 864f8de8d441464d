"""What a client sends to `/v1/chat/completions`: the shapes, and bytes to them. Pure.

Shapes: OpenAI's API reference (as typed in the openai SDK 3.54), and the original's additions (upstream protocol
§10.3): `enable_thinking`, `thinking_budget`, and several spellings of pictures and videos. `null` means absent.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.protocols import bodies

Positive = Annotated[int, Meta(ge=1)]
MAX_MESSAGES: Final = (
    10_000  # each takes a line of a prompt, which holds fewer; 180,000 of them held the loop for a second
)


class LinkBody(Struct):
    url: str | None = None
    detail: str | None = None
    video_url: str | None = None


class AudioBody(Struct):
    data: str
    format: str


class FileBody(Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class PartBody(Struct):
    """One struct for every type: clients put the same thing under several names."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | LinkBody | None = None
    image: str | LinkBody | None = None
    video_url: str | LinkBody | None = None
    video: str | LinkBody | None = None
    input_video: str | LinkBody | None = None
    url: str | None = None
    input_audio: AudioBody | None = None
    file: FileBody | None = None


class CalledBody(Struct):
    name: str
    arguments: str


class CustomCalledBody(Struct):
    name: str
    input: str


class ToolCallBody(Struct):
    id: str
    type: str = "function"
    function: CalledBody | None = None
    custom: CustomCalledBody | None = None


class MessageBody(Struct):
    role: str
    content: str | Annotated[list[PartBody], Meta(max_length=MAX_MESSAGES)] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None
    function_call: CalledBody | None = None


class FunctionBody(Struct):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None  # a JSON Schema: JSON enters here
    strict: bool | None = None


class GrammarBody(Struct):
    definition: str
    syntax: str | None = None


class CustomFormatBody(Struct):
    """`text`, or a `grammar`."""

    type: str
    grammar: GrammarBody | None = None


class CustomBody(Struct):
    """A tool whose input is a text."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    format: CustomFormatBody | None = None


class ToolBody(Struct):
    type: str
    function: FunctionBody | None = None
    custom: CustomBody | None = None


class NamedBody(Struct):
    name: str


class NamedToolBody(Struct):
    type: str
    function: NamedBody | None = None
    custom: NamedBody | None = None


class AllowedToolsBody(Struct):
    mode: str
    tools: list[NamedToolBody]


class ToolChoiceBody(NamedToolBody):
    allowed_tools: AllowedToolsBody | None = None


class SchemaBody(Struct):
    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None  # JSON enters here
    strict: bool | None = None


class FormatBody(Struct):
    type: str
    json_schema: SchemaBody | None = None


class StreamOptionsBody(Struct):
    include_usage: bool | None = None


class ChatBody(Struct):
    messages: Annotated[list[MessageBody], Meta(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    stream: bool | str | None = None
    stream_options: StreamOptionsBody | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    stop: str | list[str] | None = None
    n: Positive | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | str | None = None
    thinking_budget: Positive | None = None
    tools: list[ToolBody] | None = None
    tool_choice: str | ToolChoiceBody | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionBody] | None = None
    function_call: str | NamedBody | None = None
    response_format: FormatBody | None = None
    modalities: list[str] | None = None
    audio: dict[str, Raw] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    metadata: Raw = Raw()
    prompt_cache_key: Raw = Raw()

    @property
    def session(self) -> str:
        """What a client says of the conversation this belongs to, in the words of several; empty where nothing."""
        if not self.metadata and not self.prompt_cache_key:
            return ""
        said = bodies.read(self.metadata, _METADATA) or {}
        words = [*(said.get(name) for name in _SESSION_WORDS), bodies.read(self.prompt_cache_key, _TEXT)]
        return next((word for word in words if isinstance(word, str) and word), "")

    @property
    def streamed(self) -> bool:
        return flag(self.stream, "stream") or False

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage is True


def flag(value: bool | str | None, param: str) -> bool | None:
    """The original also takes the string `"true"` (§10.3)."""
    if not isinstance(value, str):
        return value
    if value not in ("true", "false"):
        raise InvalidRequest(f"{param} must be true or false, not {value[:40]!r}", param=param)
    return value == "true"


# These are read into Sampling, but chat.qwen.ai takes none of them; of `metadata`, the session alone is taken.
_WITHOUT_EFFECT: Final = frozenset(
    {"temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "metadata"}
)
_SESSION_WORDS: Final = ("session_id", "sessionId", "conversation_id", "user_id")
_FIELDS: Final = frozenset(ChatBody.__struct_fields__) - {"metadata", "prompt_cache_key"}
_HONOURED: Final = frozenset(ChatBody.__struct_fields__) - _WITHOUT_EFFECT

_METADATA: Final = msgspec.json.Decoder(dict[str, object])
_TEXT: Final = msgspec.json.Decoder(str)
_BODY: Final = msgspec.json.Decoder(ChatBody)


def extra(body: bytes, decoded: ChatBody, ignored: Iterable[str]) -> dict[str, Raw]:
    """See `bodies.extra`. decoded, ignored: of `decode`; mostly they tell that there is nothing, and a long body is not
    read once more."""
    if not decoded.prompt_cache_key and _FIELDS.issuperset(ignored):
        return {}
    return bodies.extra(body, _FIELDS)


def decode(body: bytes) -> tuple[ChatBody, tuple[str, ...]]:
    """The body, and the names of its top-level fields that have no effect here. Raises InvalidRequest."""
    return bodies.decode(body, _BODY, _HONOURED)
