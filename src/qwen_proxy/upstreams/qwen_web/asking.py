"""Our request as the site's bodies. Pure. Source: upstream protocol §3.1, §4.1 to §4.3."""

from collections.abc import Sequence
from typing import Final

import msgspec

from qwen_proxy.chat.models import Mode, Model
from qwen_proxy.chat.request import ChatRequest, FilePart, ImagePart, Message, TextPart
from qwen_proxy.ground.errors import PromptTooLong, UnsupportedParameter
from qwen_proxy.upstreams.qwen_web.wire import (
    CompletionBody,
    FeatureConfigBody,
    MessageExtraBody,
    MessageMetaBody,
    NewChatBody,
    UserMessageBody,
)

CHAT_TYPES: Final = {
    Mode.CHAT: "t2t",
    Mode.IMAGE: "t2i",
    Mode.IMAGE_EDIT: "image_edit",
    Mode.DEEP_RESEARCH: "deep_research",
}
ENVELOPE_BYTES: Final = 2048  # what stands around the text, at most
MOST_BYTES_OF_A_CHARACTER: Final = 6  # a control character, as \u0001
MARKER_CHARACTERS: Final = 64  # that a message has more than its text, in the rendered prompt


def chat_type(request: ChatRequest) -> str:
    """The upstream's word for the mode (§4.3). Raises UnsupportedParameter for one that is no stream."""
    variant = request.model.variant
    if variant.search and variant.mode is Mode.CHAT:
        return "search"
    if variant.mode not in CHAT_TYPES:
        raise UnsupportedParameter(f"the mode {variant.mode.value} is not asked for in a chat", param="model")
    return CHAT_TYPES[variant.mode]


def features(request: ChatRequest, model: Model) -> FeatureConfigBody:
    """The gear (§4.2): Thinking, or Fast for those that can. `auto_search` stays off: no search nobody asked for."""
    wants = request.thinking and request.model.variant.mode in (Mode.CHAT, Mode.DEEP_RESEARCH)
    if not wants and model.can_skip_thinking:
        return FeatureConfigBody(thinking_enabled=False, thinking_mode="Fast")
    budget = request.reasoning.budget_tokens
    return FeatureConfigBody(
        thinking_enabled=True,
        thinking_mode="Thinking",
        thinking_format="summary",
        thinking_budget=msgspec.UNSET if budget is None else budget,
    )


def refuse_attachments(messages: Sequence[Message]) -> None:
    """Nothing is uploaded yet; what stands in a tool's result is told of in the prompt. Raises UnsupportedParameter."""
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, ImagePart | FilePart):
            place = part.place or "messages"
            raise UnsupportedParameter(
                f"{place}: this upstream takes no images and files yet; send text only", param=place
            )


def surely_fits(messages: Sequence[Message], limit_bytes: int) -> bool:
    """A quick look: whether the messages fit even if each character took the most that JSON can make of it."""
    characters = sum(
        len(part.text) if isinstance(part, TextPart) else limit_bytes for message in messages for part in message.parts
    )
    return (
        characters + len(messages) * MARKER_CHARACTERS
    ) * MOST_BYTES_OF_A_CHARACTER + 2 * ENVELOPE_BYTES < limit_bytes


def check_size(prompt: str, limit_bytes: int) -> None:
    """The firewall challenges bodies near 128 KiB (§3.2). Raises PromptTooLong."""
    size_bytes = len(msgspec.json.encode(prompt)) + ENVELOPE_BYTES
    if size_bytes > limit_bytes:
        raise PromptTooLong(size_bytes, limit_bytes, "bytes")


def encode_new_chat(model_id: str, mode: str, now: float) -> bytes:
    """§3.1, the current front end's form. `now` is Unix seconds."""
    return msgspec.json.encode(NewChatBody(models=(model_id,), timestamp=int(now * 1000), chat_type=mode))


def encode_completion(
    prompt: str, *, model_id: str, mode: str, gear: FeatureConfigBody, chat_id: str, ids: tuple[str, str], now: float
) -> bytes:
    """§4.1: the first and only message of a new chat. `ids` are two fresh UUIDv4: the message's and its child's."""
    seconds = int(now)
    message = UserMessageBody(
        fid=ids[0],
        children_ids=(ids[1],),
        content=prompt,
        timestamp=seconds,
        models=(model_id,),
        chat_type=mode,
        sub_chat_type=mode,
        feature_config=gear,
        extra=MessageExtraBody(MessageMetaBody(mode)),
    )
    body = CompletionBody(
        chat_id_camel=chat_id, chat_id=chat_id, model=model_id, messages=(message,), timestamp=seconds
    )
    return msgspec.json.encode(body)
