"""The model list in Anthropic's shape, which is what a request with `anthropic-version` wants of `/v1/models`. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.chat.models import Mode, suffix_of
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.protocols.anthropic_messages import Anthropic
from qwen_proxy.protocols.base import ListedModel
from qwen_proxy.protocols.limit_headers import timestamp

MOST: Final = 1000


class ModelBody(Struct, kw_only=True):
    """created_at: the epoch where nobody says, as Anthropic's API has it."""

    id: str
    display_name: str
    created_at: str
    type: str = "model"
    lifecycle: str = "active"
    max_input_tokens: int | None = None
    max_tokens: int | None = None


class ModelListBody(Struct, kw_only=True):
    data: list[ModelBody]
    has_more: bool
    first_id: str | None
    last_id: str | None


class AnthropicModels(Anthropic):
    """Fits `protocols.base.ModelsProtocol`."""

    def all(self, models: Sequence[ListedModel], query: Mapping[str, str]) -> bytes:
        """The part that `limit`, `after_id` and `before_id` ask for; without `limit` as much as there is, where
        Anthropic gives 20."""
        limit = _limit(query.get("limit"))
        ids = [model.id for model in models]
        first, last = 0, len(models)
        if (after := query.get("after_id")) is not None:
            first = _place(ids, after, "after_id") + 1
        if (before := query.get("before_id")) is not None:
            last = max(first, _place(ids, before, "before_id"))
        if before is not None and after is None:
            page, has_more = models[max(first, last - limit) : last], last - limit > first
        else:
            page, has_more = models[first : min(last, first + limit)], first + limit < last
        listed = ModelListBody(
            data=[_body(model) for model in page],
            has_more=has_more,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
        )
        return msgspec.json.encode(listed)

    def one(self, model: ListedModel) -> bytes:
        return msgspec.json.encode(_body(model))


def _limit(said: str | None) -> int:
    if said is None:
        return MOST
    if not (said.isascii() and said.isdigit() and 1 <= int(said) <= MOST):
        raise InvalidRequest(f"limit must be a number from 1 to {MOST}", param="limit")
    return int(said)


def _place(ids: Sequence[str], id: str, param: str) -> int:
    if id not in ids:
        raise InvalidRequest(f"{param} names {id[:64]!r}, which is not in the list", param=param)
    return ids.index(id)


def _body(listed: ListedModel) -> ModelBody:
    model = listed.model
    chats = listed.variant.mode is Mode.CHAT
    return ModelBody(
        id=listed.id,
        display_name=model.display_name + suffix_of(listed.variant) if listed.backend else listed.id,
        created_at=timestamp(model.created_at),
        max_input_tokens=model.context_tokens if chats else None,
        max_tokens=model.output_tokens if chats else None,
    )
