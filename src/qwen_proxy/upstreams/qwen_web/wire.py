"""The shapes of chat.qwen.ai's web API, as far as we send or read them (upstream protocol §2 to §4).

Input is tolerant: every field is optional and every enum open. Nothing here leaves this package.
"""

import json
from typing import Final, Literal, TypeGuard

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

NOTHING: Final = Raw()
NULL: Final = Raw(b"null")

# --- what we send ------------------------------------------------------------------------------------------


class SignInBody(Struct, frozen=True):
    """§1.1: `password` is the lower-case hex SHA-256 of the plain one."""

    email: str
    password: str


class NewChatBody(Struct, frozen=True, rename="camel"):
    """§3.1, the current front end's form. `timestamp` is milliseconds."""

    models: tuple[str, ...]
    timestamp: int
    chat_type: str = field(name="chat_type")
    chat_mode: str = field(name="chat_mode", default="normal")
    project_id: str = field(name="project_id", default="")
    chat_id: str = ""


class FeatureConfigBody(Struct, frozen=True, kw_only=True):
    """§4.2. `output_schema` is required in practice: without it no delta has a phase."""

    thinking_enabled: bool
    output_schema: str = "phase"
    research_mode: str = "normal"
    auto_thinking: bool = False
    thinking_mode: str
    thinking_format: str | UnsetType = UNSET
    thinking_budget: int | UnsetType = UNSET
    auto_search: bool = False


class MessageMetaBody(Struct, frozen=True):
    sub_chat_type: str = field(name="subChatType")


class MessageExtraBody(Struct, frozen=True):
    meta: MessageMetaBody


class UserMessageBody(Struct, frozen=True, kw_only=True):
    """§4.1: the one message of a completion; the whole conversation is its text. `timestamp` is seconds."""

    id: None = None
    fid: str
    parent_id_camel: None = field(name="parentId", default=None)
    parent_id: None = None
    children_ids: tuple[str, ...] = field(name="childrenIds")
    role: str = "user"
    content: str
    user_action: str = "chat"
    files: tuple[str, ...] = ()
    timestamp: int
    models: tuple[str, ...]
    model: str = ""
    chat_type: str
    sub_chat_type: str
    feature_config: FeatureConfigBody
    extra: MessageExtraBody


class CompletionBody(Struct, frozen=True, kw_only=True):
    """§4.1. The lower-case `chat_id` is mandatory; `timestamp` is seconds."""

    stream: bool = True
    version: str = "2.1"
    incremental_output: bool = True
    chat_id_camel: str = field(name="chatId")
    chat_id: str
    parent_id_camel: str = field(name="parentId", default="")
    parent_id: None = None
    chat_mode: str = "normal"
    model: str
    messages: tuple[UserMessageBody, ...]
    timestamp: int


# --- what a stream holds (§4.4) ----------------------------------------------------------------------------


class DeltaBody(Struct, frozen=True, gc=False):
    role: str | None = None
    content: str | None = None
    phase: str | None = None
    status: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    extra: Raw = NOTHING
    function_id: str | None = None
    function_call: Raw = NOTHING


class ChoiceBody(Struct, frozen=True, gc=False):
    delta: DeltaBody | None = None
    finish_reason: str | None = None


class CreatedBody(Struct, frozen=True, gc=False):
    """`response_index` was absent in March 2026; then the candidate is the first."""

    response_id: str | None = None
    response_index: str | None = None


class FrameBody(Struct, frozen=True, gc=False):
    """One SSE payload: a delta, a creation, a keep-alive, an error or a whole v2 envelope."""

    choices: tuple[ChoiceBody, ...] | None = None
    response_id: str | None = None
    usage: Raw = NOTHING
    created: CreatedBody | None = field(name="response.created", default=None)
    completed: Raw = field(name="response.completed", default=NOTHING)
    error: Raw = NOTHING
    success: bool | None = None
    ret: Raw = NOTHING


