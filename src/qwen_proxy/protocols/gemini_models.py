"""The model list in Gemini's shape: `/v1beta/models`. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from qwen_proxy.chat.models import Mode, suffix_of
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.protocols.base import ListedModel
from qwen_proxy.protocols.gemini import Gemini

MOST: Final = 1000
METHODS: Final = ("generateContent", "streamGenerateContent", "countTokens")


class GeminiModels(Gemini):
    """Fits `protocols.base.ModelsProtocol`."""

    def all(self, models: Sequence[ListedModel], query: Mapping[str, str]) -> bytes:
        """The page that `pageSize` and `pageToken` ask for; without them as much as there is, where Google gives 50."""
        size = _number(query, "pageSize", MOST) or MOST
        first = _number(query, "pageToken", len(models)) or 0
        listed: dict[str, object] = {"models": [_body(model) for model in models[first : first + size]]}
        if first + size < len(models):
            listed["nextPageToken"] = str(first + size)
        return msgspec.json.encode(listed)

    def one(self, model: ListedModel) -> bytes:
        return msgspec.json.encode(_body(model))


def _number(query: Mapping[str, str], param: str, most: int) -> int | None:
    said = query.get(param)
    if not said:
        return None
    if not (said.isascii() and said.isdigit() and len(said) < 10):
        raise InvalidRequest(f"{param} must be a number", param=param)
    return min(int(said), most)


def _body(listed: ListedModel) -> dict[str, object]:
    model = listed.model
    chats = listed.variant.mode is Mode.CHAT
    body: dict[str, object] = {
        "name": f"models/{listed.id}",
        "version": "1",
        "displayName": model.display_name + suffix_of(listed.variant) if listed.backend else listed.id,
        "description": model.description,
        "supportedGenerationMethods": METHODS if chats else (),
        "thinking": model.thinks,
    }
    if chats and model.context_tokens is not None:
        body["inputTokenLimit"] = model.context_tokens
    if chats and model.output_tokens is not None:
        body["outputTokenLimit"] = model.output_tokens
    return body
