"""What a client sends to `/v1/responses`: the shapes, and bytes to them. Pure.

Shapes: OpenAI's API reference, as typed in the openai SDK 3.54. `null` means absent. Of an item and of a tool only what
we read is typed; what has several shapes, depending on the item's type, stays raw until the type is known.
"""

from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.ground.shapes import shape_refusal
from qwen_proxy.protocols.base import Incoming
from qwen_proxy.protocols.bodies import decode, extra, read, whole_characters

T = TypeVar("T")
Positive = Annotated[int, Meta(ge=1)]
MAX_ITEMS: Final = 10_000  # as chat completions take messages
_SESSION_WORDS: Final = ("session_id", "sessionId", "conversation_id", "user_id")


class ItemBody(Struct):
    """Any item of `input`. Without `type` it is a message when it has a role, else an `item_reference`."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: Raw = Raw()
    summary: Raw = Raw()
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: Raw = Raw()
    input: Raw = Raw()
    output: Raw = Raw()
    tools: Raw = Raw()

    @property
    def kind(self) -> str:
        return self.type or ("message" if self.role else "item_reference")


class AudioBody(Struct):
    data: str
    format: str


class LinkBody(Struct):
    url: str


class PartBody(Struct):
    """One struct for every type of content."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | LinkBody | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: AudioBody | None = None


class SummaryBody(Struct):
    text: str = ""


class FormatBody(Struct):
    """Of a custom tool's input: `text`, or a `grammar` with its syntax and definition."""

    type: str
    syntax: str | None = None
    definition: str | None = None


class ToolBody(Struct):
    """Of any type. Its schema is hostile input."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None  # JSON enters here
    strict: bool | None = None
    format: FormatBody | None = None
    tools: list["ToolBody"] | None = None
    external_web_access: bool | None = None


class AllowedBody(Struct):
    """One of `allowed_tools`, or of the choice itself."""

    type: str
    name: str | None = None
    namespace: str | None = None


class ToolChoiceBody(AllowedBody):
    mode: str | None = None
    tools: list[AllowedBody] | None = None


class OutputBody(Struct):
    """`text.format`."""

    type: str
    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None  # JSON enters here
    strict: bool | None = None


class TextBody(Struct):
    format: OutputBody | None = None
    verbosity: str | None = None


class ReasoningBody(Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesBody(Struct):
    input: str | Annotated[list[ItemBody], Meta(max_length=MAX_ITEMS)] | None = None
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    tools: list[ToolBody] | None = None
    tool_choice: str | ToolChoiceBody | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Positive | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning: ReasoningBody | None = None
    text: TextBody | None = None
    include: list[str] | None = None
    truncation: str | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    conversation: Raw = Raw()
    prompt: Raw = Raw()
    stream_options: Raw = Raw()
    service_tier: Raw = Raw()
    client_metadata: Raw = Raw()

    @property
    def items(self) -> list[ItemBody]:
        if isinstance(self.input, str):
            return [ItemBody(role="user", content=Raw(msgspec.json.encode(self.input)))]
        return self.input or []

    @property
    def session(self) -> str:
        """What a client says of the conversation this belongs to; empty where nothing."""
        said = {**(read(self.client_metadata, _METADATA) or {}), **(self.metadata or {})}
        words = [*(said.get(name) for name in _SESSION_WORDS), self.prompt_cache_key]
        return next((word for word in words if isinstance(word, str) and word), "")


class KeptBody(Struct):
    """What of a body is told again with the reply, or kept with it, as the client wrote it."""

    input: Raw = Raw()
    tools: Raw = Raw(b"[]")
    tool_choice: Raw = Raw(b'"auto"')
    text: Raw = Raw(b'{"format":{"type":"text"}}')


# Read, and yet of no effect here; `truncation` only where it asks for something.
_WITHOUT_EFFECT: Final = frozenset({"temperature", "top_p", "service_tier", "client_metadata", "truncation"})
_FIELDS: Final = frozenset(ResponsesBody.__struct_fields__)
_HONOURED: Final = _FIELDS - _WITHOUT_EFFECT
# Chat completions have fields of the same names and meanings; they know nothing of the others.
_OF_CHAT: Final = frozenset({"user", "safety_identifier", "prompt_cache_key", "service_tier"})
_OF_RESPONSES: Final = frozenset(
    {"access_programs", "background_options", "context_management", "image", "max_tool_calls"}
)
_KEPT_BACK: Final = (_FIELDS - _OF_CHAT) | _OF_RESPONSES
_BODY: Final = msgspec.json.Decoder(ResponsesBody)
_KEPT: Final = msgspec.json.Decoder(KeptBody)
_METADATA: Final = msgspec.json.Decoder(dict[str, object])


class Asked(Struct, frozen=True):
    """A body, as we read it and as it was written, and the names of its fields that have no effect.

    extra: what of it a server of chat completions may know.
    """

    body: ResponsesBody
    kept: KeptBody
    ignored: tuple[str, ...]
    extra: dict[str, Raw]


def asked(incoming: Incoming) -> Asked:
    """Raises InvalidRequest."""
    written = whole_characters(incoming.body)
    body, ignored = decode(written, _BODY, _HONOURED, "input")
    if body.truncation in (None, "disabled"):
        ignored = tuple(name for name in ignored if name != "truncation")
    handed_on = extra(written, _KEPT_BACK)
    if body.text is not None and body.text.verbosity is not None:
        handed_on["verbosity"] = Raw(msgspec.json.encode(body.text.verbosity))
        ignored += ("text.verbosity",)
    return Asked(body, _kept(written), ignored, handed_on)


def _kept(body: bytes) -> KeptBody:
    kept = _KEPT.decode(body)
    default = KeptBody()
    for name in KeptBody.__struct_fields__:
        if bytes(getattr(kept, name)) == b"null":
            setattr(kept, name, getattr(default, name))
    return kept


def part_of(value: Raw, decoder: msgspec.json.Decoder[T], path: str) -> T:
    """A raw field, now that its shape is known. Raises InvalidRequest, which names it by its whole path."""
    try:
        return decoder.decode(value)
    except msgspec.ValidationError as error:
        raise shape_refusal(str(error), at=path) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"`{path}` is missing or no valid JSON", param=path) from error