class TokenDeltaBody(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    content: str
    role: Literal["assistant"]
    phase: Literal["answer"]
    status: Literal["typing"]


class TokenChoiceBody(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    delta: TokenDeltaBody


class TokenBody(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The frame that comes once a token (§4.4 (4)), in exactly its captured form: what fits needs no second look."""

    choices: tuple[TokenChoiceBody]
    response_id: str
    usage: Raw = NOTHING
    timestamp: int = 0


DELTA_KEYS: Final = frozenset(
    (*DeltaBody.__struct_fields__, "tool_call_id"),
)
CHOICE_KEYS: Final = frozenset(("delta", "finish_reason", "index"))
ENVELOPE_KEYS: Final = frozenset(("success", "request_id", "data", "code", "details", "error", "ret"))
EVENT_KEYS: Final = frozenset(("response.created", "response.info", "response.completed"))
FRAME_KEYS: Final = (
    frozenset(("choices", "response_id", "usage", "timestamp", "tool_call_id")) | ENVELOPE_KEYS | EVENT_KEYS
)
STATUSES: Final = frozenset(("typing", "running", "finished", "in_progress"))

_decode_frame: Final = msgspec.json.Decoder(FrameBody).decode
_decode_any: Final = msgspec.json.Decoder().decode
decode_token: Final = msgspec.json.Decoder(TokenBody).decode


def decode_frame(payload: bytes) -> FrameBody:
    """Raises msgspec.ValidationError for JSON of another shape, another ValueError for what is no JSON."""
    return _decode_frame(payload)


# --- JSON of no certain shape: where it enters -------------------------------------------------------------


def loads(payload: bytes) -> object:
    """Any JSON, also with lone surrogates or broken UTF-8, which become replacement characters.

    Raises ValueError for what is no JSON.
    """
    try:
        return _decode_any(payload)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError:
        return _loads_loosely(payload)


def _loads_loosely(payload: bytes) -> object:
    """What a strict decoder refuses for its text only; the standard library takes lone surrogates."""
    try:
        value = json.loads(payload.decode("utf-8", "replace"), parse_constant=lambda _: None)
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def members(value: object) -> dict[str, object]:
    """The members of a JSON object; none of anything else."""
    return value if is_object(value) else {}


def items(value: object) -> list[object]:
    """The items of a JSON array; none of anything else."""
    return value if is_array(value) else []


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def whole(value: object) -> int | None:
    """A number that counts something, else None."""
    return value if type(value) is int and value >= 0 else None


def salvage(value: object) -> FrameBody:
    """The frame in a JSON value that does not fit it: a field of a wrong type is as if it were absent."""
    frame = members(value)
    created = members(frame.get("response.created"))
    index = created.get("response_index")
    return FrameBody(
        choices=tuple(_salvage_choice(choice) for choice in items(frame.get("choices"))),
        response_id=text(frame.get("response_id")) or None,
        usage=_raw(frame.get("usage")),
        created=CreatedBody(text(created.get("response_id")) or None, None if index is None else str(index))
        if created
        else None,
        completed=_raw(frame.get("response.completed")),
        error=_raw(frame.get("error")),
        success=False if frame.get("success") is False else None,
        ret=_raw(frame.get("ret")),
    )


def _salvage_choice(value: object) -> ChoiceBody:
    choice = members(value)
    delta = {name: found for name, found in members(choice.get("delta")).items() if isinstance(found, str)}
    raw = members(choice.get("delta"))
    return ChoiceBody(
        delta=DeltaBody(
            role=delta.get("role"),
            content=delta.get("content"),
            phase=delta.get("phase"),
            status=delta.get("status"),
            name=delta.get("name"),
            reasoning_content=delta.get("reasoning_content"),
            extra=_raw(raw.get("extra")),
            function_id=delta.get("function_id"),
            function_call=_raw(raw.get("function_call")),
        ),
        finish_reason=text(choice.get("finish_reason")) or None,
    )


def _raw(value: object) -> Raw:
    return NOTHING if value is None else Raw(msgspec.json.encode(value))
