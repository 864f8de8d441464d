"""What a client sends to `/v1/messages` and `/v1/messages/count_tokens`: the shapes, and bytes to them. Pure.

Shapes: Anthropic's API reference, as typed in the anthropic SDK 2.12, with its betas (messages of role `system` in the
middle, changes of tools, threads) and the older `output_format`. `null` means absent.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from qwen_proxy.protocols import bodies

Positive = Annotated[int, Meta(ge=1)]
MAX_MESSAGES: Final = 10_000  # Anthropic takes 100,000; each takes a line of a prompt, which holds fewer


class SourceBody(Struct):
    """Of a picture or document. `content` is of the type `content` only."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: "str | list[BlockBody] | None" = None


class ToolChangeBody(Struct):
    """`definition` is of the type `tool_definition`; the others name a tool."""

    type: str
    name: str | None = None
    definition: "ToolBody | None" = None


class BlockBody(Struct):
    """One struct for every type. `source` is a string in search results."""

    type: str
    text: str | None = None
    source: SourceBody | str | None = None
    title: str | None = None
    context: str | None = None
    content: "str | list[BlockBody] | dict[str, Raw] | None" = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw()
    tool_use_id: str | None = None
    is_error: bool | None = None
    tool_name: str | None = None
    tool: ToolChangeBody | None = None


class FormatBody(Struct):
    type: str
    schema: dict[str, Any] | None = None  # JSON enters here


class OutputConfigBody(Struct):
    effort: str | None = None
    format: FormatBody | None = None


class MessageBody(Struct):
    role: str
    content: str | Annotated[list[BlockBody], Meta(max_length=MAX_MESSAGES)] | None = None
    clear_at: str | None = None
    output_config: OutputConfigBody | None = None


class ToolBody(Struct):
    type: str | None = None
    name: Annotated[str, Meta(min_length=1)] | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None  # a JSON Schema: JSON enters here
    strict: bool | None = None
    defer_loading: bool | None = None


class ToolChoiceBody(Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingBody(Struct):
    type: str
    budget_tokens: Positive | None = None
    display: str | None = None


class ThreadBody(Struct):
    type: str
    previous_message_id: str | None = None


class MessagesBody(Struct):
    messages: Annotated[list[MessageBody], Meta(max_length=MAX_MESSAGES)]
    model: str | None = None
    system: str | list[BlockBody] | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfigBody | None = None
    output_format: FormatBody | None = None
    metadata: Raw = Raw()
    thread: ThreadBody | None = None
    mcp_servers: list[Raw] | None = None

    @property
    def session(self) -> str:
        """The conversation this belongs to, empty where nobody says: `metadata.user_id` holds JSON with a `session_id`
        (Claude Code), or is itself all there is."""
        said = bodies.read(self.metadata, _METADATA)
        user_id = "" if said is None else said.user_id
        inner = bodies.read(Raw(user_id.encode(errors="replace")), _SESSION)
        return user_id if inner is None else inner.session_id


class _MetadataBody(Struct):
    user_id: str = ""


class _SessionBody(Struct):
    session_id: str


_METADATA: Final = msgspec.json.Decoder(_MetadataBody)
_SESSION: Final = msgspec.json.Decoder(_SessionBody)
_BODY: Final = msgspec.json.Decoder(MessagesBody)
# These are read into Sampling, but chat.qwen.ai takes none of them.
_WITHOUT_EFFECT: Final = frozenset({"temperature", "top_p", "top_k"})
_HONOURED: Final = frozenset(MessagesBody.__struct_fields__) - _WITHOUT_EFFECT


def decode(body: bytes) -> tuple[MessagesBody, tuple[str, ...]]:
    """The body, and the names of its top-level fields that have no effect here. Raises InvalidRequest."""
    return bodies.decode(body, _BODY, _HONOURED)
